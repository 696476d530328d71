"""The part of the report about one stage of reinforcement learning: pictures, samples, findings."""

import html
from typing import Any

from rorqual.recipe import plots
from rorqual.recipe.folder import StageFolder
from rorqual.recipe.history import History, Records, read_history
from rorqual.recipe.words import CAPTIONS, FINDINGS_ZH, KINDS, TITLES, VERDICTS_ZH, Words, both


def learning_section(folder: StageFolder) -> str:
    """Title, what happened, the pictures; empty before the first step."""
    history = read_history(folder.path)
    if not history.steps or not history.evaluations:
        return ""
    config: Any = folder.stage.config
    parts = [
        f"<summary>{html.escape(folder.stage.name)}: {both(KINDS['rl'])}</summary>",
        _what_happened(history),
        _probes(history.probes),
        _findings(history.findings),
        f"<div class=grid>{''.join(_figures(history, config))}</div>",
        f"<h3>{both(TITLES['samples'])}</h3>{both(CAPTIONS['samples'], 'p')}",
        _samples(history.samples),
    ]
    return "".join(parts)


def _figures(history: History, config: Any) -> list[str]:
    charts = {
        "pass": plots.pass_chart(history),
        "length": plots.length_chart(history),
        "groups": plots.groups_chart(history),
        "reward": plots.reward_chart(history),
        "health": plots.health_chart(history),
        "time": plots.time_chart(history),
    }
    families = {share.name: share.levels for share in config.tasks}
    if config.rl.curriculum:
        charts["level"] = plots.level_chart(history, families)
    figures = [
        f"<figure>{chart}<figcaption>{both(CAPTIONS[name])}</figcaption></figure>"
        for name, chart in charts.items()
    ]
    return figures if config.rl.curriculum else [*figures, _fixed_levels(families)]


def _fixed_levels(families: dict[str, tuple[int, ...]]) -> str:
    """In the place of the curriculum's picture, where there is no curriculum."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{', '.join(map(str, levels))}</td></tr>"
        for name, levels in families.items()
    )
    caption: Words = (
        "The difficulty stayed as it was: questions were drawn evenly from these levels, 1 is the "
        "easiest.",
        "难度保持不变：题目从这些级别中均匀抽取，1 级最容易。",
    )
    return (
        f"<figure><h3>{both(TITLES['level'])}</h3><table>{rows}</table>"
        f"<figcaption>{both(caption)}</figcaption></figure>"
    )


def _what_happened(history: History) -> str:
    """First against best, in a sentence."""
    first, best = history.evaluations[0], history.best

    def share(record: dict[str, Any], name: str) -> str:
        return f"{record[f'eval/all/{name}']:.0%}"

    def range_of(record: dict[str, Any]) -> str:
        low, high = record["eval/all/pass@1_interval"]
        return f"{100 * low:.0f}\u2013{100 * high:.0f} %"

    scores = [f"{share(record, 'pass@1')} ({range_of(record)})" for record in (first, best)]
    lengths = [f"{record['eval/all/mean_length']:.0f}" for record in (first, best)]
    thinks = [share(record, "thinking_share") for record in (first, best)]
    step = best["step"]
    if step == first["step"]:
        text: Words = (
            f"No later checkpoint was better on held-out problems than the model it began with: "
            f"{scores[0]} right, {thinks[0]} think. That model was kept.",
            f"在留出题目上，后来的检查点都没有超过开始时的模型：答对 {scores[0]}，"
            f"{thinks[0]} 先思考。因此保留了开始时的模型。",
        )
    else:
        text = (
            f"From the first evaluation to the best one (step {step}), right answers to held-out "
            f"problems went from {scores[0]} to {scores[1]}, answers that think from {thinks[0]} "
            f"to {thinks[1]}, and the mean length from {lengths[0]} to {lengths[1]} tokens.",
            f"从第一次评测到最好的一次（第 {step} 步），留出题目答对的比例从 {scores[0]} 变为 "
            f"{scores[1]}，先思考的回答从 {thinks[0]} 变为 {thinks[1]}，平均长度从 {lengths[0]} "
            f"变为 {lengths[1]} 个词元。",
        )
    return both(text, "p")


def _probes(probes: Records) -> str:
    """What was measured before the first step."""
    if not probes:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(probe['name'])}</td><td>{probe['level']}</td>"
        f"<td>{probe['pass_at_1']:.0%}</td><td>{probe['pass_at_16']:.0%}</td>"
        f"<td>{both((probe['verdict'], VERDICTS_ZH[probe['verdict']]))}</td></tr>"
        for probe in probes
    )
    header: list[Words] = [
        ("family", "题型"),
        ("level", "难度"),
        ("pass@1", "pass@1"),
        ("pass@16", "pass@16"),
        ("verdict", "判断"),
    ]
    heads = "".join(f"<th>{both(words)}</th>" for words in header)
    title: Words = (
        "Before the first step: is there something to learn?",
        "开始之前：有东西可学吗？",
    )
    return f"<h3>{both(title)}</h3><div class=wide><table><tr>{heads}</tr>{rows}</table></div>"


def _findings(findings: Records) -> str:
    """What the doctor said, each with its step."""
    title = f"<h3>{both(('What the doctor said', '诊断'))}</h3>"
    if not findings:
        return title + both(("Nothing was wrong.", "没有发现问题。"), "p")
    rows: list[str] = []
    for found in findings:
        english = f"{found['meaning']} {found['advice']}"
        chinese = FINDINGS_ZH.get(found["code"], english)
        step = found["step"]
        rows.append(f"<li>{both((f'Step {step}: {english}', f'第 {step} 步：{chinese}'))}</li>")
    return f"{title}<ul>{''.join(rows)}</ul>"


def _samples(samples: Records) -> str:
    """Each question with its answers at the first, the middle and the last evaluation."""
    steps = sorted({record["step"] for record in samples})
    if not steps:
        return ""
    chosen = list(dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1])))
    found = {(record["prompt"], record["step"]): record for record in samples}
    parts: list[str] = []
    for prompt in dict.fromkeys(record["prompt"] for record in samples):
        shown = [found[prompt, step] for step in chosen if (prompt, step) in found]
        cells = "".join(f"<div>{_sample(record)}</div>" for record in shown)
        parts.append(
            f"<p class=prompt>{html.escape(prompt)} "
            f"<span class=pale>{both(('right answer', '正确答案'))}: "
            f"{html.escape(shown[0]['answer'])}</span></p><div class=three>{cells}</div>"
        )
    return "".join(parts)


def _sample(record: dict[str, Any]) -> str:
    mark = (
        f"<span class=right>&#10003; {both(('right', '对'))}</span>"
        if record["correct"]
        else f"<span class=wrong>&#10007; {both(('wrong', '错'))}</span>"
    )
    step = record["step"]
    return (
        f"{both((f'step {step}', f'第 {step} 步'))} {mark}<pre>{html.escape(record['text'])}</pre>"
    )
