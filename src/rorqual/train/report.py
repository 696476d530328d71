"""report.html: a run's curves, samples and figures in one file that needs no network."""

import html
import json
from itertools import groupby
from typing import Any

from rorqual.train.folder import RunFolder
from rorqual.train.page import COLOURS, INK, as_svg, draw_curve, new_chart, write_page

_LANGUAGES = {"en": "English", "zh": "Chinese", "code": "code"}


def _curve(
    title: str,
    unit: str,
    series: dict[str, tuple[list[float], list[float]]],
    *,
    log: bool = False,
    noisy: bool = True,
) -> str:
    """One line chart over millions of tokens, as inline SVG."""
    figure, (axes,) = new_chart(title, "million tokens")
    axes.set_ylabel(unit)
    for colour, (label, (x, y)) in zip(COLOURS, series.items(), strict=False):
        draw_curve(axes, x, y, colour, label, noisy=noisy)
    if log:
        axes.set_yscale("log")
    if len(series) > 1:
        axes.legend(fontsize=9, frameon=False, labelcolor=INK)
    return as_svg(figure, title)


def _points(
    records: list[dict[str, Any]], field: str, scale: float = 1.0
) -> tuple[list[float], list[float]]:
    kept = [r for r in records if r.get(field) is not None]
    return [r["tokens_seen"] / 1e6 for r in kept], [r[field] * scale for r in kept]


def _charts(steps: list[dict[str, Any]], validations: list[dict[str, Any]]) -> list[str]:
    """The curves that the logs hold data for."""
    languages = [name for name in _LANGUAGES if any(f"bpb_{name}" in v for v in validations)]
    losses = {"next token": _points(steps, "loss")}
    if any(record["mtp_loss"] for record in steps):
        losses["MTP"] = _points(steps, "mtp_loss")
    if any("validation_loss" in record for record in validations):
        losses["held-out"] = _points(validations, "validation_loss")
    charts = [_curve("Training loss", "nats per token", losses)]
    if languages:
        series = {_LANGUAGES[n]: _points(validations, f"bpb_{n}") for n in languages}
        charts.append(_curve("Held-out text", "bits per byte", series))
    charts.append(
        _curve("Speed", "tokens per second", {"speed": _points(steps, "tokens_per_second")})
    )
    rate = {"rate": _points(steps, "learning_rate")}
    charts.append(_curve("Learning rate", "", rate, noisy=False))
    charts.append(_curve("Gradient norm", "", {"norm": _points(steps, "grad_norm")}, log=True))
    if any(record["max_violation"] for record in steps):  # a dense model routes nothing
        overload = {"MaxVio": _points(steps, "max_violation")}
        charts.append(_curve("Expert overload (MaxVio)", "largest / mean - 1", overload))
    return charts


def _samples(records: list[dict[str, Any]]) -> str:
    """Prompts and their continuations, under the share of the budget they were written at."""
    parts: list[str] = []
    for progress, group in groupby(records, key=lambda record: record["progress"]):
        parts.append(f"<h3>After {100 * progress:.0f}&nbsp;% of the budget</h3>")
        parts += [
            f"<pre><span class=prompt>{html.escape(r['prompt'])}</span>"
            f"{html.escape(r['continuation'])}</pre>"
            for r in group
        ]
    return "".join(parts) or "<p>None yet.</p>"


def _summary(steps: list[dict[str, Any]], validations: list[dict[str, Any]]) -> str:
    last = steps[-1]
    rows = {
        "steps": f"{last['step']:,}",
        "tokens": f"{last['tokens_seen']:,}",
        "training time": f"{last['elapsed_seconds'] / 60:.1f} min",
        "last loss": "not finite" if last["loss"] is None else f"{last['loss']:.3f} nats per token",
        "skipped steps": str(sum(1 for r in steps if r["skipped"])),
    }
    if validations:
        if "validation_loss" in validations[-1]:
            rows["held-out loss"] = f"{validations[-1]['validation_loss']:.3f} nats per target"
        for name, label in _LANGUAGES.items():
            if f"bpb_{name}" in validations[-1]:
                rows[f"held-out {label}"] = f"{validations[-1][f'bpb_{name}']:.3f} bits per byte"
    cells = "".join(f"<tr><th>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table>{cells}</table>"


def write_report(folder: RunFolder, title: str) -> None:
    """(Re)write report.html from the logs; nothing to do before the first step."""
    records = folder.read_log()
    steps = [r for r in records if r["kind"] == "step"]
    validations = [r for r in records if r["kind"] == "validation"]
    if not steps:
        return
    config = json.loads((folder.path / "config.json").read_text(encoding="utf-8"))
    charts = "".join(f"<div>{chart}</div>" for chart in _charts(steps, validations))
    body = (
        f"<h1>{html.escape(title)}</h1>{_summary(steps, validations)}"
        f"<h2>Curves</h2><div class=grid>{charts}</div>"
        f"<h2>Samples</h2>{_samples(folder.read_log('samples.jsonl'))}"
        "<h2>Configuration</h2><details><summary>config.json</summary><pre>"
        f"{html.escape(json.dumps(config, indent=2, ensure_ascii=False))}</pre></details>"
    )
    write_page(folder.path / "report.html", title, body)
