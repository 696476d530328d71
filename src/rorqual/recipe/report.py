"""report.html of a recipe: what was done, what came of it, and pictures of how the model learnt.

One file without network, in English and Chinese: every text stands there twice, and the choice at
the top hides one of them by CSS alone.
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rorqual.checkpoint import model_directory
from rorqual.config import read_model_config
from rorqual.config.recipe import Pipeline, Stage
from rorqual.eval import EvalFolder, find_group
from rorqual.eval.folder import SUMMARY
from rorqual.planner import count_parameters
from rorqual.recipe.folder import Done, StageFolder, stage_folders
from rorqual.recipe.learning import learning_section
from rorqual.recipe.stages import evaluated_models
from rorqual.recipe.words import KINDS, SWITCH, SWITCH_STYLE, Words, both, stage_note
from rorqual.train.page import write_page
from rorqual.units import format_count, format_seconds

Evaluated = dict[str, dict[str, Any]]  # model -> summary.json of its evaluation

REPORT = "report.html"
_STYLE = """
.wide{overflow-x:auto}.stages{min-width:44rem}td.number{text-align:right}
td.number,td.name,td .pale{white-space:nowrap}
.pale{opacity:.7;font-size:.875rem}figure{margin:0}figcaption{font-size:.9rem}
details{border-top:1px solid var(--line);padding:.8rem 0}
details>summary{font-weight:600;font-size:1.1rem}
.three{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(15rem,100%),1fr));gap:1rem}
.right{color:#2e9e4f}.wrong{color:#d9480f}
"""
_INTRODUCTION: Words = (
    "A small language model was trained from nothing, following the stages of DeepSeek-R1: it "
    "learnt to continue text, then, by reinforcement learning, to solve problems that a program "
    "can check, and finally handed what it can do to a smaller model.",
    "这里从零训练了一个小语言模型，步骤与 DeepSeek-R1 相同：先学会续写文本，再用强化学习学会解决"
    "程序可以检查的问题，最后把本领教给一个更小的模型。",
)


def write_recipe_report(pipeline: Pipeline, out: Path) -> Path:
    """(Re)write report.html from what the stages left so far."""
    folders = stage_folders(pipeline, out)
    finished = {folder.stage.name: done for folder in folders if (done := folder.done())}
    title = pipeline.recipe.title
    sections = [
        f"{SWITCH}<h1>{html.escape(title)}</h1>{both(_INTRODUCTION, 'p')}",
        _base_data(pipeline.stages, finished),
        *_models(folders, finished),
        _stages(folders, finished),
        *_learning(folders),
    ]
    write_page(out / REPORT, title, "".join(sections), style=SWITCH_STYLE + _STYLE)
    return out / REPORT


def _base_data(stages: Sequence[Stage], finished: dict[str, Done]) -> str:
    """Which share of the worked examples thinks: what reinforcement learning chooses from."""
    parts: list[str] = []
    for stage in stages:
        if stage.head.kind != "corpus" or stage.name not in finished:
            continue
        facts = finished[stage.name].facts
        count, share = f"{facts['examples']:,}", f"{facts['thinking'] / facts['examples']:.0%}"
        text: Words = (
            f"The base model has seen {count} worked examples; {share} of them think before they "
            "answer, the others answer at once. Reinforcement learning is not told which is "
            "better: it chooses among habits that the base already has.",
            f"基座模型见过 {count} 道带解答的例题，其中 {share} 先思考再作答，其余直接作答。"
            "强化学习不会被告知哪种更好：它在基座已有的习惯中选择。",
        )
        parts.append(both(text, "p"))
    return "".join(parts)


def _models(folders: Sequence[StageFolder], finished: dict[str, Done]) -> list[str]:
    """In short, then a table for each evaluation."""
    found = [
        (folder.stage.name, rows)
        for folder in folders
        if folder.stage.head.kind == "eval" and (rows := _evaluated(folder))
    ]
    if not found:
        return []
    kinds = {folder.stage.name: folder.stage.head.kind for folder in folders}
    tables = [
        (f"<h3>{html.escape(name)}</h3>" if len(found) > 1 else "") + _table(rows, finished)
        for name, rows in found
    ]
    title = f"<h2>{both(('Models', '模型'))}</h2>"
    return [title, _in_short(found[-1][1], kinds, finished), *tables]


def _evaluated(folder: StageFolder) -> Evaluated:
    """The models of an evaluation that are done, in its order, with their summaries."""
    found: Evaluated = {}
    for label in evaluated_models(folder.stage):
        evaluation = EvalFolder(folder.path / label)
        if (evaluation.path / SUMMARY).exists():
            summary = evaluation.read_summary()
            found |= {label: summary} if summary["finished"] else {}
    return found


def _in_short(rows: Evaluated, kinds: dict[str, str], finished: dict[str, Done]) -> str:
    """The first model, the last one that reinforcement learning made, and the student."""
    scores = {label: find_group(summary["groups"])["pass@1"] for label, summary in rows.items()}
    learnt = [label for label in scores if kinds.get(label) == "rl"]
    if not learnt:
        return ""
    first, last = next(iter(scores)), learnt[-1]
    english = f"{first} {scores[first]:.1%}, {last} {scores[last]:.1%}"
    chinese = f"{first} {scores[first]:.1%}，{last} {scores[last]:.1%}"
    for label in (label for label in scores if kinds.get(label) == "distill"):
        share = f"{_num_parameters(finished[label]) / _num_parameters(finished[last]):.0%}"
        english += f", and {label}, with {share} of the parameters, {scores[label]:.1%}"
        chinese += f"，参数只有它的 {share} 的 {label} {scores[label]:.1%}"
    return both(
        (
            f"Solved at the first attempt, of problems that none was trained on: {english}.",
            f"在都没有训练过的题目中，一次答对的比例：{chinese}。",
        ),
        "p",
    )


def _table(rows: Evaluated, finished: dict[str, Done]) -> str:
    """One row per model."""
    first = next(iter(rows.values()))
    families = list(dict.fromkeys(g["task"] for g in first["groups"] if g["task"]))
    header: list[Words] = [("model", "模型"), ("parameters", "参数"), ("pass@1", "pass@1")]
    header += [(name, name) for name in families] if len(families) > 1 else []
    header += [("tokens", "词元"), ("think", "思考")]
    body = "".join(_model_row(label, s, families, finished) for label, s in rows.items())
    asked = first["eval"]
    note: Words = (
        f"{asked['num_problems']} held-out problems, {asked['samples_per_problem']} answers each; "
        "pass@1 is the share of right answers, with its 95 % interval. Where two intervals "
        "overlap, do not read much into the difference. Tokens: mean length of an answer; think: "
        "share of answers that think first.",
        f"{asked['num_problems']} 道留出题目，每题 {asked['samples_per_problem']} 个回答；pass@1 是"
        "答对的比例，附 95 % 置信区间。两个区间重叠时，不要太看重差别。词元：回答的平均长度；思考："
        "先思考的回答所占比例。",
    )
    heads = "".join(f"<th>{both(words)}</th>" for words in header)
    return (
        f"<div class=wide><table><tr>{heads}</tr>{body}</table></div><p class=pale>{both(note)}</p>"
    )


def _model_row(
    label: str, summary: dict[str, Any], families: Sequence[str], finished: dict[str, Done]
) -> str:
    whole = find_group(summary["groups"])
    cells = [html.escape(label), _parameters(label, finished), _score(whole)]
    if len(families) > 1:
        cells += [_score(find_group(summary["groups"], name)) for name in families]
    cells += [f"{whole['mean_length']:.1f}", f"{whole['share_thinking']:.0%}"]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _parameters(label: str, finished: dict[str, Done]) -> str:
    """Of a model that a stage made."""
    return format_count(_num_parameters(finished[label])) if label in finished else "-"


def _num_parameters(done: Done) -> int:
    assert done.result is not None, "only stages that leave a model are evaluated"
    return count_parameters(read_model_config(model_directory(done.result))).total


def _score(group: dict[str, Any]) -> str:
    low, high = group["pass@1_interval"]
    return (
        f"{group['pass@1']:.1%} <span class=pale>{100 * low:.0f}&ndash;{100 * high:.0f}&thinsp;%"
        "</span>"
    )


def _stages(folders: Sequence[StageFolder], finished: dict[str, Done]) -> str:
    """What was done, how long it took, what came of it."""
    rows: list[str] = []
    total = 0.0
    for folder in folders:
        stage, done = folder.stage, finished.get(folder.stage.name)
        if done is None:
            seconds, note = "", both(("not finished", "未完成"))
        else:
            total += done.seconds
            seconds, note = (
                format_seconds(done.seconds),
                both(stage_note(stage.head.kind, done.facts)),
            )
        what = both(KINDS[stage.head.kind])
        rows.append(
            f"<tr><td class=name>{html.escape(folder.path.name)}</td><td>{what}</td>"
            f"<td class=number>{seconds}</td><td>{note}</td></tr>"
        )
    header: list[Words] = [
        ("stage", "阶段"),
        ("what", "做什么"),
        ("time", "用时"),
        ("outcome", "结果"),
    ]
    heads = "".join(f"<th>{both(words)}</th>" for words in header)
    summed = both((f"In all {format_seconds(total)}.", f"共用时 {format_seconds(total)}。"), "p")
    return (
        f"<h2>{both(('Stages', '各阶段'))}</h2><div class=wide><table class=stages><tr>{heads}</tr>"
        f"{''.join(rows)}</table></div>{summed}"
    )


def _learning(folders: Sequence[StageFolder]) -> list[str]:
    """A section for each stage of reinforcement learning; the first one stands open."""
    sections = [
        section
        for folder in folders
        if folder.stage.head.kind == "rl" and (section := learning_section(folder))
    ]
    return [
        f"<details{' open' if number == 0 else ''}>{section}</details>"
        for number, section in enumerate(sections)
    ]
