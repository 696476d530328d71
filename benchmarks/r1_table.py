"""R1's table at small scale: RL on a small student against distillation from an RL-trained teacher.

    python benchmarks/r1_table.py TEACHER STUDENT --teacher-run RL_RUN... --out runs/r1-table
    python benchmarks/r1_table.py TEACHER STUDENT --methods rl --seeds 1      # a part; parts add up
    python benchmarks/r1_table.py TEACHER STUDENT --teacher-run RL_RUN... --collect

TEACHER is what the RL run made, STUDENT a base of its own that knows the form of an answer; both
are model directories or run folders. Settings: r1_table.toml. Two accountings, in FLOPs: the
student's own sampling and training alone; and with what the teacher spent, its own reinforcement
learning (RL_RUN) included. Pretraining is in neither. Judged is the last step.
"""

import argparse
import json
import time
import tomllib
from pathlib import Path
from typing import Any

import torch
from r1_zero import curve, judge, metrics

from rorqual.checkpoint import load_model, model_directory
from rorqual.config.distill import DistillRunConfig
from rorqual.config.rl import RLRunConfig
from rorqual.distill import run_distill
from rorqual.model import sample_completions
from rorqual.planner import count_parameters
from rorqual.rl import run_rl
from rorqual.rl.costs import FlopCounter, Tokens
from rorqual.train import RunFolder

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "results" / "r1_table.json"
METHODS = ("rl", "traces", "logits", "on_policy")


def settings() -> dict[str, Any]:
    return tomllib.loads((HERE / "r1_table.toml").read_text(encoding="utf-8"))


def rl_flops(run: RunFolder, model: Path) -> int:
    """What a run of reinforcement learning spent on sampling, scoring and training."""
    config = load_model(model_directory(model)).config
    steps = [line for line in metrics(run) if line["kind"] == "step"]
    spent = Tokens(
        student_sampling=int(sum(line["tokens/sampled"] for line in steps)),
        student_training=int(sum(line.get("tokens/trained", 0) for line in steps)),
    )
    flops = FlopCounter(config, None).flops(spent)["student"]
    assert flops is not None
    return flops


def train(method: str, teacher: Path, student: Path, seed: int, folder: RunFolder) -> Path:
    """One run; its last checkpoint."""
    chosen = settings()
    if method == "rl":
        values = chosen["common"] | chosen["rl"] | {"model": student, "seed": seed}
        return run_rl(
            RLRunConfig.model_validate({"rl": values, "tasks": chosen["tasks"]}), folder
        ).checkpoint
    models = {"teacher": teacher, "student": student}
    values = chosen["common"] | chosen["distill"] | models | {"method": method, "seed": seed}
    return run_distill(
        DistillRunConfig.model_validate({"distill": values, "tasks": chosen["tasks"]}), folder
    ).checkpoint


def flops_of(method: str, folder: RunFolder, student: Path) -> dict[str, int]:
    """The student's own, and with the teacher's sampling and scoring."""
    if method == "rl":
        own = rl_flops(folder, student)
        return {"student": own, "with_teacher": own}
    summary = json.loads((folder.path / "summary.json").read_text(encoding="utf-8"))["flops"]
    return {"student": summary["student"], "with_teacher": summary["total"]}


def run_one(method: str, teacher: Path, student: Path, seed: int, out: Path) -> None:
    path = out / f"{method}-{seed}"
    if (path / "result.json").exists():
        return
    folder = RunFolder(path / "run")
    begin = time.perf_counter()
    model = train(method, teacher, student, seed, folder)
    record = {
        "method": method,
        "seed": seed,
        "seconds": round(time.perf_counter() - begin, 1),
        "flops": flops_of(method, folder, student),
        "curve": curve(folder, "all"),
        "after": judge(model, settings()["tasks"][0], path / "eval", settings()["eval"]),
    }
    path.joinpath("result.json").write_text(json.dumps(record), encoding="utf-8")
    print(json.dumps(record["after"]), flush=True)


def sampling_speed(model: Path) -> float:
    """Tokens a second over 64 rows, the best of three, after one that does not count."""
    network = load_model(model_directory(model), dtype=torch.float32, with_mtp=False).eval()
    prompts, seeds = [[network.config.bos_token_id, 5, 6, 7]] * 64, list(range(64))
    found: list[float] = []
    for _ in range(4):
        begin = time.perf_counter()
        rows = sample_completions(network, prompts, seeds=seeds, max_new_tokens=64)
        found.append(sum(len(row.ids) for row in rows) / (time.perf_counter() - begin))
    return round(max(found[1:]), 1)


def collect(teacher: Path, student: Path, teacher_runs: list[Path], out: Path) -> None:
    """docs/results/r1_table.json, and the table in words."""
    chosen = settings()
    before = {
        name: judge(model_directory(path), chosen["tasks"][0], out / name, chosen["eval"])
        for name, path in (("teacher", teacher), ("student", student))
    }
    spent = sum(rl_flops(RunFolder(run), teacher) for run in teacher_runs)
    finished = [
        path
        for method in METHODS
        for seed in chosen["seeds"]
        if (path := out / f"{method}-{seed}" / "result.json").exists()
    ]
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in finished]
    sizes = {}
    for name, path in (("teacher", teacher), ("student", student)):
        counts = count_parameters(load_model(model_directory(path)).config)
        sizes[name] = {
            "parameters": counts.total,
            "active_parameters": counts.active_matmul,
            "sampled_tokens_per_second": sampling_speed(path),
        }
    found = {
        "settings": chosen,
        "before": before,
        "teacher_rl_flops": spent,
        "sizes": sizes,
        "runs": runs,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for run in runs:
        low, high = run["after"]["pass@1_interval"]
        own, all_of_it = run["flops"]["student"], run["flops"]["with_teacher"]
        if run["method"] != "rl":
            all_of_it += spent
        print(
            f"{run['method']:10} seed {run['seed']}: {run['after']['pass@1']:.1%} "
            f"({low:.1%}-{high:.1%}), student {own:.2e} FLOP, all {all_of_it:.2e} FLOP, "
            f"{run['seconds']} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("student", type=Path)
    parser.add_argument("--teacher-run", type=Path, nargs="+", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/r1-table"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=settings()["seeds"])
    parser.add_argument("--collect", action="store_true")
    options = parser.parse_args()
    if options.collect:
        if not options.teacher_run:
            parser.error("--collect needs --teacher-run: its FLOPs are part of the second sum")
        collect(options.teacher, options.student, options.teacher_run, options.out)
        return
    for seed in options.seeds:
        for method in options.methods:
            print(f"{method}, seed {seed}", flush=True)
            run_one(method, options.teacher, options.student, seed, options.out)


if __name__ == "__main__":
    main()
