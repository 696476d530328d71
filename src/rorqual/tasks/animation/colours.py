"""Colours as people and programs name them, and when one is the colour that was asked for.

A request names a basic colour or gives #rrggbb; a program may spell it in many ways, and `green` is
not even the same colour in CSS and pygame. So a painted colour counts as the basic colour whose
sample is nearest to it; a #rrggbb has to be met within a little.
"""

import re

RGB = tuple[int, int, int]

CHINESE_NAMES = {
    "red": "红色",
    "green": "绿色",
    "blue": "蓝色",
    "yellow": "黄色",
    "orange": "橙色",
    "purple": "紫色",
    "pink": "粉色",
    "cyan": "青色",
    "white": "白色",
    "black": "黑色",
    "gray": "灰色",
}

# Samples of each basic colour, by the names that CSS and pygame know.
_SAMPLES: dict[str, dict[str, RGB]] = {
    "red": {
        "red": (255, 0, 0),
        "darkred": (139, 0, 0),
        "crimson": (220, 20, 60),
        "firebrick": (178, 34, 34),
        "tomato": (255, 99, 71),
    },
    "green": {
        "green": (0, 128, 0),
        "lime": (0, 255, 0),
        "limegreen": (50, 205, 50),
        "darkgreen": (0, 100, 0),
        "forestgreen": (34, 139, 34),
        "seagreen": (46, 139, 87),
        "lightgreen": (144, 238, 144),
    },
    "blue": {
        "blue": (0, 0, 255),
        "navy": (0, 0, 128),
        "darkblue": (0, 0, 139),
        "royalblue": (65, 105, 225),
        "dodgerblue": (30, 144, 255),
        "steelblue": (70, 130, 180),
        "skyblue": (135, 206, 235),
        "lightblue": (173, 216, 230),
    },
    "yellow": {
        "yellow": (255, 255, 0),
        "gold": (255, 215, 0),
        "khaki": (240, 230, 140),
        "lightyellow": (255, 255, 224),
    },
    "orange": {
        "orange": (255, 165, 0),
        "darkorange": (255, 140, 0),
        "orangered": (255, 69, 0),
    },
    "purple": {
        "purple": (128, 0, 128),
        "indigo": (75, 0, 130),
        "darkviolet": (148, 0, 211),
        "mediumpurple": (147, 112, 219),
        "violet": (238, 130, 238),
        "magenta": (255, 0, 255),
    },
    "pink": {
        "pink": (255, 192, 203),
        "hotpink": (255, 105, 180),
        "deeppink": (255, 20, 147),
    },
    "cyan": {
        "cyan": (0, 255, 255),
        "turquoise": (64, 224, 208),
        "teal": (0, 128, 128),
        "darkcyan": (0, 139, 139),
    },
    "white": {
        "white": (255, 255, 255),
        "whitesmoke": (245, 245, 245),
        "ivory": (255, 255, 240),
    },
    "black": {"black": (0, 0, 0), "nearblack": (24, 24, 24)},
    "gray": {
        "gray": (128, 128, 128),
        "darkgray": (169, 169, 169),
        "silver": (192, 192, 192),
        "lightgray": (211, 211, 211),
        "dimgray": (105, 105, 105),
    },
}
_SYNONYMS = {"aqua": "cyan", "fuchsia": "magenta"}
_RGB_BY_NAME = {name: rgb for group in _SAMPLES.values() for name, rgb in group.items()}
_HEX = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})")
_CALL = re.compile(r"rgba?\((\d{1,3}),(\d{1,3}),(\d{1,3})(?:,(?:1|1\.0|255))?\)")
_HEX_TOLERANCE = 12
_LEAST_DISTANCE = 70.0


def parse_colour(text: str) -> RGB | None:
    """A name, #rgb, #rrggbb or rgb(r, g, b), opaque; None for anything else."""
    text = text[:64].lower().replace(" ", "").replace("grey", "gray")
    text = _SYNONYMS.get(text, text)
    if _HEX.fullmatch(text):
        digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    call = _CALL.fullmatch(text)
    if call:
        red, green, blue = (min(255, int(part)) for part in call.groups()[:3])
        return red, green, blue
    return _RGB_BY_NAME.get(text)


def is_colour(got: str, wanted: str) -> bool:
    """Whether the painted colour is the basic colour or #rrggbb that was asked for."""
    rgb = parse_colour(got)
    if rgb is None:
        return False
    if wanted.startswith("#"):
        asked = parse_colour(wanted)
        assert asked is not None, wanted
        return all(abs(a - b) <= _HEX_TOLERANCE for a, b in zip(rgb, asked, strict=True))
    nearest = min(
        ((_squared_distance(rgb, sample), name) for name, group in _SAMPLES.items()
         for sample in group.values())
    )  # fmt: skip
    return nearest[1] == wanted


def can_tell_apart(one: str, other: str) -> bool:
    """Whether a shape of one colour can be seen on the other."""
    first, second = parse_colour(one), parse_colour(other)
    if first is None or second is None:
        return False
    return _squared_distance(first, second) >= _LEAST_DISTANCE**2


def _squared_distance(one: RGB, other: RGB) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
