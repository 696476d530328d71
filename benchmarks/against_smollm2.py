"""A trained model beside SmolLM2-135M-Instruct: the same engine, the same held-out problems.

    python benchmarks/against_smollm2.py models/rorqual-pocket
    python benchmarks/against_smollm2.py models/rorqual-pocket --per-cell 1 --trials 1   # a look

SmolLM2 is prompted as suits it best: every family is tried in each of three ways on problems of the
training split, and asked in the best one. The ways: the question with a word on where to put the
answer; the same after three answered questions of that family, level and language; and after three
whose answers show their steps. Where its reply has no box, its last number (or last word) counts as
boxed. Greedy; the other model answers as it was trained to, greedy too.
"""

import argparse
import json
import random
import re
import statistics
import sys
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rorqual.config.tasks import TaskShare
from rorqual.engine.llm import LLM
from rorqual.engine.requests import SamplingParams
from rorqual.eval.items import judge
from rorqual.eval.passk import wilson
from rorqual.eval.problems import held_out_problems, open_tasks
from rorqual.tasks import Problem, Task, make_in_split

HERE = Path(__file__).parent
WAYS = ("asked", "shown answers", "shown steps")
SHOTS = 3
HINTS = {
    "en": "\nPut the final answer in \\boxed{}.",
    "zh": "\n把最后答案写在\\boxed{}里。",
}
WRITES = ("animation", "python_function", "about_itself")  # a program or a sentence, no box
_LAST = re.compile(r"-?\d[\d,]*(?:[./]\d+)?|[^\W\d_]+")

Messages = list[dict[str, Any]]


def conversation(task: Task, problem: Problem, way: str) -> Messages:
    """What SmolLM2 is asked."""
    hint = "" if problem.task in WRITES else HINTS[problem.language]
    messages: Messages = []
    for number in range(SHOTS if way != "asked" else 0):
        rng = random.Random(f"shot {problem.task} {problem.level} {problem.language} {number}")
        shot = make_in_split(task, rng, problem.level, problem.language, held_out=False)
        reply = task.solve(shot, rng).messages(shot, thinking=True)[-1]
        steps = reply.get("reasoning_content") if way == "shown steps" else None
        text = f"{steps}\n{reply['content']}" if steps else reply["content"]
        messages += [
            {"role": "user", "content": shot.prompt + hint},
            {"role": "assistant", "content": text},
        ]
    return [*messages, {"role": "user", "content": problem.prompt + hint}]


def boxed(problem: Problem, text: str) -> str:
    """The reply as the score wants it; without a box its last number or word is taken for one."""
    if problem.task in WRITES or "\\boxed" in text or "<answer>" in text:
        return text
    found = _LAST.findall(text)
    return f"{text}\n\\boxed{{{found[-1]}}}" if found else text


def answers(llm: LLM, conversations: Sequence[Messages], problems: Sequence[Problem]) -> list[str]:
    """Greedy replies."""
    params = [
        SamplingParams(temperature=0, max_tokens=600 if p.task == "animation" else 256)
        for p in problems
    ]
    outputs = llm.chat(conversations, params)
    return [output.outputs[0].text for output in outputs]


def best_ways(
    llm: LLM, tasks: dict[str, Task], shares: Sequence[TaskShare], trials: int
) -> dict[str, str]:
    """The way that solves most training problems of each family."""
    problems, ways = [], []
    for share in shares:
        task = tasks[share.name]
        for way in WAYS:
            for level in share.levels:
                for language in share.languages:
                    for number in range(trials):
                        rng = random.Random(f"trial {share.name} {level} {language} {number}")
                        problems.append(make_in_split(task, rng, level, language, held_out=False))
                        ways.append(way)
    asked = [conversation(tasks[p.task], p, w) for p, w in zip(problems, ways, strict=True)]
    right: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for problem, way, text in zip(problems, ways, answers(llm, asked, problems), strict=True):
        verdict = judge(tasks[problem.task], problem, boxed(problem, text))
        right[problem.task][way] += verdict.correct
    return {name: max(WAYS, key=lambda way: counts[way]) for name, counts in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", type=Path)
    parser.add_argument("--config", type=Path, default=HERE / "pocket_families.toml")
    parser.add_argument("--per-cell", type=int, default=4, help="family, level and language")
    parser.add_argument("--trials", type=int, default=2, help="per way, level and language")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    raw = tomllib.loads(arguments.config.read_text(encoding="utf-8"))
    shares = [TaskShare(**share) for share in raw["tasks"]]
    count = sum(len(share.levels) * len(share.languages) for share in shares)
    problems = held_out_problems(shares, count * arguments.per_cell, raw["eval"]["seed"])
    with open_tasks(shares) as tasks:
        peer = LLM("smollm2", precision="int8")
        ways = best_ways(peer, tasks, shares, arguments.trials)
        print("\n".join(f"{name}: {way}" for name, way in ways.items()), file=sys.stderr)
        asked = [conversation(tasks[p.task], p, ways[p.task]) for p in problems]
        theirs = [
            judge(tasks[p.task], p, boxed(p, text)).correct
            for p, text in zip(problems, answers(peer, asked, problems), strict=True)
        ]
        llm = LLM(arguments.model)
        plain: list[Messages] = [[{"role": "user", "content": p.prompt}] for p in problems]
        ours = [
            judge(tasks[p.task], p, text).correct
            for p, text in zip(problems, answers(llm, plain, problems), strict=True)
        ]
    table: dict[str, Any] = {}
    for share in shares:
        rows = [i for i, p in enumerate(problems) if p.task == share.name]
        entry: dict[str, Any] = {"problems": len(rows), "way": ways[share.name]}
        for name, found in (("ours", ours), ("smollm2", theirs)):
            mean = statistics.fmean(found[i] for i in rows)
            entry[name] = [mean, *wilson(mean, len(rows))]
        table[share.name] = entry
    print(f"| family | {arguments.model.name} | SmolLM2-135M-Instruct | asked |\n|---|---|---|---|")
    for name, entry in table.items():
        cells = [
            f"{100 * m:.0f} % ({100 * low:.0f}-{100 * high:.0f})"
            for m, low, high in (entry["ours"], entry["smollm2"])
        ]
        print(f"| {name} | {' | '.join(cells)} | {entry['way']} |")
    for name in ("ours", "smollm2"):
        print(f"{name}: mean {100 * statistics.fmean(e[name][0] for e in table.values()):.1f} %")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
