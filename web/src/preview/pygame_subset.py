"""A small part of pygame on a canvas, for programs that run in the browser.

There are display, draw, time, event, key, mouse, font, math, Surface, Rect, Vector2 and Color, as
far as a small animation or game needs them; no sound, no images from files, no sprites. A loop may
block: `Clock.tick`, `time.wait` and a second `flip` without them let the browser draw.
"""

import json
import math as _math
import sys
import types
from typing import Any

import _stage  # the worker's side: canvas, clock, inputs
from pygame_geometry import Color, Rect, Vector2, css
from pygame_geometry import error as error
from pyodide.ffi import run_sync

QUIT, KEYDOWN, KEYUP, MOUSEMOTION, MOUSEBUTTONDOWN, MOUSEBUTTONUP = 256, 768, 769, 1024, 1025, 1026
SRCALPHA, RESIZABLE, FULLSCREEN, DOUBLEBUF, HWSURFACE, SCALED = 65536, 16, -1, 1, 0, 512
BLEND_ADD = 1
_NAMED_KEYS = {
    "ArrowRight": 1073741903,
    "ArrowLeft": 1073741904,
    "ArrowDown": 1073741905,
    "ArrowUp": 1073741906,
    "Enter": 13,
    "Escape": 27,
    "Backspace": 8,
    "Tab": 9,
    "Delete": 127,
    "Shift": 1073742049,
    "Control": 1073742048,
    "Alt": 1073742050,
}
K_RIGHT, K_LEFT, K_DOWN, K_UP = 1073741903, 1073741904, 1073741905, 1073741906
K_RETURN, K_ESCAPE, K_BACKSPACE, K_TAB, K_DELETE, K_SPACE = 13, 27, 8, 9, 127, 32
K_LSHIFT = K_RSHIFT = 1073742049
K_LCTRL = K_RCTRL = 1073742048
for _letter in "abcdefghijklmnopqrstuvwxyz0123456789":
    globals()[f"K_{_letter}"] = ord(_letter)


class Surface:
    """Something to draw on: the screen, or a canvas that is not shown."""

    def __init__(self, size: Any, flags: int = 0, _canvas: Any = None) -> None:
        width, height = (int(part) for part in size)
        self._canvas = _canvas or _stage.new_canvas(width, height)
        self._canvas.width, self._canvas.height = width, height
        self._ctx = _stage.context(self._canvas)
        self._alpha = 1.0
        if not flags & SRCALPHA:
            self.fill("black")

    def fill(self, color: Any, rect: Any = None, special_flags: int = 0) -> None:
        box = Rect(rect) if rect is not None else Rect(0, 0, *self.get_size())
        style = css(color)
        if style.endswith(",0.0000)"):
            self._ctx.clearRect(*box)
            return
        self._ctx.fillStyle = style
        self._ctx.fillRect(*box)

    def blit(
        self, source: "Surface", place: Any = (0, 0), area: Any = None, special_flags: int = 0
    ) -> Rect:
        x, y = (place.x, place.y) if isinstance(place, Rect) else (place[0], place[1])
        self._ctx.globalAlpha = source._alpha
        self._ctx.drawImage(source._canvas, x, y)
        self._ctx.globalAlpha = 1
        return Rect(x, y, *source.get_size())

    def get_size(self) -> tuple[int, int]:
        return self._canvas.width, self._canvas.height

    def get_width(self) -> int:
        return self._canvas.width

    def get_height(self) -> int:
        return self._canvas.height

    def get_rect(self, **places: Any) -> Rect:
        rect = Rect(0, 0, *self.get_size())
        for name, value in places.items():
            setattr(rect, name, value)
        return rect

    def set_alpha(self, alpha: int | None) -> None:
        self._alpha = 1.0 if alpha is None else alpha / 255

    def set_at(self, place: Any, color: Any) -> None:
        self.fill(color, (place[0], place[1], 1, 1))

    def get_at(self, place: Any) -> Color:
        return Color(*self._ctx.getImageData(int(place[0]), int(place[1]), 1, 1).data.to_py())

    def convert(self, *_: Any) -> "Surface":
        return self

    convert_alpha = convert

    def copy(self) -> "Surface":
        twin = Surface(self.get_size(), SRCALPHA)
        twin.blit(self)
        return twin


class _Screen:
    """The one screen, and whether a frame was shown since the program last waited."""

    surface: Surface | None = None
    was_flipped = False


def _wait(milliseconds: float) -> None:
    run_sync(_stage.wait(max(0.0, float(milliseconds))))
    _Screen.was_flipped = False


def _set_mode(size: Any = (400, 400), *_: Any, **__: Any) -> Surface:
    width, height = (int(part) or 400 for part in size)
    _Screen.surface = Surface((width, height), 0, _stage.screen)
    return _Screen.surface


def _flip(*_: Any) -> None:
    if _Screen.was_flipped:
        _wait(0)
    _Screen.was_flipped = True


class Clock:
    """Keeps the pace of a loop."""

    def __init__(self) -> None:
        self._last, self._length = _stage.now(), 0.0

    def tick(self, framerate: float = 0) -> int:
        due = self._last + (1000 / framerate if framerate > 0 else 0)
        _wait(due - _stage.now())
        now = _stage.now()
        self._last, self._length = now, now - self._last
        return round(self._length)

    tick_busy_loop = tick

    def get_time(self) -> int:
        return round(self._length)

    def get_fps(self) -> float:
        return 1000 / self._length if self._length else 0.0


class _Inputs:
    """Keys that are down, the mouse, and events that wait."""

    keys: set[int] = set()
    place = (0, 0)
    buttons = (False, False, False)
    waiting: list[Any] = []


def Event(type: int, fields: Any = None, **more: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(type=type, **(fields or {}), **more)


def _key_code(key: str) -> int:
    return _NAMED_KEYS.get(key, ord(key.lower()) if len(key) == 1 else 0)


def _read_inputs() -> None:
    for item in json.loads(_stage.take_inputs()):
        kind = item["kind"]
        if kind in ("keydown", "keyup"):
            code, text = _key_code(item["key"]), item["key"] if len(item["key"]) == 1 else ""
            (_Inputs.keys.add if kind == "keydown" else _Inputs.keys.discard)(code)
            _Inputs.waiting.append(
                Event(KEYDOWN if kind == "keydown" else KEYUP, key=code, unicode=text, mod=0)
            )
            continue
        if kind == "click":
            continue
        before, _Inputs.place = _Inputs.place, (int(item["x"]), int(item["y"]))
        pressed = item["buttons"]
        _Inputs.buttons = (bool(pressed & 1), bool(pressed & 4), bool(pressed & 2))
        if kind == "mousemove":
            moved = (_Inputs.place[0] - before[0], _Inputs.place[1] - before[1])
            event_ = Event(MOUSEMOTION, pos=_Inputs.place, rel=moved, buttons=_Inputs.buttons)
        else:
            type_ = MOUSEBUTTONDOWN if kind == "mousedown" else MOUSEBUTTONUP
            event_ = Event(type_, pos=_Inputs.place, button=item["button"] + 1)
        _Inputs.waiting.append(event_)


def _get_events(*_: Any, **__: Any) -> list[Any]:
    _read_inputs()
    events, _Inputs.waiting = _Inputs.waiting, []
    return events


class _Pressed:
    def __getitem__(self, code: int) -> bool:
        return code in _Inputs.keys


def _get_pressed() -> _Pressed:
    _read_inputs()
    return _Pressed()


def _mouse_place() -> tuple[int, int]:
    _read_inputs()
    return _Inputs.place


def _paint(surface: Surface, color: Any, width: float) -> None:
    ctx = surface._ctx
    if width:
        ctx.lineWidth, ctx.strokeStyle = width, css(color)
        ctx.stroke()
    else:
        ctx.fillStyle = css(color)
        ctx.fill()


def _circle(
    surface: Surface, color: Any, center: Any, radius: float, width: int = 0, **_: Any
) -> None:
    radius = max(0.0, float(radius) - width / 2)
    surface._ctx.beginPath()
    surface._ctx.arc(float(center[0]), float(center[1]), radius, 0, 2 * _math.pi)
    _paint(surface, color, width)


def _points(surface: Surface, points: Any, closed: bool) -> None:
    flat = " ".join(f"{float(x):.3f} {float(y):.3f}" for x, y in points)
    _stage.polygon(surface._ctx, flat, closed)


def _polygon(surface: Surface, color: Any, points: Any, width: int = 0) -> None:
    _points(surface, points, True)
    _paint(surface, color, width)


def _lines(surface: Surface, color: Any, closed: Any, points: Any, width: int = 1) -> None:
    _points(surface, points, bool(closed))
    _paint(surface, color, max(1, width))


def _line(surface: Surface, color: Any, start: Any, end: Any, width: int = 1) -> None:
    _lines(surface, color, False, (start, end), width)


def _rect(
    surface: Surface, color: Any, box: Any, width: int = 0, border_radius: int = 0, **_: Any
) -> Rect:
    rect = Rect(box)
    surface._ctx.beginPath()
    surface._ctx.roundRect(*rect, max(0, border_radius))
    _paint(surface, color, width)
    return rect


def _ellipse(surface: Surface, color: Any, box: Any, width: int = 0) -> None:
    rect = Rect(box)
    surface._ctx.beginPath()
    surface._ctx.ellipse(*rect.center, rect.width / 2, rect.height / 2, 0, 0, 2 * _math.pi)
    _paint(surface, color, width)


def _arc(surface: Surface, color: Any, box: Any, start: float, stop: float, width: int = 1) -> None:
    rect = Rect(box)
    surface._ctx.beginPath()
    surface._ctx.ellipse(*rect.center, rect.width / 2, rect.height / 2, 0, -start, -stop, True)
    _paint(surface, color, max(1, width))


class Font:
    """Text in the browser's sans-serif."""

    def __init__(
        self, name: Any = None, size: int = 24, bold: bool = False, italic: bool = False
    ) -> None:
        self._font = (
            f"{'italic ' if italic else ''}{'bold ' if bold else ''}{int(size * 0.8)}px sans-serif"
        )
        self._height = int(size)

    def size(self, text: str) -> tuple[int, int]:
        ctx = _stage.context(_stage.new_canvas(1, 1))
        ctx.font = self._font
        return _math.ceil(ctx.measureText(text).width), self._height

    def get_height(self) -> int:
        return self._height

    def render(self, text: str, antialias: Any, color: Any, background: Any = None) -> Surface:
        surface = Surface(self.size(str(text)), SRCALPHA)
        if background is not None:
            surface.fill(background)
        ctx = surface._ctx
        ctx.font, ctx.textBaseline, ctx.fillStyle = self._font, "middle", css(color)
        ctx.fillText(str(text), 0, self._height / 2)
        return surface


def _nothing(*_: Any, **__: Any) -> None:
    return None


def init() -> tuple[int, int]:
    return 5, 0


quit = _nothing
_PARTS: dict[str, dict[str, Any]] = {
    "display": {
        "set_mode": _set_mode,
        "flip": _flip,
        "update": _flip,
        "set_caption": _nothing,
        "get_surface": lambda: _Screen.surface,
        "init": _nothing,
        "set_icon": _nothing,
    },
    "draw": {
        "circle": _circle,
        "polygon": _polygon,
        "line": _line,
        "aaline": _line,
        "lines": _lines,
        "aalines": _lines,
        "rect": _rect,
        "ellipse": _ellipse,
        "arc": _arc,
    },
    "time": {
        "Clock": Clock,
        "get_ticks": lambda: round(_stage.now()),
        "wait": _wait,
        "delay": _wait,
        "set_timer": _nothing,
    },
    "event": {"get": _get_events, "pump": _read_inputs, "Event": Event, "clear": _get_events},
    "key": {"get_pressed": _get_pressed, "set_repeat": _nothing},
    "mouse": {
        "get_pos": _mouse_place,
        "get_pressed": lambda *_: _Inputs.buttons,
        "set_visible": _nothing,
    },
    "font": {
        "Font": Font,
        "SysFont": Font,
        "init": _nothing,
        "get_default_font": lambda: "sans-serif",
    },
    "math": {"Vector2": Vector2},
    "locals": {
        name: value for name, value in globals().items() if name.isupper() or name[:2] == "K_"
    }
    | {"Rect": Rect, "Color": Color},
}
__path__: list[str] = []  # so that `import pygame.draw` and `from pygame.locals import *` work
for _name, _members in _PARTS.items():
    _module = types.ModuleType(f"pygame.{_name}")
    vars(_module).update(_members)
    sys.modules[f"pygame.{_name}"] = globals()[_name] = _module
