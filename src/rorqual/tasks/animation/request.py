"""What an animation is to show: the request behind the words, and how one is drawn for a level."""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from rorqual.tasks.animation.colours import CHINESE_NAMES, can_tell_apart

ProgramLanguage = Literal["javascript", "python"]
Pace = Literal["slow", "fast"]
Direction = Literal["clockwise", "counterclockwise"]

PROGRAM_LANGUAGES: tuple[ProgramLanguage, ...] = get_args(ProgramLanguage)
SHAPES = {
    3: ("triangle", "三角形"),
    4: ("square", "正方形"),
    5: ("pentagon", "五边形"),
    6: ("hexagon", "六边形"),
}
DEFAULT_BACKGROUND = "black"
NUM_LEVELS = 4
_PAINTS = tuple(name for name in CHINESE_NAMES if name != "black")
_BACKGROUNDS = ("black", "white", "gray")
_TOO_PALE = {"white": ("yellow", "cyan", "pink")}  # hard to see on it, though not the same
_PACES: tuple[Pace, ...] = get_args(Pace)
_DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


@dataclass(frozen=True, slots=True)
class Request:
    """None: left open, so the program may choose. Colours are basic names or #rrggbb."""

    sides: int
    ball: str
    container: str | None = None
    background: str | None = None
    turning: Pace | None = "slow"
    direction: Direction | None = None
    ball_speed: Pace | None = None
    gravity: bool | None = None
    program: ProgramLanguage | None = "javascript"

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Request":
        """The request kept in a problem's data."""
        return cls(**data["request"])

    def to_data(self) -> dict[str, Any]:
        """What a problem's data keeps of it."""
        return {"request": asdict(self)}

    @property
    def key(self) -> str:
        """Says what is asked, in no human language."""
        return " ".join("-" if value is None else str(value) for value in asdict(self).values())

    @property
    def shown_background(self) -> str:
        """The background that is painted: the one asked for or the usual one."""
        return self.background or DEFAULT_BACKGROUND


def draw_request(rng: random.Random, level: int) -> Request:
    """Level 1: square or triangle in JavaScript; 2: every shape, direction and pace; 3: gravity
    and Python too; 4: any part may be left open, colours may be #rrggbb."""
    if level == 1:
        ball, container = _draw_paints(rng, DEFAULT_BACKGROUND)
        return Request(rng.choice((3, 4)), ball, container)
    background = rng.choice(_BACKGROUNDS) if rng.random() < 0.4 else None
    ball, container = _draw_paints(rng, background or DEFAULT_BACKGROUND)
    gravity = None if level == 2 else rng.choice((True, False))
    asks_speed = level < 4 or rng.random() < 0.5
    request = Request(
        sides=rng.choice(tuple(SHAPES)),
        ball=ball,
        container=container,
        background=background,
        turning=rng.choice(_PACES),
        direction=rng.choice(_DIRECTIONS),
        ball_speed=rng.choice(_PACES) if asks_speed and not gravity else None,
        gravity=gravity,
        program="javascript" if level == 2 else rng.choice(PROGRAM_LANGUAGES),
    )
    return request if level < NUM_LEVELS else _leave_open(request, rng)


def _leave_open(request: Request, rng: random.Random) -> Request:
    """Some parts of a full request taken back, some colours given by number."""

    def chance(share: float) -> bool:
        return rng.random() < share

    ball = _draw_number(rng, request.shown_background) if chance(0.2) else request.ball
    return Request(
        sides=request.sides,
        ball=ball,
        container=request.container if chance(0.6) else None,
        background=request.background,
        turning=request.turning if chance(0.8) else None,
        direction=request.direction if chance(0.5) else None,
        ball_speed=request.ball_speed,
        gravity=request.gravity if chance(0.6) else None,
        program=request.program if chance(0.8) else None,
    )


def _draw_paints(rng: random.Random, background: str) -> tuple[str, str]:
    """Two colours that differ from each other and from the background."""
    pale = _TOO_PALE.get(background, ())
    visible = [n for n in _PAINTS if n not in pale and can_tell_apart(n, background)]
    ball, container = rng.sample(visible, 2)
    return ball, container


def _draw_number(rng: random.Random, background: str) -> str:
    """A #rrggbb that shows on the background."""
    while True:
        number = "#" + "".join(f"{rng.randrange(0, 256, 17):02x}" for _ in range(3))
        if can_tell_apart(number, background):
            return number
