"""A claim's page, in English and Chinese, and its row in docs/results.md."""

import html
from itertools import cycle
from pathlib import Path

from rorqual.config.claim import ClaimConfig
from rorqual.recipe.words import SWITCH, SWITCH_STYLE, Words, both
from rorqual.reproduce.figures import Measured, Outcome
from rorqual.train.page import COLOURS, INK, as_svg, draw_curve, new_chart, write_page
from rorqual.units import format_count, format_seconds

REPORT = "report.html"
_COLOURS = (*COLOURS, "#8b5cb8")
_STYLE = SWITCH_STYLE + "td+td{white-space:nowrap}"
_VERDICTS: dict[str, Words] = {
    "holds here": ("holds here", "在此成立"),
    "contradicted here": ("contradicted here", "在此被推翻"),
    "undecided": ("undecided", "无法判定"),
}
_MEASURES: dict[str, Words] = {
    "bits_per_byte": ("bits per byte", "每字节比特数"),
    "max_violation": ("overload of the busiest expert (MaxVio)", "最忙专家的超载（MaxVio）"),
    "errors": ("share of wrong answers", "答错的比例"),
}
_RULE: Words = (
    "Runs of one seed see the same data in the same order. The difference to the first arm is "
    "taken seed by seed; behind ± stands half of Student's 95 % interval over the seeds. The claim "
    "holds here if the interval of the difference lies above zero, and is contradicted if below.",
    "同一种子的各次运行以同样的顺序看到同样的数据。与第一组的差逐种子计算；± 后是各种子的 95% 区间"
    "的一半（学生 t 分布）。差的区间全在零以上则成立，全在零以下则被推翻。",
)
_EQUAL_FLOPS: Words = (
    "Every arm begins with the same base network of its seed and is read where it had spent as "
    "many FLOPs as the first arm in all, the teacher's included, between two evaluations in "
    "proportion.",
    "每组都从同一种子的同一基础网络开始；读数取在该组用掉与第一组总量（含教师）相同的浮点运算之处，"
    "两次评测之间按比例取值。",
)


def write_claim_report(claim: ClaimConfig, outcome: Outcome, out: Path) -> Path:
    """report.html in the claim's folder."""
    said = claim.claim
    title = html.escape(said.statement)
    body = [
        f"{SWITCH}{both((said.statement, said.statement_zh), 'h1')}",
        f"<p>{html.escape(said.source)}</p>",
        both(_verdict_words(claim, outcome), "p"),
        _table(claim, outcome),
        both(_RULE, "p"),
        both(_EQUAL_FLOPS, "p") if said.recipe is not None else "",
        f"<div class=grid>{_chart(claim, outcome, 0)}{_chart(claim, outcome, 1)}</div>",
    ]
    write_page(out / REPORT, title, "".join(body), style=_STYLE)
    return out / REPORT


def table_row(name: str, claim: ClaimConfig, outcome: Outcome) -> str:
    """One line of the table in docs/results.md: claim, arms, differences, verdicts."""
    arms = "; ".join(
        f"{arm} {_shown(figures.measures[claim.claim.measure])}"
        for arm, figures in outcome.arms.items()
    )
    found = "; ".join(
        f"{arm} - {next(iter(claim.arms))}: {_signed(compared.difference)}, {compared.verdict}"
        for arm, compared in outcome.comparisons.items()
    )
    return f"| `rorqual reproduce {name}` | {claim.claim.statement} | {arms} | {found} |"


def _verdict_words(claim: ClaimConfig, outcome: Outcome) -> Words:
    english: list[str] = []
    chinese: list[str] = []
    for arm, compared in outcome.comparisons.items():
        verdict = _VERDICTS[compared.verdict]
        difference = _signed(compared.difference)
        english.append(f"against {claim.arms[arm].title}: {verdict[0]} ({difference})")
        chinese.append(f"对比{claim.arms[arm].title_zh}：{verdict[1]}（{difference}）")
    return "; ".join(english), "；".join(chinese)


def _table(claim: ClaimConfig, outcome: Outcome) -> str:
    measures = list(next(iter(outcome.arms.values())).measures)
    of_recipe = claim.claim.recipe is not None
    heads: list[Words] = [
        ("arm", "组"),
        *(_MEASURES[name] for name in measures),
        *([] if of_recipe else [("tokens", "词元数")]),
        ("FLOP", "浮点运算"),
        ("time", "时间"),
    ]
    rows = ""
    for arm, figures in outcome.arms.items():
        tokens = "" if figures.tokens is None else f"<td>{format_count(figures.tokens)}</td>"
        cells = "".join(f"<td>{_shown(figures.measures[name])}</td>" for name in measures)
        title = both((claim.arms[arm].title, claim.arms[arm].title_zh), "td")
        rows += (
            f"<tr>{title}{cells}{tokens}<td>{figures.flops:.2e}</td>"
            f"<td>{format_seconds(figures.seconds.mean)}</td></tr>"
        )
    return f"<table><tr>{''.join(both(head, 'th') for head in heads)}</tr>{rows}</table>"


def _chart(claim: ClaimConfig, outcome: Outcome, axis: int) -> str:
    """The curves over what was trained on or spent (axis 0) or over seconds (1), a line a seed."""
    of_recipe = claim.claim.recipe is not None
    what = "Held-out problems" if of_recipe else "Held-out text"
    spent = ("TFLOP", "compute") if of_recipe else ("million tokens", "tokens")
    unit, over = (spent, ("seconds", "time"))[axis]
    title = f"{what} over {over}"
    figure, (axes,) = new_chart(title, unit)
    axes.set_ylabel(_MEASURES["errors" if of_recipe else "bits_per_byte"][0])
    for colour, (arm, figures) in zip(cycle(_COLOURS), outcome.arms.items(), strict=False):
        for number, curve in enumerate(figures.curves):
            label = claim.arms[arm].title if number == 0 else "_"
            x, y = [point[axis] for point in curve], [point[2] for point in curve]
            draw_curve(axes, x, y, colour, label, noisy=False)
    axes.legend(fontsize=9, frameon=False, labelcolor=INK)
    return as_svg(figure, title)


def _shown(measured: Measured) -> str:
    return f"{measured.mean:.3f} ± {measured.half:.3f}"


def _signed(measured: Measured) -> str:
    return f"{measured.mean:+.3f} ± {measured.half:.3f}"
