"""From drawn shapes to a scene: one ball and one polygon in every frame, or the reason why not."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rorqual.tasks.animation.trace import Circle, Frame, Outline, Trace

_SAME_POINT = 0.05
_MAX_COLOURS = 8


class Rejected(Exception):
    """The animation is not what was asked for; the text is the short, stable reason."""


@dataclass(frozen=True, slots=True)
class Scene:
    """F frames of a ball and a polygon of N corners; colours are every one that was used."""

    seconds: NDArray[np.float64]  # [F]
    ball: NDArray[np.float64]  # [F, 2]
    radius: NDArray[np.float64]  # [F]
    corners: NDArray[np.float64]  # [F, N, 2]
    ball_colours: set[str]
    container_colours: set[str]
    backgrounds: set[str]


@dataclass(slots=True)
class _Picture:
    """One frame's shapes, sorted out."""

    balls: list[Circle] = field(default_factory=list[Circle])
    rings: list[Circle] = field(default_factory=list[Circle])
    outlines: list[Outline] = field(default_factory=list[Outline])


def find_scene(trace: Trace, num_sides: int) -> Scene:
    """Raises Rejected where a frame does not show exactly one ball and one such polygon."""
    frames = _distinct_frames(trace.frames)
    balls: list[Circle] = []
    polygons: list[Outline] = []
    backgrounds: set[str] = set()
    for frame in frames:
        if frame.background is None:
            raise Rejected("frame not cleared")
        backgrounds.add(frame.background)
        ball, polygon = _read_picture(frame)
        if len(polygon.coordinates) != 2 * num_sides:
            raise Rejected("wrong shape")
        balls.append(ball)
        polygons.append(polygon)
    scene = Scene(
        seconds=np.array([frame.seconds for frame in frames]),
        ball=np.array([(ball.x, ball.y) for ball in balls]),
        radius=np.array([ball.radius for ball in balls]),
        corners=np.array([p.coordinates for p in polygons]).reshape(-1, num_sides, 2),
        ball_colours={ball.colour for ball in balls},
        container_colours={polygon.colour for polygon in polygons},
        backgrounds=backgrounds,
    )
    for colours in (scene.ball_colours, scene.container_colours, scene.backgrounds):
        if len(colours) > _MAX_COLOURS:
            raise Rejected("colours change")
    return scene


def _distinct_frames(frames: list[Frame]) -> list[Frame]:
    """One frame per instant (the last one shows), without a start-up frame that has no ball."""
    kept: list[Frame] = []
    for frame in frames:
        if kept and frame.seconds < kept[-1].seconds:
            raise Rejected("broken trace")
        if kept and frame.seconds == kept[-1].seconds:
            kept.pop()
        kept.append(frame)
    if kept and not any(isinstance(shape, Circle) for shape in kept[0].shapes):
        del kept[0]
    if not kept:
        raise Rejected("draws nothing")
    return kept


def _read_picture(frame: Frame) -> tuple[Circle, Outline]:
    picture = _Picture()
    for shape in frame.shapes:
        if isinstance(shape, Circle):
            (picture.balls if shape.paint == "f" else picture.rings).append(shape)
        else:
            picture.outlines.append(shape)
    ball = _only_ball(picture)
    polygon = _only_polygon(picture)
    if _is_covered(ball, frame):
        raise Rejected("ball is covered")
    return ball, polygon


def _only_ball(picture: _Picture) -> Circle:
    if not picture.balls:
        raise Rejected("no ball")
    if len(picture.balls) > 1:
        raise Rejected("more than one ball")
    ball = picture.balls[0]
    for ring in picture.rings:  # the ball's own rim is welcome
        if abs(ring.x - ball.x) + abs(ring.y - ball.y) > 1 or abs(ring.radius - ball.radius) > 3:
            raise Rejected("more than one ball")
    return ball


def _only_polygon(picture: _Picture) -> Outline:
    """The polygon; filled and stroked it counts once, by the colour of its edge."""
    found: list[Outline] = []
    for outline in _joined(picture.outlines):
        if not outline.closed:
            raise Rejected("stray lines")
        twin = next((k for k, other in enumerate(found) if _is_same_place(outline, other)), None)
        if twin is None:
            found.append(outline)
        elif outline.paint == "s":
            found[twin] = outline
    if not found:
        raise Rejected("no polygon")
    if len(found) > 1:
        raise Rejected("more than one polygon")
    return found[0]


def _joined(outlines: list[Outline]) -> list[Outline]:
    """Lines drawn one after another from end to end become one outline, closed if they close."""
    joined: list[Outline] = []
    for outline in outlines:
        last = joined[-1] if joined else None
        if (
            last is not None
            and not last.closed
            and not outline.closed
            and last.colour == outline.colour
            and _meet(last.coordinates[-2:], outline.coordinates[:2])
        ):
            joined.pop()
            coordinates = last.coordinates + outline.coordinates[2:]
            joined.append(_tidy(Outline(outline.paint, outline.colour, False, coordinates)))
        else:
            joined.append(_tidy(outline))
    return joined


def _tidy(outline: Outline) -> Outline:
    """Closed where the last point is the first, which is then left out."""
    points = outline.coordinates
    if len(points) >= 8 and _meet(points[:2], points[-2:]):
        return Outline(outline.paint, outline.colour, True, points[:-2])
    return outline


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return abs(one[0] - other[0]) <= _SAME_POINT and abs(one[1] - other[1]) <= _SAME_POINT


def _is_same_place(one: Outline, other: Outline) -> bool:
    return len(one.coordinates) == len(other.coordinates) and all(
        abs(a - b) <= _SAME_POINT for a, b in zip(one.coordinates, other.coordinates, strict=True)
    )


def _is_covered(ball: Circle, frame: Frame) -> bool:
    """Whether something filled was drawn over the ball's centre afterwards."""
    after = frame.shapes[frame.shapes.index(ball) + 1 :]
    return any(
        isinstance(shape, Outline)
        and shape.paint == "f"
        and _holds(shape.coordinates, ball.x, ball.y)
        for shape in after
    )


def _holds(coordinates: tuple[float, ...], x: float, y: float) -> bool:
    """Whether the point lies inside: a ray to the right crosses the outline an odd number of
    times."""
    inside = False
    bx, by = coordinates[-2:]
    for ax, ay in zip(coordinates[::2], coordinates[1::2], strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            inside = not inside
        bx, by = ax, ay
    return inside
