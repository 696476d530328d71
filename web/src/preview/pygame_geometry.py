"""Colours, vectors and rectangles of the pygame subset: plain Python, without a canvas."""

import math
from typing import Any


class error(RuntimeError):
    """What pygame raises."""


def css(color: Any) -> str:
    """A name or #rrggbb as it is, numbers as rgba(...)."""
    if isinstance(color, str):
        return color
    channels = [float(channel) for channel in color]
    if len(channels) not in (3, 4) or not all(0 <= channel <= 255 for channel in channels):
        raise ValueError("invalid color argument")
    red, green, blue = (round(channel) for channel in channels[:3])
    alpha = channels[3] / 255 if len(channels) == 4 else 1
    return f"rgba({red},{green},{blue},{alpha:.4f})"


class Color(tuple):
    """Four channels; from numbers or #rrggbb. A name stays a name."""

    def __new__(cls, *value: Any) -> Any:
        if len(value) == 1 and isinstance(value[0], str):
            text = value[0].lstrip("#")
            if value[0][:1] != "#" or len(text) not in (6, 8):
                return value[0]
            value = tuple(int(text[at : at + 2], 16) for at in range(0, len(text), 2))
        elif len(value) == 1:
            value = tuple(value[0])
        return super().__new__(cls, value if len(value) == 4 else (*value, 255))

    r = property(lambda self: self[0])
    g = property(lambda self: self[1])
    b = property(lambda self: self[2])
    a = property(lambda self: self[3])


class Vector2:
    """A point or direction in the plane."""

    __slots__ = ("x", "y")

    def __init__(self, x: Any = 0, y: Any = None) -> None:
        self.x, self.y = (x, y) if y is not None else (x if hasattr(x, "__len__") else (x, x))
        self.x, self.y = float(self.x), float(self.y)

    def __iter__(self) -> Any:
        return iter((self.x, self.y))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> float:
        return (self.x, self.y)[index]

    def __setitem__(self, index: int, value: float) -> None:
        setattr(self, "xy"[index], float(value))

    def __eq__(self, other: object) -> bool:
        return hasattr(other, "__len__") and tuple(self) == tuple(other)  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Any) -> "Vector2":
        return Vector2(self.x + other[0], self.y + other[1])

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Vector2":
        return Vector2(self.x - other[0], self.y - other[1])

    def __rsub__(self, other: Any) -> "Vector2":
        return Vector2(other[0] - self.x, other[1] - self.y)

    def __mul__(self, other: Any) -> Any:
        return (
            self.dot(other)
            if hasattr(other, "__len__")
            else Vector2(self.x * other, self.y * other)
        )

    __rmul__ = __mul__

    def __truediv__(self, other: float) -> "Vector2":
        return Vector2(self.x / other, self.y / other)

    def __neg__(self) -> "Vector2":
        return Vector2(-self.x, -self.y)

    def __repr__(self) -> str:
        return f"Vector2({self.x:g}, {self.y:g})"

    def dot(self, other: Any) -> float:
        return self.x * other[0] + self.y * other[1]

    def cross(self, other: Any) -> float:
        return self.x * other[1] - self.y * other[0]

    def length(self) -> float:
        return math.hypot(self.x, self.y)

    magnitude = length

    def length_squared(self) -> float:
        return self.x * self.x + self.y * self.y

    def normalize(self) -> "Vector2":
        if not self.length():
            raise ValueError("Can't normalize Vector of length zero")
        return self / self.length()

    def scale_to_length(self, length: float) -> None:
        self.x, self.y = self.normalize() * length

    def rotate(self, degrees: float) -> "Vector2":
        return self.rotate_rad(math.radians(degrees))

    def rotate_rad(self, angle: float) -> "Vector2":
        c, s = math.cos(angle), math.sin(angle)
        return Vector2(c * self.x - s * self.y, s * self.x + c * self.y)

    def reflect(self, normal: Any) -> "Vector2":
        unit = Vector2(normal).normalize()
        return self - unit * (2 * self.dot(unit))

    def distance_to(self, other: Any) -> float:
        return math.hypot(self.x - other[0], self.y - other[1])

    def angle_to(self, other: Any) -> float:
        return math.degrees(math.atan2(other[1], other[0]) - math.atan2(self.y, self.x))

    def copy(self) -> "Vector2":
        return Vector2(self.x, self.y)


class Rect:
    """left, top, width, height, and the other names of its edges and corners."""

    _PLACES = {  # name: share of the width, share of the height
        "topleft": (0, 0),
        "topright": (1, 0),
        "bottomleft": (0, 1),
        "bottomright": (1, 1),
        "center": (0.5, 0.5),
        "midtop": (0.5, 0),
        "midbottom": (0.5, 1),
        "midleft": (0, 0.5),
        "midright": (1, 0.5),
    }
    _EDGES = {
        "x": ("x", 0),
        "left": ("x", 0),
        "centerx": ("x", 0.5),
        "right": ("x", 1),
        "y": ("y", 0),
        "top": ("y", 0),
        "centery": ("y", 0.5),
        "bottom": ("y", 1),
    }

    def __init__(self, *box: Any) -> None:
        flat = [part for item in box for part in (item if hasattr(item, "__len__") else (item,))]
        self._x, self._y, self.width, self.height = (int(part) for part in flat)

    def __getattr__(self, name: str) -> Any:
        if name in Rect._EDGES:
            axis, share = Rect._EDGES[name]
            return int(
                self._x + share * self.width if axis == "x" else self._y + share * self.height
            )
        if name in Rect._PLACES:
            across, down = Rect._PLACES[name]
            return int(self._x + across * self.width), int(self._y + down * self.height)
        aliases = {"w": "width", "h": "height"}
        if name in aliases:
            return getattr(self, aliases[name])
        if name == "size":
            return self.width, self.height
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Rect._EDGES:
            axis, share = Rect._EDGES[name]
            side = self.width if axis == "x" else self.height
            super().__setattr__("_" + axis, int(value - share * side))
        elif name in Rect._PLACES:
            across, down = Rect._PLACES[name]
            super().__setattr__("_x", int(value[0] - across * self.width))
            super().__setattr__("_y", int(value[1] - down * self.height))
        elif name == "size":
            self.width, self.height = (int(part) for part in value)
        else:
            super().__setattr__({"w": "width", "h": "height"}.get(name, name), value)

    def __iter__(self) -> Any:
        return iter((self._x, self._y, self.width, self.height))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return tuple(self)[index]

    def __repr__(self) -> str:
        return f"Rect({self._x}, {self._y}, {self.width}, {self.height})"

    def copy(self) -> "Rect":
        return Rect(*self)

    def move(self, x: int, y: int) -> "Rect":
        return Rect(self._x + x, self._y + y, self.width, self.height)

    def move_ip(self, x: int, y: int) -> None:
        self._x, self._y = int(self._x + x), int(self._y + y)

    def inflate(self, x: int, y: int) -> "Rect":
        return Rect(self._x - x / 2, self._y - y / 2, self.width + x, self.height + y)

    def collidepoint(self, *point: Any) -> bool:
        x, y = point if len(point) == 2 else point[0]
        return self.left <= x < self.right and self.top <= y < self.bottom

    def colliderect(self, *box: Any) -> bool:
        other = Rect(*box)
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def clamp_ip(self, box: Any) -> None:
        outer = Rect(*box)
        self.left = min(max(self.left, outer.left), outer.right - self.width)
        self.top = min(max(self.top, outer.top), outer.bottom - self.height)
