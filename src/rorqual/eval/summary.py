"""From items to figures: per task, level and language, and over all.

A summary is a pure function of the items (sums are exact, items come sorted), so whoever holds the
log computes the same numbers to the last bit.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rorqual.eval.items import Item, vote
from rorqual.eval.passk import majority, mean_interval, pass_at_k

Cell = tuple[str | None, int | None, str | None]


def summarize(items: Sequence[Item]) -> list[dict[str, Any]]:
    """One group of figures a row, most general first; a key that is None takes in all values."""
    groups: dict[Cell, list[Item]] = {}
    for item in items:
        task, level, language = item.problem.task, item.problem.level, item.problem.language
        cells: tuple[Cell, ...] = (
            (None, None, None),
            (None, None, language),
            (task, None, None),
            (task, None, language),
            (task, level, None),
            (task, level, language),
        )
        for cell in cells:
            groups.setdefault(cell, []).append(item)
    return [
        {"task": task, "level": level, "language": language, **figures(groups[cell])}
        for cell in sorted(groups, key=_general_first)
        for task, level, language in (cell,)
    ]


def find_group(
    groups: Sequence[dict[str, Any]],
    task: str | None = None,
    level: int | None = None,
    language: str | None = None,
) -> dict[str, Any]:
    """The figures of one cell; KeyError if nothing was asked there."""
    for group in groups:
        if (group["task"], group["level"], group["language"]) == (task, level, language):
            return group
    raise KeyError((task, level, language))


def figures(items: Sequence[Item]) -> dict[str, Any]:
    """The figures of these items, of which there must be one.

    Problems with fewer samples than others (an interrupted evaluation) count alike in pass@1; k
    goes up to the fewest samples of a problem. maj@k takes all samples; None where an answer is a
    program, which cannot be voted on.
    """
    problems: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        problems.setdefault((item.problem.problem_id, item.problem.language), []).append(item)
    forms = list(problems.values())
    fewest = min(len(form) for form in forms)
    found: dict[str, Any] = {
        "problems": len(forms),
        "samples": len(items),
        "correct": sum(item.judgement.correct for item in items),
        "samples_per_problem": fewest,
    }
    ks = sorted({fewest, *(2**power for power in range(fewest.bit_length()))})
    for k in ks:
        value, interval = _estimate(
            forms, lambda form, k=k: pass_at_k(len(form), _right(form), k), k
        )
        found[f"pass@{k}"], found[f"pass@{k}_interval"] = value, interval
    votable = all(item.problem.answer for item in items)
    found["maj@k"] = _mean([_consensus(form) for form in forms]) if votable else None
    thinking = [item for item in items if item.judgement.thinks]
    return found | {
        "mean_reward": _mean([item.judgement.reward for item in items]),
        "mean_length": _mean([item.num_tokens for item in items]),
        "mean_thinking_length": _mean([item.thinking_tokens for item in thinking])
        if thinking
        else None,
        "share_thinking": len(thinking) / len(items),
        "share_truncated": _share(items, lambda item: not item.ended),
        "share_without_answer": _share(items, lambda item: item.judgement.answer is None),
        "reasons": dict(sorted(Counter(item.judgement.reason for item in items).items())),
        "seconds": math.fsum(item.seconds for item in items),
    }


def _estimate(
    forms: Sequence[Sequence[Item]], value_of: Callable[[Sequence[Item]], float], k: int
) -> tuple[float, list[float]]:
    """Mean over problems, and its interval with a problem's languages as one cluster."""
    clusters: dict[str, list[float]] = {}
    for form in forms:
        clusters.setdefault(form[0].problem.problem_id, []).append(value_of(form))
    trials = sum(len(form) // k for form in forms)
    mean = _mean([value for cluster in clusters.values() for value in cluster])
    return mean, list(mean_interval(clusters, trials))


def _right(form: Sequence[Item]) -> int:
    return sum(item.judgement.correct for item in form)


def _consensus(form: Sequence[Item]) -> float:
    return majority([(vote(item), item.judgement.correct) for item in form])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _share(items: Sequence[Item], holds: Callable[[Item], bool]) -> float:
    return sum(holds(item) for item in items) / len(items)


def _general_first(cell: Cell) -> tuple[Any, ...]:
    task, level, language = cell
    return (task or "", level or 0, language or "")
