"""The ball's path between walls, each stretch fitted by a parabola in time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST_FRAMES = 8
_PIXEL_NOISE = 0.3  # standard deviation of rounding to whole pixels
_RESIDUAL = 1.0
_ACCELERATION_SLACK = 40.0  # pixels per second, a second
_BOUNCE_ANGLE_COSINE = np.cos(np.radians(15))


@dataclass(frozen=True, slots=True)
class Flight:
    """A stretch away from the walls; vectors are [2], in pixels and seconds."""

    num_frames: int
    start_velocity: NDArray[np.float64]
    end_velocity: NDArray[np.float64]
    acceleration: NDArray[np.float64]
    acceleration_noise: float
    residual: float

    def bounces_into(self, following: "Flight") -> bool:
        """Whether the ball left the wall in another direction than it came."""
        before, after = self.end_velocity, following.start_velocity
        lengths = np.linalg.norm(before) * np.linalg.norm(after)
        return bool(lengths > 0 and before @ after < _BOUNCE_ANGLE_COSINE * lengths)

    def agrees_with(self, acceleration: NDArray[np.float64]) -> bool:
        """Whether this is free flight under that acceleration, within what can be measured."""
        off = float(np.linalg.norm(self.acceleration - acceleration))
        slack = (
            _ACCELERATION_SLACK
            + 3 * self.acceleration_noise
            + 0.2 * float(np.linalg.norm(acceleration))
        )
        return off <= slack and self.residual <= _RESIDUAL


def find_flights(
    seconds: NDArray[np.float64], ball: NDArray[np.float64], gap: NDArray[np.float64]
) -> list[Flight]:
    """seconds [F], ball [F, 2], gap [F]: the room between ball and nearest wall.

    Near a wall is what the next frame might reach: a bounce shows only between frames.
    """
    change = np.abs(np.diff(gap))  # [F-1]
    reachable = np.maximum(np.append(change, 0.0), np.insert(change, 0, 0.0))  # [F]
    is_free = gap > 1.5 * reachable + 1.5  # [F]
    edges = np.flatnonzero(np.diff(np.concatenate(([False], is_free, [False])).astype(np.int8)))
    return [
        _fit(seconds[begin:end], ball[begin:end])
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
        if end - begin >= _LEAST_FRAMES
    ]


def _fit(seconds: NDArray[np.float64], ball: NDArray[np.float64]) -> Flight:
    """Least squares for place, velocity and half the acceleration at the middle of the stretch."""
    num_frames = len(seconds)
    half = (seconds[-1] - seconds[0]) / 2
    scaled = (seconds - seconds[0]) / half - 1  # [L] in -1 ... 1
    powers = np.stack([np.ones(num_frames), scaled, scaled**2], axis=1)  # [L, 3]
    solution = np.linalg.lstsq(powers, ball, rcond=None)[0]  # [3, 2]
    residual = ball - powers @ solution  # [L, 2]
    linear, square = solution[1] / half, solution[2] / half
    step = 2 * half / (num_frames - 1)
    return Flight(
        num_frames=num_frames,
        start_velocity=linear - 2 * square,
        end_velocity=linear + 2 * square,
        acceleration=2 * square / half,
        acceleration_noise=_PIXEL_NOISE * float(np.sqrt(720 / num_frames**5)) / step**2,
        residual=float(np.sqrt(np.mean(np.sum(residual**2, axis=1)))),
    )
