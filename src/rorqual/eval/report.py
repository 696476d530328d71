"""An evaluation as a table: for a terminal, and as a section of report.html."""

import html
from collections.abc import Mapping
from typing import Any

_LANGUAGES = {"en": "English", "zh": "Chinese", None: "all"}


def summary_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows; a row that only repeats a more general one is left out."""
    groups = summary["groups"]
    if not groups:
        return ["task"], []
    highest = groups[0]["samples_per_problem"]
    several = highest > 1
    header = ["task", "level", "language", "problems", "pass@1", "95 % interval"]
    header += [f"pass@{highest}", f"maj@{highest}"] * several
    header += ["tokens", "thinks", "thinking tokens", "truncated", "no answer"]
    return header, [_row(group, highest) for group in _telling(groups)]


def evaluation_table(summary: Mapping[str, Any]) -> str:
    """The figures as an HTML section of its own; every text in it is escaped."""
    header, rows = summary_rows(summary)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    note = "" if summary["finished"] else "<p>Interrupted: some samples are missing.</p>"
    return (
        f"<section class=evaluation>{note}<table><tr>{head}</tr>{body}</table>"
        f"<p>{html.escape(_caption(summary))}</p></section>"
    )


def _caption(summary: Mapping[str, Any]) -> str:
    settings = summary["eval"]
    return (
        f"Held-out problems, {settings['samples_per_problem']} sample(s) each, temperature "
        f"{settings['temperature']:g}, at most {settings['max_new_tokens']} new tokens, seed "
        f"{settings['seed']}. Intervals are 95 %, with the problem as the unit."
    )


def _telling(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups whose items are not those of a more general group shown before."""
    kept: list[dict[str, Any]] = []
    for group in groups:
        repeats = any(
            _covers(general, group) and general["samples"] == group["samples"] for general in kept
        )
        if not repeats or group["level"] is group["language"] is None:
            kept.append(group)
    return kept


def _covers(general: Mapping[str, Any], group: Mapping[str, Any]) -> bool:
    return all(general[key] in (None, group[key]) for key in ("task", "level", "language"))


def _row(group: Mapping[str, Any], highest: int) -> list[str]:
    low, high = group["pass@1_interval"]
    row = [
        group["task"] or "all",
        str(group["level"] or "all"),
        _LANGUAGES[group["language"]],
        f"{group['problems']:,}",
        _percent(group["pass@1"]),
        f"{_percent(low)} to {_percent(high)}",
    ]
    if highest > 1:
        row += [_percent(group.get(f"pass@{highest}")), _percent(group["maj@k"])]
    return [
        *row,
        f"{group['mean_length']:.1f}",
        _percent(group["share_thinking"]),
        "-" if group["mean_thinking_length"] is None else f"{group['mean_thinking_length']:.1f}",
        _percent(group["share_truncated"]),
        _percent(group["share_without_answer"]),
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
