"""Requests and plans in words, English and Chinese.

Levels 1 to 3 use set sentences; level 4 shuffles clauses in the manner of people asking.
"""

import random

from rorqual.tasks.animation.colours import CHINESE_NAMES
from rorqual.tasks.animation.programs import GRAVITY, Plan
from rorqual.tasks.animation.request import NUM_LEVELS, SHAPES, ProgramLanguage, Request
from rorqual.tasks.base import Language

PROGRAM_NAMES: dict[ProgramLanguage, str] = {"python": "Python", "javascript": "canvas JavaScript"}
_SET_OPENINGS = {
    "en": (
        "Write {program}: {ball} bounces inside {container}.",
        "In {program}, show {ball} bouncing inside {container}.",
        "Animate {ball} bouncing in {container}, in {program}.",
    ),
    "zh": (
        "用{program}写动画：{ball}在{container}里弹跳。",
        "写一个{program}程序，{ball}在{container}内弹跳。",
        "用{program}让{ball}在{container}中弹跳。",
    ),
}
_FREE_OPENINGS = {
    "en": (
        "Write a script of {ball} bouncing within {container}, make sure to handle collision "
        "detection properly.",
        "Can you make an animation of {ball} bouncing around inside {container}?",
        "I want to see {ball} bounce off the walls of {container}.",
        "Please draw {container} with {ball} bouncing inside.",
        "Make {ball} bounce in {container}.",
    ),
    "zh": (
        "编写一个脚本，让{ball}在{container}内弹跳，确保正确处理碰撞检测。",
        "请做一个动画：{ball}在{container}里弹来弹去。",
        "我想看{ball}撞到{container}的边就弹回来。",
        "帮我画一个{container}，里面有{ball}在弹跳。",
        "让{ball}在{container}中不停弹跳。",
    ),
}
_TURNS = {
    "en": (
        "The {shape} turns {how}.",
        "Make the {shape} rotate {how}.",
        "The {shape} spins {how}.",
    ),
    "zh": ("让{shape}{how}旋转。", "{shape}{how}旋转。", "{shape}要{how}转动。"),
}
_BACKGROUNDS = {
    "en": ("The background is {colour}.", "Use a {colour} background."),
    "zh": ("背景是{colour}。", "用{colour}背景。"),
}
_GRAVITY = {
    ("en", True): ("Gravity pulls the ball down.", "Add gravity.", "There is gravity."),
    ("en", False): ("No gravity.", "There is no gravity."),
    ("zh", True): ("小球受重力作用。", "加上重力。", "有重力。"),
    ("zh", False): ("没有重力。", "不要重力。"),
}
_PROGRAMS = {
    "en": ("Implement it in {program}.", "Use {program}.", "In {program}, please."),
    "zh": ("用{program}实现。", "请用{program}。", "用{program}写。"),
}
_STAYS = {
    "en": ("Make sure the ball stays within the {shape}.", "The ball must not get out.", ""),
    "zh": ("确保小球停留在{shape}内。", "小球不能跑出去。", ""),
}
_PACES = {
    "en": {"slow": "slowly", "fast": "fast", None: ""},
    "zh": {"slow": "缓慢", "fast": "快速", None: ""},
}
_DIRECTIONS = {
    "en": {"clockwise": "clockwise", "counterclockwise": "counterclockwise", None: ""},
    "zh": {"clockwise": "顺时针", "counterclockwise": "逆时针", None: ""},
}


def word_request(request: Request, rng: random.Random, level: int, language: Language) -> str:
    """The prompt."""
    parts = {
        "ball": _ball(request, language),
        "container": _container(request, language),
        "program": "" if request.program is None else PROGRAM_NAMES[request.program],
        "shape": _shape(request, language),
        "how": _how(request, language),
        "colour": _colour(request.background or "", language),
    }
    openings = _SET_OPENINGS if level < NUM_LEVELS else _FREE_OPENINGS
    opening = rng.choice(openings[language])
    clauses = [rng.choice(_TURNS[language])]
    if request.background is not None:
        clauses.append(rng.choice(_BACKGROUNDS[language]))
    if request.gravity is not None:
        clauses.append(rng.choice(_GRAVITY[language, request.gravity]))
    if level == NUM_LEVELS:
        if request.program is not None:
            clauses.append(rng.choice(_PROGRAMS[language]))
        rng.shuffle(clauses)
        clauses.append(rng.choice(_STAYS[language]))
    sentences = [text.format(**parts).strip().replace(" .", ".") for text in (opening, *clauses)]
    return (" " if language == "en" else "").join(text for text in sentences if text)


def think_aloud(plan: Plan, language: Language) -> str:
    """From the words to the numbers of the program."""
    en, zh = SHAPES[plan.sides]
    u, v = (f"{speed:g}" for speed in plan.velocity)
    if language == "en":
        spin = "counterclockwise" if plan.turning.startswith("-") else "clockwise"
        fall = f"gravity: v += {GRAVITY}" if plan.gravity else "no gravity"
        return (
            f"{en}: n = {plan.sides}. {spin}: w = {plan.turning}. speed: {u}, {v}. {fall}. "
            f"ball {plan.ball}, edge {plan.container}, background {plan.background}."
        )
    spin = "逆时针" if plan.turning.startswith("-") else "顺时针"
    fall = f"重力：v += {GRAVITY}" if plan.gravity else "无重力"
    return (
        f"{zh}：n = {plan.sides}。{spin}：w = {plan.turning}。速度：{u}, {v}。{fall}。"
        f"球{plan.ball}，边{plan.container}，背景{plan.background}。"
    )


def _ball(request: Request, language: Language) -> str:
    colour = _colour(request.ball, language)
    if language == "en":
        pace = f"{request.ball_speed} " if request.ball_speed else ""
        return _with_article(f"{pace}{colour} ball")
    pace = {"slow": "慢速的", "fast": "快速的", None: ""}[request.ball_speed]
    return f"{pace}{colour}小球"


def _container(request: Request, language: Language) -> str:
    shape = _shape(request, language)
    colour = "" if request.container is None else _colour(request.container, language)
    return _with_article(f"{colour} {shape}".strip()) if language == "en" else f"{colour}{shape}"


def _shape(request: Request, language: Language) -> str:
    return SHAPES[request.sides][language == "zh"]


def _how(request: Request, language: Language) -> str:
    words = (_PACES[language][request.turning], _DIRECTIONS[language][request.direction])
    if language == "en":
        return " ".join(word for word in words if word)
    return words[1] + words[0]


def _colour(name: str, language: Language) -> str:
    if language == "en":
        return name
    return f"{name}色的" if name.startswith("#") else CHINESE_NAMES.get(name, "")


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
