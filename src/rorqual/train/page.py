"""What every report is made of: one HTML file that needs no network, with charts as inline SVG.

Charts take the page's own text colour, so one drawing serves light and dark.
"""

import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

STYLE = """
:root{color-scheme:light dark;
--ink:#17202a;--page:#fff;--soft:#f4f6f8;--line:#d5dbe1;--link:#0b63b0}
@media(prefers-color-scheme:dark){
:root{--ink:#e6e9ec;--page:#15191d;--soft:#20262c;--line:#39424b;--link:#7fbdf2}}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:var(--ink);background:var(--page)}
h1,h2,h3{line-height:1.2}h3{font-size:1rem;margin:1.5rem 0 .5rem}
table{border-collapse:collapse}th,td{padding:.25rem .8rem .25rem 0;text-align:left;
border-bottom:1px solid var(--line);vertical-align:top}th{font-weight:600}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--soft);margin:.5rem 0;
padding:.8rem;border-radius:.4rem;font-size:.875rem}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1.5rem}
svg{width:100%;height:auto}.prompt{color:var(--link)}summary{cursor:pointer}
"""
INK = "#010203"  # in the charts: becomes the page's own text colour, light or dark
COLOURS = ("#2f7fd0", "#d97706", "#2e9e4f")
MANY_POINTS = 80  # from here on a curve is a mean, with the points themselves pale behind it


def new_chart(title: str, x_label: str, *, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty chart of one or several panels above each other that share their x axis."""
    figure = Figure(figsize=(4.6, 3.0 if rows == 1 else 1.5 * rows), layout="constrained")
    figure.patch.set_visible(False)
    grid = figure.subplots(rows, 1, sharex=True, squeeze=False)
    axes = [grid[row, 0] for row in range(rows)]
    axes[0].set_title(title, fontsize=11, color=INK)
    axes[-1].set_xlabel(x_label, fontsize=9, color=INK)
    for one in axes:
        style_axes(one)
        one.grid(color=INK, alpha=0.15)
        one.set_axisbelow(True)
    return figure, axes


def style_axes(axes: Axes, *, right: bool = False) -> None:
    """The page's colours and two spines; right: the second y axis of a chart."""
    axes.set_facecolor("none")  # NOTE: hiding the patch is not enough, twinx() shows it again
    axes.tick_params(which="both", labelsize=9, color=INK, labelcolor=INK)
    axes.yaxis.label.set_fontsize(9)
    axes.yaxis.label.set_color(INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in (("right",) if right else ("left", "bottom")))
        spine.set_edgecolor(INK)


def as_svg(figure: Figure, title: str) -> str:
    """Inline SVG with its text as text."""
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "font.sans-serif": ["system-ui", "DejaVu Sans"]}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue().replace(INK, "currentColor")
    label = f'<svg role="img" aria-label="{html.escape(title)}"'
    return label + text[text.index("<svg") + len("<svg") :]


def smoothed(values: Sequence[float]) -> list[float]:
    """Means over a fortieth of the curve around each point, fewer at its ends."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    centre, half = np.arange(len(values)), len(values) // MANY_POINTS
    first, last = np.maximum(centre - half, 0), np.minimum(centre + half + 1, len(values))
    return ((sums[last] - sums[first]) / (last - first)).tolist()


def draw_curve(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    colour: str,
    label: str,
    *,
    noisy: bool = True,
) -> None:
    """One line; a noisy one of many points is drawn as its running mean."""
    smooth = noisy and len(x) >= MANY_POINTS
    if smooth:
        axes.plot(x, y, color=colour, linewidth=0.6, alpha=0.3)
    marker = "." if len(x) < 40 else None
    curve = smoothed(y) if smooth else y
    axes.plot(x, curve, color=colour, label=label, linewidth=1.5, marker=marker)


def write_page(path: Path, title: str, body: str, *, style: str = "") -> None:
    """The file, whole or not at all. title: plain text; body: HTML; style: added to the page's."""
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}{style}</style>{body}</html>"
    )
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
