"""The animation task: programs that show a ball bouncing inside a turning polygon."""

from rorqual.tasks.animation.demonstrations import demonstrations
from rorqual.tasks.animation.request import ProgramLanguage, Request
from rorqual.tasks.animation.task import MAX_LINES, Animation, request_problem

__all__ = [
    "MAX_LINES",
    "Animation",
    "ProgramLanguage",
    "Request",
    "demonstrations",
    "request_problem",
]
