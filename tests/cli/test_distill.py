"""`rorqual distill` as one types it: dry run, interrupt, resume, usage errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rorqual.checkpoint import save_model
from rorqual.cli.main import build_app
from rorqual.config.run import load_run_config
from rorqual.config.tasks import TaskShare
from rorqual.errors import ConfigError
from rorqual.eval import held_out_problems
from rorqual.model import Transformer, initialize
from rorqual.tokenizer import train_tokenizer

SMALL = """
[distill]
method = "on_policy"
teacher = "{teacher}"
student = "{student}"
max_steps = 6
prompts_per_step = 1
samples_per_prompt = 2
max_completion_length = 4
row_tokens = 96
warmup_steps = 1
eval_problems = 2
eval_steps = 3
num_threads = 1

[[tasks]]
name = "running_state"
"""


def invoke(*arguments: str) -> Result:
    """The command in this process; its stdout, stderr and exception."""
    return CliRunner().invoke(build_app("distill"), ["distill", *arguments])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose teacher and student have random weights."""
    folder = tmp_path_factory.mktemp("distill")
    shares = (TaskShare(name="running_state"),)
    texts = [problem.prompt for problem in held_out_problems(shares, 64, seed=1)]
    tokenizer = train_tokenizer(texts * 4, vocab_size=512, digits="single")
    config = load_run_config("tiny").model
    for seed, name in enumerate(("teacher", "student")):
        model = Transformer(config)
        initialize(model, seed)
        save_model(model, tokenizer, folder / name)
    path = folder / "small.toml"
    text = SMALL.format(teacher=folder / "teacher", student=folder / "student")
    path.write_text(text, encoding="utf-8")
    return path


def weights(printed: str) -> bytes:
    return (Path(printed.strip()) / "model.safetensors").read_bytes()


def newest(out: Path) -> bytes:
    (path,) = (out / "checkpoints").glob("step-*/model.safetensors")
    return path.read_bytes()


def test_a_run_prints_its_best_checkpoint_and_what_it_cost(file: Path, tmp_path: Path) -> None:
    result = invoke(str(file), "--out", str(tmp_path / "run"))
    assert result.exit_code == 0, result.stderr
    assert weights(result.stdout)
    said = " ".join(result.stderr.split())
    assert "the student spent" in said and "with the teacher" in said and "pass@1" in said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["ended_by"], summary["step"], summary["method"]) == ("done", 6, "on_policy")
    again = invoke(str(file), "--out", str(tmp_path / "run"))
    assert isinstance(again.exception, ConfigError) and "--resume" in str(again.exception)


def test_stopped_by_sigterm_and_resumed_equals_uninterrupted(file: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    steps = "distill.max_steps=40"
    assert invoke(str(file), steps, "--out", str(whole)).exit_code == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "rorqual.cli.main", "distill", str(file), steps, "--out", parts],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    log = parts / "metrics.jsonl"
    while not (log.exists() and '"kind": "step"' in log.read_text()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and "--resume" in said and "Traceback" not in said, said
    result = invoke(str(file), steps, "--out", str(parts), "--resume")
    assert result.exit_code == 0, result.stderr
    assert newest(parts) == newest(whole)


def test_dry_run_prints_the_resolved_configuration(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = invoke(str(file), "distill.seed=7", "--dry-run", "--out", str(out))
    printed = json.loads(result.stdout)
    assert printed["distill"]["seed"] == 7 and printed["tasks"][0]["name"] == "running_state"
    assert printed.keys() == {"distill", "tasks"} and not out.exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("distill.methd=traces", "did you mean distill.method"),
        ("distill.method=osmosis", "method"),
        ("distill.student=none", "exactly one student"),
        ("distill.teacher=nowhere", "nowhere"),
    ],
)
def test_usage_errors_name_the_fix(file: Path, tmp_path: Path, override: str, says: str) -> None:
    out = tmp_path / "run"
    error = invoke(str(file), override, "--out", str(out)).exception
    assert error is not None and says in str(error) and not out.exists()
