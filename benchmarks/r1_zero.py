"""R1-Zero at small scale: does a base learn by itself that thinking pays?

    python benchmarks/r1_zero.py BASE --other-base OTHER               # all arms, all seeds
    python benchmarks/r1_zero.py BASE --arms running_state --seeds 1   # a part; parts add up
    python benchmarks/r1_zero.py BASE --collect 0.4                    # docs/results/r1_zero.json

BASE is a model directory or run folder. Every arm and seed is a run folder of its own that resumes.
The settings are in r1_zero.toml. Judged is the last step, not the best one: held-out problems pick
nothing.
"""

import argparse
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rorqual.checkpoint import model_directory
from rorqual.config.eval import EvalRunConfig
from rorqual.config.rl import RLRunConfig
from rorqual.config.sft import SFTRunConfig
from rorqual.config.tasks import TaskShare
from rorqual.eval import EvalFolder
from rorqual.eval.checkpoint import evaluate_checkpoint, file_digests
from rorqual.parallel import join_processes
from rorqual.rl import run_rl
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder, run_sft
from rorqual.train.worked import worked_examples

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "results" / "r1_zero.json"


def settings() -> dict[str, Any]:
    return tomllib.loads((HERE / "r1_zero.toml").read_text(encoding="utf-8"))


def reinforce(base: Path, arm: dict[str, Any], seed: int, folder: RunFolder) -> Path:
    """One run of reinforcement learning; its last checkpoint."""
    config = RLRunConfig.model_validate(
        {
            "rl": settings()["rl"]
            | {"model": base, "seed": seed, "rewards": arm["rewards"]}
            | ({"eval_problems": arm["num_problems"]} if "num_problems" in arm else {}),
            "tasks": [arm["task"]],
        }
    )
    result = run_rl(config, folder)
    assert result.ended_by == "done", f"{folder.path} ended by {result.ended_by}"
    return result.checkpoint


def asked(arm: dict[str, Any]) -> dict[str, Any]:
    """How an arm is judged."""
    chosen = settings()["eval"]
    return chosen | {"num_problems": arm.get("num_problems", chosen["num_problems"])}


def tokens_generated(folder: RunFolder) -> int:
    """Of all completions that a run of reinforcement learning drew."""
    return int(sum(line["num_tokens"] for line in metrics(folder) if line["kind"] == "step"))


def fine_tune(base: Path, arm: dict[str, Any], seed: int, folder: RunFolder, budget: int) -> Path:
    """Fine-tuning on as many assistant tokens as `budget`; its last checkpoint."""
    share = TaskShare.model_validate(arm["task"])
    tokenizer = Tokenizer.load(model_directory(base))
    samples = [example.messages for example in worked_examples((share,), 512, seed)]
    targets = [sum(written) for _, written in tokenizer.encode_conversations(samples)]
    rl = settings()["rl"]
    config = SFTRunConfig.model_validate(
        {
            "sft": {
                "model": base,
                "num_examples": round(budget / np.mean(targets)),
                "held_out_fraction": 0.01,
            },
            "tasks": [arm["task"]],
            "train": {
                "seed": seed,
                "sequence_length": 256,
                "sequences_per_step": 32,
                "learning_rate": rl["learning_rate"],
                "learning_rate_min": rl["learning_rate"] / 10,
                "num_threads": rl["num_threads"],
            },
        }
    )
    return run_sft(config, folder, join_processes()).checkpoint


def judge(model: Path, share: dict[str, Any], folder: Path, how: dict[str, Any]) -> dict[str, Any]:
    """Held-out figures of a model on one family, all levels together."""
    config = EvalRunConfig.model_validate({"eval": how, "tasks": [share]})
    summary = evaluate_checkpoint(model, config, EvalFolder(folder)).summary
    overall = summary["groups"][0]
    kept = ("pass@1", "pass@1_interval", "share_thinking", "mean_length", "share_truncated")
    return {name: overall[name] for name in kept}


def metrics(folder: RunFolder) -> list[dict[str, Any]]:
    lines = (folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def curve(folder: RunFolder, family: str) -> list[dict[str, float]]:
    """What the run's own looks at held-out problems found."""
    prefix = f"eval/{family}/"
    names = ("pass@1", "thinking_share", "mean_length")
    return [
        {"step": line["step"]} | {name: round(line[prefix + name], 4) for name in names}
        for line in metrics(folder)
        if line["kind"] == "eval"
    ]


@dataclass(frozen=True, slots=True)
class Bases:
    """Where arms start from; other: of the arms that say so."""

    base: Path
    other: Path | None

    def of(self, arm: dict[str, Any]) -> Path:
        if not arm.get("other_base"):
            return self.base
        assert self.other is not None, "this arm needs --other-base"
        return self.other


def run_arm(bases: Bases, out: Path, name: str, seed: int) -> None:
    """Train if that is not done, judge, and write result.json."""
    arm = settings()["arms"][name]
    base = bases.of(arm)
    path = out / f"{name}-{seed}"
    if (path / "result.json").exists():
        return
    folder = RunFolder(path / "run")
    record: dict[str, Any] = {"arm": name, "seed": seed}
    if "tokens_of" in arm:
        budget = tokens_generated(RunFolder(out / f"{arm['tokens_of']}-{seed}" / "run"))
        model = fine_tune(base, arm, seed, folder, budget)
        record |= {"tokens": budget}
    else:
        model = reinforce(base, arm, seed, folder)
        record |= {
            "tokens": tokens_generated(folder),
            "curve": curve(folder, arm["task"]["name"]),
            "seconds": round(
                sum(line["step_time"] for line in metrics(folder) if line["kind"] == "step"), 1
            ),
        }
    record |= {"after": judge(model, arm["task"], path / "eval", asked(arm))}
    path.joinpath("result.json").write_text(json.dumps(record), encoding="utf-8")
    print(json.dumps(record["after"]), flush=True)


def collect(bases: Bases, out: Path, thinking_share: float) -> None:
    """docs/results/r1_zero.json, and the curves as docs/img/r1_zero.png."""
    chosen = settings()
    finished = [
        path
        for name in chosen["arms"]
        for seed in chosen["seeds"]
        if (path := out / f"{name}-{seed}" / "result.json").exists()
    ]
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in finished]
    before: dict[str, Any] = {}
    for name in dict.fromkeys(run["arm"] for run in runs):
        arm = chosen["arms"][name]
        family = arm["task"]["name"]
        if family not in before:
            where = model_directory(bases.of(arm))
            before[family] = judge(where, arm["task"], out / f"base-{family}", asked(arm))
    found = {
        "settings": chosen,
        "base": {
            "files": file_digests(model_directory(bases.base)),
            "share_of_worked_examples_that_think": thinking_share,
            "before": before,
        },
        "runs": runs,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(chosen, runs, RESULTS.parents[1] / "img" / "r1_zero.png")
    for run in runs:
        task = chosen["arms"][run["arm"]]["task"]["name"]
        print(f"{run['arm']} seed {run['seed']}: {line(before[task])} -> {line(run['after'])}")


def line(figures: dict[str, Any]) -> str:
    low, high = figures["pass@1_interval"]
    return (
        f"{figures['pass@1']:.1%} ({low:.1%}-{high:.1%}), {figures['share_thinking']:.0%} think, "
        f"{figures['mean_length']:.0f} tokens"
    )


def draw(chosen: dict[str, Any], runs: list[dict[str, Any]], target: Path) -> None:
    """Three panels: accuracy, share that thinks, length; one line a run, one colour an arm."""
    names = ("pass@1", "thinking_share", "mean_length")
    titles = ("right answers (held-out)", "answers that think", "tokens an answer")
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.6), constrained_layout=True)
    for number, arm in enumerate(chosen["arms"]):
        for run in runs:
            if run["arm"] != arm or "curve" not in run:
                continue
            steps = [point["step"] for point in run["curve"]]
            label = arm.replace("_", " ") if run["seed"] == chosen["seeds"][0] else None
            for panel, name in zip(panels, names, strict=True):
                values = [point[name] for point in run["curve"]]
                panel.plot(steps, values, color=f"C{number}", label=label, linewidth=1.3)
    for panel, title in zip(panels, titles, strict=True):
        panel.set(title=title, xlabel="step", ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("base", type=Path)
    parser.add_argument("--other-base", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/r1-zero"))
    parser.add_argument("--arms", nargs="+", default=list(settings()["arms"]))
    parser.add_argument("--seeds", nargs="+", type=int, default=settings()["seeds"])
    parser.add_argument(
        "--collect",
        type=float,
        metavar="SHARE",
        help="write docs/results; SHARE of the base's worked examples that think",
    )
    options = parser.parse_args()
    bases = Bases(options.base, options.other_base)
    if options.collect is not None:
        collect(bases, options.out, options.collect)
        return
    for seed in options.seeds:
        for arm in options.arms:
            print(f"{arm}, seed {seed}", flush=True)
            run_arm(bases, options.out, arm, seed)


if __name__ == "__main__":
    main()
