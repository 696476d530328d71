"""The two requests of January 2025, in their own words, and the same scenes for the canvas.

People sent these prompts to every new reasoning model and shared what came out. Both ask for
Python; each is given once more with canvas JavaScript asked for instead, so that the scenes are
there in both programming languages.
"""

from rorqual.tasks.animation.request import Request
from rorqual.tasks.animation.task import request_problem
from rorqual.tasks.animation.wording import PROGRAM_NAMES
from rorqual.tasks.base import Language, Problem

_LEVEL = 4
_PROMPTS: dict[Language, str] = {
    "zh": (
        "编写一个{script}脚本，让黄色小球在正方形内弹跳，确保正确处理碰撞检测。"
        "让正方形缓慢旋转。用{script}实现。确保小球停留在正方形内"
    ),
    "en": (
        "Write a script of a red ball bouncing within a triangle, make sure to handle collision "
        "detection properly. Make the triangle slowly rotate. Implement it in {script}. "
        "Make sure the ball stays within the triangle."
    ),
}


def demonstrations() -> list[Problem]:
    """The Chinese and the English request: in Python, then the same two in canvas JavaScript."""
    scenes: tuple[tuple[Language, int, str], ...] = (("zh", 4, "yellow"), ("en", 3, "red"))
    return [
        request_problem(
            Request(sides=sides, ball=ball, turning="slow", program=program),
            _PROMPTS[language].format(script=name),
            _LEVEL,
            language,
        )
        for program, name in PROGRAM_NAMES.items()
        for language, sides, ball in scenes
    ]
