"""Runs a pygame program without a screen, inside the sandbox: a clock of its own, and a module
`pygame` that writes down what is drawn.

This file is sent to the sandbox as source text and imports nothing of Rorqual. It reads
{token, code, seconds} from standard input and prints the token and one line of JSON.

The program may import pygame, math, random and sys (exit, argv). Of pygame it sees: init, quit,
QUIT, KEYDOWN, K_ESCAPE, Color; display.set_mode, set_caption, flip, update, get_surface;
time.Clock (tick, get_time, get_fps), time.get_ticks, wait, delay; event.get, event.pump;
draw.circle, draw.polygon, draw.line, draw.lines, draw.rect; Surface.fill, get_size, get_width,
get_height, get_rect (width, height, center, centerx, centery).
"""

import builtins
import io
import json
import math
import random
import signal
import sys
import types
from typing import Any

MAX_SHAPES, MAX_POINTS, MAX_FRAMES = 64, 256, 2600
_SEED = 12345
_CPU_SECONDS, _MOST_RINGS = 1.5, 3  # a worked program takes a twentieth of it


class Finished(BaseException):
    """The simulated time is over; not an Exception, so that programs seldom catch it."""


class OutOfTime(BaseException):
    """The program has used up its processor time."""


class Surface:
    """The screen."""

    def __init__(self, film: "Film", size: tuple[float, float]):
        self._film, self._size = film, size

    def fill(self, color: Any, rect: Any = None) -> None:
        if rect is None:
            self._film.wipe(colour_text(color))
        else:
            self._film.rectangle(color, rect, 0)

    def get_size(self) -> tuple[float, float]:
        return self._size

    def get_width(self) -> float:
        return self._size[0]

    def get_height(self) -> float:
        return self._size[1]

    def get_rect(self) -> types.SimpleNamespace:
        width, height = self._size
        x, y = width // 2, height // 2
        return types.SimpleNamespace(
            left=0, top=0, right=width, bottom=height, width=width, height=height,
            centerx=x, centery=y, center=(x, y),
        )  # fmt: skip


class Film:
    """Everything that was drawn: frames of [seconds, background, shapes]."""

    def __init__(self, seconds: float):
        self.seconds, self.now, self.tick_seconds = seconds, 0.0, 0.0
        self.frames: list[Any] = []
        self.screen: Surface | None = None
        self._shapes: list[Any] = []
        self._background: str | None = None
        self._drawn = False

    def set_mode(self, size: Any = (400, 400), *_: Any, **__: Any) -> Surface:
        width, height = size
        self.screen = Surface(self, (number(width), number(height)))
        return self.screen

    def wipe(self, colour: str) -> None:
        self._shapes, self._background, self._drawn = [], colour, True

    def record(self, shape: list[Any]) -> None:
        if len(self._shapes) >= MAX_SHAPES:
            raise RuntimeError("draws too much")
        self._shapes.append(shape)
        self._drawn = True

    def points(self, kind: str, color: Any, points: Any, closed: bool) -> None:
        flat: list[Any] = ["p", kind, colour_text(color), int(closed)]
        for x, y in points:
            if len(flat) > 2 * MAX_POINTS:
                raise RuntimeError("draws too much")
            flat += [number(x), number(y)]
        self.record(flat)

    def rectangle(self, color: Any, rect: Any, width: float) -> None:
        x, y, w, h = rect if len(rect) == 4 else (*rect[0], *rect[1])
        if not width and self._covers(x, y, x + w, y + h):
            self.wipe(colour_text(color))
            return
        corners = ((x, y), (x + w, y), (x + w, y + h), (x, y + h))
        self.points("s" if width else "f", color, corners, True)

    def _covers(self, left: float, top: float, right: float, bottom: float) -> bool:
        if self.screen is None:
            return False
        width, height = self.screen.get_size()
        return left <= 0 and top <= 0 and right >= width and bottom >= height

    def flip(self, *_: Any) -> None:
        if self.screen is None:
            raise RuntimeError("display.flip before display.set_mode")
        if self._drawn:
            if len(self.frames) >= MAX_FRAMES:
                raise RuntimeError("too many frames")
            self.frames.append([round(self.now, 6), self._background, self._shapes])
        self._shapes, self._background, self._drawn = [], None, False
        self.advance(0.001)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self.seconds + 0.002:
            raise Finished


class Clock:
    """Gives every tick the length that its frame rate asks for."""

    def __init__(self, film: Film):
        self._film, self._last = film, film.now

    def tick(self, framerate: float = 0) -> float:
        film = self._film
        due = self._last + (1 / framerate if framerate > 0 else 0)
        film.advance(max(0.0, due - film.now))
        film.tick_seconds = film.now - self._last
        self._last = film.now
        return self.get_time()

    def get_time(self) -> int:
        return round(1000 * self._film.tick_seconds)

    def get_fps(self) -> float:
        return 1 / self._film.tick_seconds if self._film.tick_seconds else 0.0


def number(value: Any) -> float:
    """A plain finite number, rounded as the recorder of JavaScript rounds."""
    plain = float(value)
    if not math.isfinite(plain):
        raise ValueError("a coordinate is not finite")
    return round(plain, 3)


def colour_text(color: Any) -> str:
    """A name as it is, numbers as rgb(...)."""
    if isinstance(color, str):
        return color[:64]
    channels = [int(channel) for channel in color]
    opaque = len(channels) == 3 or (len(channels) == 4 and channels[3] == 255)
    if not opaque or not all(0 <= channel <= 255 for channel in channels):
        raise ValueError("invalid color argument")
    return "rgb({},{},{})".format(*channels[:3])


def make_pygame(film: Film) -> dict[str, types.ModuleType]:
    """The modules pygame, pygame.display, ... over one film."""

    def circle(surface: Surface, color: Any, center: Any, radius: float, width: int = 0) -> None:
        x, y = center
        kind = "s" if width else "f"
        film.record(["c", kind, colour_text(color), number(x), number(y), number(radius)])

    def polygon(surface: Surface, color: Any, points: Any, width: int = 0) -> None:
        film.points("s" if width else "f", color, points, True)

    def lines(surface: Surface, color: Any, closed: Any, points: Any, width: int = 1) -> None:
        film.points("s", color, points, bool(closed))

    def line(surface: Surface, color: Any, start: Any, end: Any, width: int = 1) -> None:
        film.points("s", color, (start, end), False)

    def rect(surface: Surface, color: Any, rect: Any, width: int = 0) -> None:
        film.rectangle(color, rect, width)

    def color(*channels: Any) -> Any:
        return channels[0] if len(channels) == 1 else tuple(channels)

    def wait(milliseconds: float) -> None:
        film.advance(max(0.0, milliseconds / 1000))

    def nothing(*_: Any, **__: Any) -> None:
        return None

    parts: dict[str, dict[str, Any]] = {
        "pygame": {
            "init": nothing, "quit": nothing, "QUIT": 256, "KEYDOWN": 768, "K_ESCAPE": 27,
            "Surface": Surface, "Color": color,
        },
        "pygame.display": {
            "set_mode": film.set_mode, "set_caption": nothing, "flip": film.flip,
            "update": film.flip, "get_surface": lambda: film.screen,
        },
        "pygame.time": {
            "Clock": lambda: Clock(film), "get_ticks": lambda: round(1000 * film.now),
            "wait": wait, "delay": wait,
        },
        "pygame.event": {"get": lambda *_, **__: [], "pump": nothing},
        "pygame.draw": {
            "circle": circle, "polygon": polygon, "line": line, "aaline": line, "lines": lines,
            "rect": rect,
        },
    }  # fmt: skip
    modules = {name: types.ModuleType(name) for name in parts}
    for name, members in parts.items():
        vars(modules[name]).update(members)
        if "." in name:
            setattr(modules["pygame"], name.partition(".")[2], modules[name])
    return modules


def run_program(code: str, film: Film) -> tuple[str, str]:
    """(status, message); the program sees only the modules it may import."""
    plain_sys = types.ModuleType("sys")
    vars(plain_sys).update(exit=sys.exit, argv=["program.py"], maxsize=sys.maxsize)
    allowed = make_pygame(film) | {"math": math, "random": random, "sys": plain_sys}

    def import_allowed(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> types.ModuleType:
        if name not in allowed:
            raise ImportError(f"no module named {name!r} here")
        return allowed[name if fromlist else name.partition(".")[0]]

    open_to_program = {**vars(builtins), "__import__": import_allowed}
    random.seed(_SEED)

    rings = 0

    def stop(*_: Any) -> None:
        nonlocal rings
        rings += 1
        if rings == _MOST_RINGS:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the next one ends the process
        raise OutOfTime

    signal.signal(signal.SIGPROF, stop)
    try:
        compiled = compile(code, "program.py", "exec")
    except (SyntaxError, ValueError) as error:
        return "syntax", str(error)[:200]
    # Processor time, not the clock on the wall: a busy machine must not fail a good program. It
    # rings a few times, for a program that catches everything.
    signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS, 0.1)
    try:
        exec(compiled, {"__name__": "__main__", "__builtins__": open_to_program})
    except (Finished, SystemExit):
        return "ok", ""
    except OutOfTime:
        return "timeout", ""
    except Exception as error:  # whatever the program raises is its own fault
        return "error", f"{type(error).__name__}: {error}"[:200]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "ok", ""


def main() -> None:
    """One program from standard input to one line on standard output."""
    order = json.loads(sys.stdin.read())
    film = Film(float(order["seconds"]))
    output, sys.stdout = sys.stdout, io.StringIO()  # what the program prints is no trace
    try:
        status, message = run_program(order["code"], film)
    finally:
        sys.stdout = output
    size = film.screen.get_size() if film.screen else (0, 0)
    trace = {"status": status, "message": message, "size": size, "frames": film.frames}
    print("\n" + order["token"] + json.dumps(trace))


if __name__ == "__main__":
    main()
