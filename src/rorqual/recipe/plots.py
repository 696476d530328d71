"""The pictures of a reinforcement learning stage. Labels are English here; page.py adds Chinese."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rorqual.recipe.history import History, column
from rorqual.recipe.words import TITLES, in_both_languages
from rorqual.train.page import COLOURS, INK, as_svg, draw_curve, new_chart, style_axes

_STEP = "step"
_MOST_BARS = 40
_BLUE, _ORANGE, _GREEN = COLOURS


def pass_chart(history: History) -> str:
    """pass@1 and pass@k over the evaluations, with 95 % intervals."""
    title = TITLES["pass"][0]
    figure, (axes,) = new_chart(title, _STEP)
    for k, colour in ((1, _BLUE), (history.highest_k, _ORANGE)):
        name = f"eval/all/pass@{k}"
        x, y = column(history.evaluations, name)
        draw_curve(axes, x, y, colour, f"pass@{k}", noisy=False)
        bands = [record[f"{name}_interval"] for record in history.evaluations]
        low, high = [band[0] for band in bands], [band[1] for band in bands]
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        if history.highest_k == 1:
            break
    _as_share(axes, "share solved")
    return _finished(figure, title)


def length_chart(history: History) -> str:
    """Length of answers, and the share that think, on an axis of its own."""
    title = TITLES["length"][0]
    figure, (axes,) = new_chart(title, _STEP)
    x, y = column(history.steps, "completions/mean_length")
    draw_curve(axes, x, y, _BLUE, "tokens per answer")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("tokens per answer")
    right = axes.twinx()
    style_axes(right, right=True)
    x, y = column(history.steps, "completions/thinking_share")
    draw_curve(right, x, y, _ORANGE, "share that think")
    _as_share(right, "share that think")
    return _finished(figure, title)


def groups_chart(history: History) -> str:
    """Shares of groups that are all wrong, mixed, all right."""
    title = TITLES["groups"][0]
    figure, (axes,) = new_chart(title, _STEP)
    x, wrong = column(history.steps, "groups/all_wrong")
    _, right = column(history.steps, "groups/all_right")
    mixed = [1 - a - b for a, b in zip(wrong, right, strict=True)]
    axes.stackplot(
        x,
        wrong,
        mixed,
        right,
        labels=("all wrong", "mixed", "all right"),
        colors=(_ORANGE, _BLUE, _GREEN),
        alpha=0.8,
        linewidth=0,
    )
    _as_share(axes, "share of groups")
    return _finished(figure, title)


def health_chart(history: History) -> str:
    """Entropy, gradient norm, and the gap between sampler and trainer, in three panels."""
    title = TITLES["health"][0]
    figure, panels = new_chart(title, _STEP, rows=3)
    figures = {
        "entropy": "entropy",
        "gradient norm": "grad_norm",
        "largest gap": "sampling/sampling_logp_difference/max",
    }
    for axes, colour, (label, name) in zip(panels, COLOURS, figures.items(), strict=True):
        x, y = column(history.steps, name)
        draw_curve(axes, x, y, colour, label)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=False)
        axes.yaxis.get_offset_text().set_color(INK)
        axes.yaxis.get_offset_text().set_fontsize(9)
    return _finished(figure, title, with_legend=False)


def time_chart(history: History) -> str:
    """Where the seconds of a step go; many steps share a bar."""
    title = TITLES["time"][0]
    figure, (axes,) = new_chart(title, _STEP)
    steps = history.steps
    size = -(-len(steps) // _MOST_BARS)
    parts = {"writing": "time/gen", "checking": "time/score", "learning": "time/train"}
    groups = [steps[begin : begin + size] for begin in range(0, len(steps), size)]
    x = [sum(record["step"] for record in group) / len(group) for group in groups]
    bottom = [0.0] * len(groups)
    for colour, (label, name) in zip((_BLUE, _GREEN, _ORANGE), parts.items(), strict=True):
        heights = [sum(record.get(name) or 0.0 for record in g) / len(g) for g in groups]
        axes.bar(x, heights, 0.8 * size, bottom=bottom, color=colour, label=label)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.set_ylabel("seconds per step")
    return _finished(figure, title)


def level_chart(history: History, families: dict[str, tuple[int, ...]]) -> str:
    """The level that each family stands at."""
    title = TITLES["level"][0]
    figure, (axes,) = new_chart(title, _STEP)
    for number, name in enumerate(families):
        x, y = column(history.steps, f"curriculum/{name}/level")
        colour, style = COLOURS[number % len(COLOURS)], ("-", "--", ":")[number // len(COLOURS) % 3]
        axes.step(x, y, where="post", color=colour, linestyle=style, label=name)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("level")
    return _finished(figure, title)


def reward_chart(history: History) -> str:
    """What is paid beside what is wanted."""
    title = TITLES["reward"][0]
    figure, (axes,) = new_chart(title, _STEP)
    x, y = column(history.steps, "reward")
    draw_curve(axes, x, y, _ORANGE, "reward paid")
    axes.get_lines()[-1].set(linewidth=4, alpha=0.5)  # wide, to be seen where both are one
    x, y = column(history.steps, "accuracy")
    draw_curve(axes, x, y, _BLUE, "answers that are right")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("mean of a step")
    return _finished(figure, title)


def _as_share(axes: Axes, label: str) -> None:
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_ylabel(label)


def _finished(figure: Figure, title: str, *, with_legend: bool = True) -> str:
    """Whole numbers of steps, the legend outside, both languages."""
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if with_legend:
        handles = [h for axes in figure.axes for h in axes.get_legend_handles_labels()[0]]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=3,
            fontsize=9,
            frameon=False,
            labelcolor=INK,
        )
    return in_both_languages(as_svg(figure, title))
