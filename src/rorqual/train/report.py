"""report.html: a run's curves, samples and figures in one file that needs no network."""

import html
import io
import json
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from rorqual.train.folder import RunFolder

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:#17202a;background:#fff}h1,h2{line-height:1.2}table{border-collapse:collapse}
td,th{padding:.25rem .8rem;border-bottom:1px solid #d5dbe1;text-align:left;vertical-align:top}
pre{white-space:pre-wrap;background:#f4f6f8;padding:.8rem;border-radius:.4rem;overflow-wrap:anywhere}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(26rem,1fr));gap:1rem}
svg{max-width:100%;height:auto}.prompt{color:#0b63b0}
@media(max-width:30rem){.grid{grid-template-columns:1fr}}
@media(prefers-color-scheme:dark){body{color:#e6e9ec;background:#15191d}pre{background:#20262c}
td,th{border-color:#39424b}.prompt{color:#7fbdf2}.grid svg{background:#fff;border-radius:.4rem}}
"""
_LANGUAGES = {"en": "English", "zh": "Chinese", "code": "code"}


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _curve(
    title: str, unit: str, series: dict[str, tuple[list[float], list[float]]], *, log: bool = False
) -> str:
    """One line chart over millions of tokens, as inline SVG."""
    figure = Figure(figsize=(5.4, 3.1), layout="constrained")
    axes = figure.add_subplot()
    for label, (x, y) in series.items():
        axes.plot(x, y, label=label, linewidth=1.2, marker="." if len(x) < 40 else None)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("million tokens", fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    if log:
        axes.set_yscale("log")
    if len(series) > 1:
        axes.legend(fontsize=8)
    return _svg(figure)


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
    charts = [_curve("Training loss", "nats per token", losses)]
    if languages:
        series = {_LANGUAGES[n]: _points(validations, f"bpb_{n}") for n in languages}
        charts.append(_curve("Held-out text", "bits per byte", series))
    charts.append(
        _curve("Speed", "tokens per second", {"speed": _points(steps, "tokens_per_second")})
    )
    charts.append(_curve("Learning rate", "", {"rate": _points(steps, "learning_rate")}))
    charts.append(_curve("Gradient norm", "", {"norm": _points(steps, "grad_norm")}, log=True))
    charts.append(
        _curve(
            "Expert overload (MaxVio)", "largest / mean - 1", {"": _points(steps, "max_violation")}
        )
    )
    return charts


def _samples(records: list[dict[str, Any]]) -> str:
    rows = [
        f"<tr><td>{100 * r['progress']:.0f}&nbsp;%</td><td><pre><span class=prompt>"
        f"{html.escape(r['prompt'])}</span>{html.escape(r['continuation'])}</pre></td></tr>"
        for r in records
    ]
    if not rows:
        return "<p>None yet.</p>"
    return f"<table><tr><th>budget</th><th>prompt and continuation</th></tr>{''.join(rows)}</table>"


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
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>{_summary(steps, validations)}"
        f"<h2>Curves</h2><div class=grid>{charts}</div>"
        f"<h2>Samples</h2>{_samples(folder.read_log('samples.jsonl'))}"
        "<h2>Configuration</h2><details><summary>config.json</summary><pre>"
        f"{html.escape(json.dumps(config, indent=2, ensure_ascii=False))}</pre></details></html>"
    )
    temporary = folder.path / "report.html.tmp"
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(folder.path / "report.html")
