"""How good a model is: held-out problems, pass@k with intervals, logs that anyone can re-score.

Scoring needs no torch. Evaluating a model directory does, so that name is resolved on first use
(PEP 562): importing this package never imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rorqual.eval.folder import EvalFolder, Rescore, rescore
from rorqual.eval.items import Item, Judgement
from rorqual.eval.ngram import KneserNey
from rorqual.eval.passk import (
    Interval,
    majority,
    mean_interval,
    pass_at_k,
    student_quantile,
    wilson,
)
from rorqual.eval.problems import check_disjoint, held_out_problems, open_tasks
from rorqual.eval.report import evaluation_table, summary_rows
from rorqual.eval.run import Evaluation, evaluate
from rorqual.eval.summary import find_group, summarize

if TYPE_CHECKING:
    from rorqual.eval.checkpoint import Outcome, evaluate_checkpoint

__all__ = [
    "EvalFolder",
    "Evaluation",
    "Interval",
    "Item",
    "Judgement",
    "KneserNey",
    "Outcome",
    "Rescore",
    "check_disjoint",
    "evaluate",
    "evaluate_checkpoint",
    "evaluation_table",
    "find_group",
    "held_out_problems",
    "majority",
    "mean_interval",
    "open_tasks",
    "pass_at_k",
    "rescore",
    "student_quantile",
    "summarize",
    "summary_rows",
    "wilson",
]

_TORCH_HALF = ("Outcome", "evaluate_checkpoint")


def __getattr__(name: str) -> Any:
    """The torch half, imported when one of its names is first asked for."""
    if name not in _TORCH_HALF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.checkpoint"), name)
