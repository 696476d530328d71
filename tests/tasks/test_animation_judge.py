"""The judge on made-up films: no program runs here, only what it would have drawn."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import pytest

from rorqual.tasks.animation.check import check_animation
from rorqual.tasks.animation.colours import can_tell_apart, is_colour, parse_colour
from rorqual.tasks.animation.request import Request
from rorqual.tasks.animation.trace import Circle, Frame, Outline, Trace, read_trace

ASKED = Request(
    sides=5, ball="red", container="blue", background="black", turning="slow",
    direction="clockwise", ball_speed=None, gravity=False,
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """The physics of a worked program; a frame is 1/60 s."""

    sides: int = 5
    size: float = 180.0
    turning: float = 0.01
    velocity: tuple[float, float] = (3.0, 2.0)
    gravity: float = 0.0
    radius: float = 12.0
    frames: int = 1201

    def states(self) -> Iterator[tuple[float, float, float]]:
        """(angle, x, y) of each frame."""
        n, w, (u, v) = self.sides, self.turning, self.velocity
        a = x = y = 0.0
        inner = self.size * math.cos(math.pi / n)
        for _ in range(self.frames):
            a, v = a + w, v + self.gravity
            x, y = x + u, y + v
            for i in range(n):
                c, s = math.cos(a + 2 * math.pi * i / n), math.sin(a + 2 * math.pi * i / n)
                d = x * c + y * s + self.radius - inner
                k = 2 * max(0.0, u * c + v * s - w * (x * s - y * c))
                if d > 0:
                    x, y, u, v = x - d * c, y - d * s, u - k * c, v - k * s
            yield a, x, y

    def corners(self, angle: float, centre: float = 200.0) -> tuple[float, ...]:
        found: list[float] = []
        for i in range(self.sides):
            t = angle + (2 * i + 1) * math.pi / self.sides
            found += [centre + self.size * math.cos(t), centre + self.size * math.sin(t)]
        return tuple(found)


@cache
def states_of(world: World) -> list[tuple[float, float, float]]:
    return list(world.states())


def film(world: World, edit: Callable[[int, Frame], Frame] = lambda k, frame: frame) -> Trace:
    frames: list[Frame] = []
    for k, (angle, x, y) in enumerate(states_of(world)):
        shapes = (
            Outline("s", "blue", True, world.corners(angle)),
            Circle("f", "red", 200 + x, 200 + y, world.radius),
        )
        frames.append(edit(k, Frame(k / 60, "black", shapes)))
    return Trace("ok", "", 400.0, 400.0, frames)


def edit_shapes(change: Callable[[int, Outline, Circle], tuple[Outline | Circle, ...]]):
    """An editor of both shapes of each frame."""

    def edit(k: int, frame: Frame) -> Frame:
        outline, ball = frame.shapes
        assert isinstance(outline, Outline) and isinstance(ball, Circle)
        return replace(frame, shapes=change(k, outline, ball))

    return edit


@pytest.mark.parametrize("sides", [3, 4, 5, 6])
@pytest.mark.parametrize("turning", [0.01, -0.01, 0.02])
@pytest.mark.parametrize("gravity", [0.0, 0.1])
def test_right_films_pass(sides: int, turning: float, gravity: float) -> None:
    asked = replace(
        ASKED,
        sides=sides,
        turning="fast" if turning == 0.02 else "slow",
        direction="clockwise" if turning > 0 else "counterclockwise",
        gravity=gravity > 0,
    )
    world = World(sides=sides, turning=turning, gravity=gravity)
    assert check_animation(film(world), asked) is None


def whole_pixels(k: int, outline: Outline, ball: Circle) -> tuple[Outline | Circle, ...]:
    rounded = tuple(float(int(value)) for value in outline.coordinates)
    centre = replace(ball, x=float(int(ball.x)), y=float(int(ball.y)))
    return replace(outline, coordinates=rounded), centre


def line_by_line(k: int, outline: Outline, ball: Circle) -> tuple[Outline | Circle, ...]:
    points = [outline.coordinates[i : i + 2] for i in range(0, len(outline.coordinates), 2)]
    sides = zip(points, points[1:] + points[:1], strict=True)
    return *(Outline("s", "blue", False, one + other) for one, other in sides), ball


def filled_and_stroked(k: int, outline: Outline, ball: Circle) -> tuple[Outline | Circle, ...]:
    rim = replace(ball, paint="s", colour="white")
    return replace(outline, paint="f", colour="gray"), outline, ball, rim


@pytest.mark.parametrize("manner", [whole_pixels, line_by_line, filled_and_stroked])
@pytest.mark.parametrize("gravity", [0.0, 0.1])
def test_other_manners_of_drawing_pass(
    manner: Callable[[int, Outline, Circle], tuple[Outline | Circle, ...]], gravity: float
) -> None:
    asked = replace(ASKED, gravity=gravity > 0)
    assert check_animation(film(World(gravity=gravity), edit_shapes(manner)), asked) is None


def test_thirty_frames_a_second_pass() -> None:
    whole = film(World())
    assert check_animation(replace(whole, frames=whole.frames[::2]), ASKED) is None


def outline_of(world: World, angle: float) -> Outline:
    return Outline("s", "blue", True, world.corners(angle))


STATES = states_of(World())
# What is wrong with the film -> (world, edit of its shapes or None, the reason).
Edit = Callable[[int, Outline, Circle], tuple[Outline | Circle, ...]] | None
WRONG: dict[str, tuple[World, Edit, str]] = {
    "a slow escape": (
        World(), lambda k, o, b: (o, replace(b, x=b.x + k / 20)), "ball leaves the polygon",
    ),
    "far outside once": (
        World(), lambda k, o, b: (o, replace(b, x=390.0) if k == 700 else b),
        "ball leaves the polygon",
    ),
    "jumps inside": (
        World(), lambda k, o, b: (o, replace(b, x=400 - b.x) if k % 50 == 0 else b), "ball jumps",
    ),
    "stands still": (World(velocity=(0.0, 0.0)), None, "ball does not move"),
    "stops half-way": (
        World(),
        lambda k, o, b: (
            o, b if k < 600 else replace(b, x=200 + STATES[600][1], y=200 + STATES[600][2]),
        ),
        "ball stops",
    ),
    "carried round with the polygon": (
        World(turning=0.0),
        lambda k, o, b: (
            outline_of(World(), k * 0.01),
            replace(
                b,
                x=200 + (b.x - 200) * math.cos(k * 0.01) - (b.y - 200) * math.sin(k * 0.01),
                y=200 + (b.x - 200) * math.sin(k * 0.01) + (b.y - 200) * math.cos(k * 0.01),
            ),
        ),
        "ball does not fly freely",
    ),
    "goes round without touching": (
        World(),
        lambda k, o, b: (
            o, replace(b, x=200 + 60 * math.cos(k / 20), y=200 + 60 * math.sin(k / 20)),
        ),
        "ball does not bounce",
    ),
    "no turning": (World(turning=0.0), None, "polygon does not turn"),
    "turning the other way": (World(turning=-0.01), None, "polygon turns the wrong way"),
    "turning too fast": (World(turning=0.02), None, "wrong turning speed"),
    "rocking": (
        World(), lambda k, o, b: (outline_of(World(), 0.4 * math.sin(k / 90) + k / 200), b),
        "polygon does not turn evenly",
    ),
    "gravity": (World(gravity=0.1), None, "gravity not asked for"),
    "gravity upwards": (World(gravity=-0.1), None, "gravity does not point down"),
    "a hexagon": (World(sides=6), None, "wrong shape"),
    "a skewed pentagon": (
        World(),
        lambda k, o, b: (replace(o, coordinates=(o.coordinates[0] + 30, *o.coordinates[1:])), b),
        "wrong shape",
    ),
    "a star": (
        World(),
        lambda k, o, b: (
            replace(o, coordinates=tuple(
                o.coordinates[2 * (2 * i % 5) + j] for i in range(5) for j in (0, 1)
            )), b,
        ),
        "wrong shape",
    ),
    "two polygons": (
        World(), lambda k, o, b: (o, outline_of(World(size=60), 0.0), b), "more than one polygon",
    ),
    "two balls": (
        World(), lambda k, o, b: (o, b, replace(b, x=200.0, y=200.0)), "more than one ball",
    ),
    "an open polygon": (
        World(), lambda k, o, b: (replace(o, closed=False), b), "stray lines",
    ),
    "no ball": (World(), lambda k, o, b: (o,) if k else (o, b), "no ball"),
    "no polygon": (World(), lambda k, o, b: (b,), "no polygon"),
    "the ball under the polygon": (
        World(), lambda k, o, b: (b, replace(o, paint="f")), "ball is covered",
    ),
    "a ball in blue": (
        World(), lambda k, o, b: (o, replace(b, colour="#0000ff")), "wrong ball colour",
    ),
    "a ball that turns blue": (
        World(), lambda k, o, b: (o, replace(b, colour="red" if k < 900 else "blue")),
        "wrong ball colour",
    ),
    "a red polygon": (
        World(), lambda k, o, b: (replace(o, colour="red"), b), "wrong polygon colour",
    ),
    "an invisible polygon": (
        World(), lambda k, o, b: (replace(o, colour="rgba(0,0,255,0)"), b), "wrong polygon colour",
    ),
    "a growing polygon": (
        World(), lambda k, o, b: (outline_of(World(size=180 + k / 100), k / 100), b),
        "polygon changes size",
    ),
    "a drifting polygon": (
        World(size=100),
        lambda k, o, b: (
            replace(o, coordinates=tuple(value + k / 100 for value in o.coordinates)), b,
        ),
        "polygon moves away",
    ),
    "a polygon beyond the screen": (World(size=260), None, "polygon leaves the screen"),
    "a tiny polygon": (World(size=30, radius=3), None, "polygon too small"),
    "a dot": (World(radius=1), None, "wrong ball size"),
    "a ball that fills it": (World(radius=90), None, "wrong ball size"),
    "ten seconds": (World(frames=600), None, "stops early"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_films_are_refused_for_their_fault(what: str) -> None:
    world, edit, reason = WRONG[what]
    shown = film(world) if edit is None else film(world, edit_shapes(edit))
    assert check_animation(shown, ASKED) == reason


def test_what_was_asked_decides() -> None:
    plain, falling = film(World()), film(World(gravity=0.1))
    assert check_animation(plain, replace(ASKED, gravity=True)) == "no gravity"
    assert check_animation(falling, replace(ASKED, gravity=None)) is None
    assert check_animation(plain, replace(ASKED, direction=None, turning=None)) is None
    assert check_animation(plain, replace(ASKED, ball_speed="fast")) == "wrong ball speed"
    assert check_animation(plain, replace(ASKED, background="white")) == "wrong background colour"
    slow, fast = film(World(velocity=(1.5, 1.0))), film(World(velocity=(5.0, 3.0)))
    assert check_animation(slow, replace(ASKED, ball_speed="slow")) is None
    assert check_animation(fast, replace(ASKED, ball_speed="fast")) is None
    assert check_animation(fast, replace(ASKED, ball_speed="slow")) == "wrong ball speed"


def test_frames_must_be_cleared_and_seen() -> None:
    smeared = film(World(), lambda k, frame: replace(frame, background=None))
    assert check_animation(smeared, ASKED) == "frame not cleared"
    on_red = film(World(), lambda k, frame: replace(frame, background="red"))
    assert check_animation(on_red, replace(ASKED, background=None)) == "ball cannot be seen"
    on_blue = film(World(), lambda k, frame: replace(frame, background="blue"))
    assert check_animation(on_blue, replace(ASKED, background=None)) == "polygon cannot be seen"
    cleared = film(World(), lambda k, frame: replace(frame, background=""))
    assert check_animation(cleared, replace(ASKED, background=None)) is None
    assert check_animation(replace(cleared, frames=[]), ASKED) == "draws nothing"
    sparse = replace(cleared, frames=cleared.frames[::8])
    assert check_animation(sparse, replace(ASKED, background=None)) == "too few frames"


GOOD = {
    "status": "ok",
    "message": "",
    "size": [400, 400],
    "frames": [[0, "black", [["c", "f", "red", 1, 2, 3], ["p", "s", "blue", 1, 0, 0, 5, 5]]]],
}


def test_a_trace_is_read_from_the_line_with_the_token() -> None:
    text = f"noise\nT{json.dumps({'frames': []})}\nT{json.dumps(GOOD)}\n"
    trace = read_trace(text, "T")
    assert trace is not None
    assert trace.frames[0].shapes[0] == Circle("f", "red", 1.0, 2.0, 3.0)
    assert trace.frames[0].shapes[1] == Outline("s", "blue", True, (0.0, 0.0, 5.0, 5.0))
    assert read_trace(text, "another") is None


@pytest.mark.parametrize(
    "shape",
    [
        ["c", "f", "red", 1, 2],
        ["c", "f", "red", 1, 2, None],
        ["c", "f", "red", True, 2, 3],
        ["c", "f", "red", 1e999, 2, 3],
        ["c", "f", 7, 1, 2, 3],
        ["c", "x", "red", 1, 2, 3],
        ["q", "f", "red", 1, 2, 3],
        ["p", "f", "red", 1, 2, 3, 4],
        ["p", "f", "red", 1, *[0] * 514],
        "c",
        {},
        [],
    ],
)
def test_malformed_shapes_are_no_trace(shape: object) -> None:
    bad = GOOD | {"frames": [[0, "black", [shape]]]}
    assert read_trace(f"\nT{json.dumps(bad)}", "T") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 10000, '{"frames": 3}', json.dumps(GOOD | {"size": [1]})]
)
def test_malformed_traces_are_no_trace(text: str) -> None:
    assert read_trace(f"\nT{text}", "T") is None


@pytest.mark.parametrize(
    ("got", "wanted", "same"),
    [
        ("green", "green", True),
        ("lime", "green", True),
        ("#0F0", "green", True),
        ("rgb(0, 200, 0)", "green", True),
        ("Grey", "gray", True),
        ("grey", "white", False),
        ("#ff8800", "orange", True),
        ("#f80", "#ff8800", True),
        ("#ff8811", "#ff8800", False),
        ("magenta", "purple", True),
        ("pink", "red", False),
        ("transparent", "black", False),
        ("rgba(255,0,0,0.1)", "red", False),
        ("url(x)", "red", False),
        ("", "black", False),
    ],
)
def test_colours_by_name_and_number(got: str, wanted: str, same: bool) -> None:
    assert is_colour(got, wanted) is same


def test_colours_that_are_too_close_cannot_be_told_apart() -> None:
    assert parse_colour("#123") == (17, 34, 51)
    assert not can_tell_apart("black", "#222222")
    assert can_tell_apart("black", "blue")
