"""What a program drew, as the recorders report it: read with every size and type checked.

The text comes out of the sandbox, so any of it may be made up. What it cannot do is pass for a
good animation without being one: the judges look at nothing but these frames.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

MAX_FRAMES = 2600
_MAX_SHAPES = 64
_MAX_COORDINATES = 2 * 256

Paint = Literal["f", "s"]


@dataclass(frozen=True, slots=True)
class Circle:
    """paint: "f" filled, "s" stroked."""

    paint: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Outline:
    """Straight lines through points x0, y0, x1, y1, ...; back to the first if closed."""

    paint: str
    colour: str
    closed: bool
    coordinates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """background: the colour the whole screen was last painted with, "" if it was cleared to
    nothing, None if this frame was drawn over the one before."""

    seconds: float
    background: str | None
    shapes: tuple[Circle | Outline, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """status: "ok", "syntax", "error" or "timeout"; message is in the program's own words."""

    status: str
    message: str
    width: float
    height: float
    frames: list[Frame]


def read_trace(stdout: str, token: str) -> Trace | None:
    """The trace in the last line that begins with the token; None if none is well-formed."""
    begin = stdout.rfind("\n" + token)
    if begin < 0:
        return None
    text = stdout[begin + 1 + len(token) :]
    try:
        data = json.loads(text, parse_constant=_refuse)
        width, height = (_number(size) for size in data["size"])
        if len(data["frames"]) > MAX_FRAMES:
            return None
        return Trace(
            status=str(data["status"]),
            message=str(data["message"]),
            width=width,
            height=height,
            frames=[_read_frame(*frame) for frame in data["frames"]],
        )
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _number(value: Any) -> float:
    # bool is an int to Python, but no recorder writes one.
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _read_frame(seconds: Any, background: Any, shapes: Any) -> Frame:
    if len(shapes) > _MAX_SHAPES or not (background is None or isinstance(background, str)):
        raise ValueError("frame")
    return Frame(_number(seconds), background, tuple(_read_shape(shape) for shape in shapes))


def _read_shape(shape: list[Any]) -> Circle | Outline:
    kind, paint, colour = shape[:3]
    if paint not in ("f", "s") or not isinstance(colour, str):
        raise ValueError("shape")
    if kind == "c":
        x, y, radius = (_number(value) for value in shape[3:])
        return Circle(paint, colour, x, y, radius)
    coordinates = tuple(_number(value) for value in shape[4:])
    if kind != "p" or len(coordinates) % 2 or not 2 <= len(coordinates) <= _MAX_COORDINATES:
        raise ValueError("shape")
    return Outline(paint, colour, bool(shape[3]), coordinates)
