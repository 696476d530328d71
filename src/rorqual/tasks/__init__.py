"""Verifiable tasks: one file a family, each makes problems, works them out and scores answers."""

from rorqual.tasks.base import (
    LANGUAGES,
    Language,
    Problem,
    Score,
    Solution,
    Task,
    check_level,
    draw_language,
    make_in_split,
    score_answer,
    wrong,
)
from rorqual.tasks.registry import list_tasks, load_task

__all__ = [
    "LANGUAGES",
    "Language",
    "Problem",
    "Score",
    "Solution",
    "Task",
    "check_level",
    "draw_language",
    "list_tasks",
    "load_task",
    "make_in_split",
    "score_answer",
    "wrong",
]
