"""The judge: does the scene show what was asked for, and would a ball move like that?

Everything is measured on what was drawn. The polygon gives centre, size and angle of each frame;
the ball must stay inside it, move, and bounce. Between bounces its path has to be a straight line,
or a parabola with gravity: that refuses a ball that is carried round with the polygon, or that
turns in mid-air. Coordinates rounded to whole pixels pass.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rorqual.tasks.animation.colours import can_tell_apart, is_colour
from rorqual.tasks.animation.flights import Flight, find_flights
from rorqual.tasks.animation.request import Request
from rorqual.tasks.animation.scene import Rejected, Scene, find_scene
from rorqual.tasks.animation.trace import Trace

SECONDS = 20.0
_LEAST_FRAMES = 300  # 15 a second
_END_SLACK_SECONDS = 0.5
# Pixels.
_LEAST_INRADIUS, _LEAST_BALL = 30.0, 3.0
_OVER_THE_EDGE = 5.0
_DRIFT = 2.0
_LONGEST_STEP = 40.0
_LEAST_PATH, _LEAST_LAST_PATH, _LAST_SECONDS = 200.0, 20.0, 5.0
_REGULAR = 0.03  # of the length in question
_MAX_PIXEL_ERROR = 1.5
# Radians, pixels and pixels per second, a second.
_LEAST_TURNING, _SLOW_TURNING_BELOW, _MOST_TURNING = 0.05, 0.85, 6.0
_SLOW_BALL_BELOW, _FAST_BALL_ABOVE = 165.0, 255.0
_LEAST_GRAVITY, _NO_GRAVITY = 80.0, 40.0
_LEAST_BOUNCES = 3
_LEAST_FLIGHT_FRAMES = 60
_GOOD_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class _Polygon:
    """centre [F, 2]; inradius and circumradius [F]; normals [F, N, 2], outward, unit length."""

    centre: NDArray[np.float64]
    inradius: NDArray[np.float64]
    circumradius: NDArray[np.float64]
    normals: NDArray[np.float64]


def check_animation(trace: Trace, request: Request) -> str | None:
    """None if the animation is what was asked for, else the reason, a short stable phrase."""
    try:
        scene = find_scene(trace, request.sides)
        if scene.seconds[-1] < SECONDS - _END_SLACK_SECONDS:
            raise Rejected("stops early")
        if len(scene.seconds) < _LEAST_FRAMES:
            raise Rejected("too few frames")
        _check_colours(scene, request)
        polygon = _measure_polygon(scene)
        _check_sizes(scene, polygon, trace)
        _check_turning(scene, request)
        gap = _check_motion(scene, polygon)
        _check_flights(scene, gap, request)
    except Rejected as rejected:
        return str(rejected)
    return None


def _check_colours(scene: Scene, request: Request) -> None:
    wanted = (
        ("ball", scene.ball_colours, request.ball),
        ("polygon", scene.container_colours, request.container),
        ("background", scene.backgrounds, request.background),
    )
    for part, used, name in wanted:
        if name is not None and not all(is_colour(colour, name) for colour in used):
            raise Rejected(f"wrong {part} colour")
    for behind in scene.backgrounds - {""}:
        if not all(can_tell_apart(behind, c) for c in scene.ball_colours):
            raise Rejected("ball cannot be seen")
        if not all(can_tell_apart(behind, c) for c in scene.container_colours):
            raise Rejected("polygon cannot be seen")


def _measure_polygon(scene: Scene) -> _Polygon:
    """Rejects what is not regular, within rounding."""
    corners = scene.corners  # [F, N, 2]
    num_sides = corners.shape[1]
    centre = corners.mean(axis=1)  # [F, 2]
    radii = np.linalg.norm(corners - centre[:, None], axis=2)  # [F, N]
    circumradius = radii.mean(axis=1)  # [F]
    following = np.roll(corners, -1, axis=1)  # [F, N, 2]
    sides = np.linalg.norm(following - corners, axis=2)  # [F, N]
    side = 2 * circumradius * np.sin(np.pi / num_sides)  # [F]
    slack = _REGULAR * circumradius[:, None] + _MAX_PIXEL_ERROR
    if np.any(np.abs(radii - circumradius[:, None]) > slack) or np.any(
        np.abs(sides - side[:, None]) > slack
    ):
        raise Rejected("wrong shape")
    inradius = circumradius * np.cos(np.pi / num_sides)  # [F]
    if np.any(inradius < _LEAST_INRADIUS):
        raise Rejected("polygon too small")
    outward = (corners + following) / 2 - centre[:, None]  # [F, N, 2]
    normals = outward / np.linalg.norm(outward, axis=2, keepdims=True)
    return _Polygon(centre, inradius, circumradius, normals)


def _check_sizes(scene: Scene, polygon: _Polygon, trace: Trace) -> None:
    radius, centre = scene.radius, polygon.centre
    if np.ptp(polygon.circumradius) > _DRIFT:
        raise Rejected("polygon changes size")
    if np.any(np.abs(centre - centre[0]) > _DRIFT):
        raise Rejected("polygon moves away")
    low, high = scene.corners.min(axis=(0, 1)), scene.corners.max(axis=(0, 1))  # [2]
    if np.any(low < -_DRIFT) or np.any(high > np.array([trace.width, trace.height]) + _DRIFT):
        raise Rejected("polygon leaves the screen")
    if np.ptp(radius) > _DRIFT:
        raise Rejected("ball changes size")
    if np.any(radius < _LEAST_BALL) or np.any(radius > polygon.inradius / 2):
        raise Rejected("wrong ball size")


def _check_turning(scene: Scene, request: Request) -> None:
    num_sides = scene.corners.shape[1]
    offset = scene.corners - scene.corners.mean(axis=1, keepdims=True)  # [F, N, 2]
    points = offset[..., 0] + 1j * offset[..., 1]  # [F, N] complex
    # A regular polygon's corners to the power N coincide; their angle is N times its own.
    angle = np.unwrap(np.angle(np.sum((points / np.abs(points)) ** num_sides, axis=1))) / num_sides
    elapsed = scene.seconds[-1] - scene.seconds[0]
    rate = (angle[-1] - angle[0]) / elapsed  # y points down: above 0 is clockwise
    if abs(rate) < _LEAST_TURNING:
        raise Rejected("polygon does not turn")
    steady = angle[0] + rate * (scene.seconds - scene.seconds[0])
    if np.max(np.abs(angle - steady)) > 0.2 * abs(rate) + 0.1:
        raise Rejected("polygon does not turn evenly")
    if request.direction is not None and (rate > 0) != (request.direction == "clockwise"):
        raise Rejected("polygon turns the wrong way")
    is_slow = abs(rate) < _SLOW_TURNING_BELOW
    if abs(rate) > _MOST_TURNING or (
        request.turning is not None and is_slow != (request.turning == "slow")
    ):
        raise Rejected("wrong turning speed")


def _check_motion(scene: Scene, polygon: _Polygon) -> NDArray[np.float64]:
    """The room left between ball and nearest side, per frame [F]."""
    steps = np.linalg.norm(np.diff(scene.ball, axis=0), axis=1)  # [F-1]
    if steps.sum() < _LEAST_PATH:
        raise Rejected("ball does not move")
    offset = scene.ball - polygon.centre  # [F, 2]
    reach = np.einsum("fnd,fd->fn", polygon.normals, offset).max(axis=1)  # [F]
    gap = polygon.inradius - scene.radius - reach
    if gap.min() < -_OVER_THE_EDGE:
        raise Rejected("ball leaves the polygon")
    if steps.max() > _LONGEST_STEP:
        raise Rejected("ball jumps")
    is_late = scene.seconds[1:] > scene.seconds[-1] - _LAST_SECONDS
    if steps[is_late].sum() < _LEAST_LAST_PATH:
        raise Rejected("ball stops")
    return gap


def _check_flights(scene: Scene, gap: NDArray[np.float64], request: Request) -> None:
    flights = find_flights(scene.seconds, scene.ball, gap)
    num_bounces = sum(a.bounces_into(b) for a, b in pairwise(flights))
    if num_bounces < _LEAST_BOUNCES:
        raise Rejected("ball does not bounce")
    if sum(flight.num_frames for flight in flights) < _LEAST_FLIGHT_FRAMES:
        raise Rejected("ball does not fly")
    fall = _common_acceleration(flights)
    _check_gravity(fall, request)
    speed = float(np.linalg.norm(flights[0].start_velocity))
    if (request.ball_speed == "slow" and speed > _SLOW_BALL_BELOW) or (
        request.ball_speed == "fast" and speed < _FAST_BALL_ABOVE
    ):
        raise Rejected("wrong ball speed")


def _common_acceleration(flights: list[Flight]) -> NDArray[np.float64]:
    """The acceleration [2] that most of the time in flight shares; there must be one."""
    longest = max(flight.num_frames for flight in flights)
    clear = [flight for flight in flights if flight.num_frames >= longest / 2]
    common = np.median([flight.acceleration for flight in clear], axis=0)  # [2]
    good = sum(flight.num_frames for flight in flights if flight.agrees_with(common))
    if good < _GOOD_SHARE * sum(flight.num_frames for flight in flights):
        raise Rejected("ball does not fly freely")
    return common


def _check_gravity(fall: NDArray[np.float64], request: Request) -> None:
    sideways, down = float(fall[0]), float(fall[1])
    if abs(sideways) > _NO_GRAVITY + 0.1 * abs(down) or down < -_NO_GRAVITY:
        raise Rejected("gravity does not point down")
    if request.gravity is True and down < _LEAST_GRAVITY:
        raise Rejected("no gravity")
    if request.gravity is False and down > _NO_GRAVITY:
        raise Rejected("gravity not asked for")
