"""`rorqual eval` as one types it: run, interrupt, continue, score again."""

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

SMALL = ("eval.num_problems=12", "eval.samples_per_problem=2", "eval.max_new_tokens=8")


def start(*arguments: str, code: str | None = None) -> subprocess.Popen[str]:
    program = ["-c", code] if code else ["-m", "rorqual.cli.main", "eval"]
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str], expected: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == expected, f"exit {process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err
    return out, err


def invoke(*arguments: str) -> Result:
    """The command in this process; its stdout, stderr and exception."""
    return CliRunner().invoke(build_app("eval"), ["eval", *arguments])


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shares = (TaskShare(name="running_state"),)
    texts = [problem.prompt for problem in held_out_problems(shares, 64, seed=1)]
    model = Transformer(load_run_config("tiny").model)
    initialize(model, 0)
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_model(model, train_tokenizer(texts * 4, vocab_size=512, digits="single"), path)
    return path


@pytest.fixture(scope="module")
def evaluated(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished evaluation and what it printed."""
    out = tmp_path_factory.mktemp("eval") / "out"
    task = ("--task", "running_state", "--level", "1", "--level", "2")
    result = invoke(str(model_path), *SMALL, *task, "--out", str(out), "--json")
    assert result.exit_code == 0 and "--rescore" in result.stderr
    return out, result.stdout


def test_json_is_the_summary_that_is_written(evaluated: tuple[Path, str]) -> None:
    out, printed = evaluated
    summary = json.loads(printed)
    assert summary == json.loads((out / "summary.json").read_text(encoding="utf-8"))
    whole = summary["groups"][0]
    assert (whole["problems"], whole["samples"]) == (12, 24) and summary["finished"]
    assert {"model.safetensors", "config.json"} <= summary["about"]["model_sha256"].keys()
    assert {group["level"] for group in summary["groups"]} == {None, 1, 2}


def test_digests_are_those_of_sha256sum(evaluated: tuple[Path, str], model_path: Path) -> None:
    digests = json.loads(evaluated[1])["about"]["model_sha256"]
    done = subprocess.run(
        ["sha256sum", str(model_path / "model.safetensors")], capture_output=True, text=True
    )
    assert done.stdout.split()[0] == digests["model.safetensors"]


def test_rescore_needs_no_torch_and_finds_the_same(evaluated: tuple[Path, str]) -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"  # any import of it fails
        f"sys.argv = ['rorqual', 'eval', '--rescore', {str(evaluated[0])!r}, '--json']\n"
        "from rorqual.cli.main import main\n"
        "main()\n"
    )
    printed, _ = finish(start(code=code))
    found = json.loads(printed)
    assert found["items"] == 24 and found["differences"] == []
    assert found["summary"] == json.loads(evaluated[1])


def test_rescore_exits_1_where_a_number_differs(
    evaluated: tuple[Path, str], tmp_path: Path
) -> None:
    for name in ("config.json", "summary.json"):
        (tmp_path / name).write_bytes((evaluated[0] / name).read_bytes())
    lines = (evaluated[0] / "items.jsonl").read_text(encoding="utf-8")
    (tmp_path / "items.jsonl").write_text(
        lines.replace('"correct": false', '"correct": true', 1), encoding="utf-8"
    )
    result = invoke("--rescore", str(tmp_path))
    assert result.exit_code == 1
    assert "1 differ" in result.stdout and "sample" in result.stdout


def test_the_same_command_again_draws_nothing_and_another_one_is_refused(
    evaluated: tuple[Path, str], model_path: Path
) -> None:
    out, printed = evaluated
    task = ("--task", "running_state", "--level", "1", "--level", "2", "--out", str(out))
    before = (out / "items.jsonl").read_bytes()
    again = invoke(str(model_path), *SMALL, *task, "--json").stdout
    assert again == printed and (out / "items.jsonl").read_bytes() == before
    error = invoke(str(model_path), *SMALL, "eval.seed=1", *task).exception
    assert isinstance(error, ConfigError) and "seed=0, got seed=1" in str(error)


def test_interrupt_keeps_what_is_finished_and_says_so(model_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = (str(model_path), "eval.num_problems=500", "eval.samples_per_problem=12")
    command += ("eval.max_new_tokens=32", "--task", "running_state", "--out", str(out))
    process = start(*command)
    log = out / "items.jsonl"
    while not (log.exists() and log.stat().st_size) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = finish(process, expected=1)
    assert "stopped by SIGINT" in err and str(out) in err.replace("\n", "")
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    finished = summary["groups"][0]["samples"]
    assert not summary["finished"] and 256 <= finished < 6000
    again = invoke("--rescore", str(out))
    assert f"{finished} items scored again: all the same" in again.stdout


def test_settings_come_from_file_options_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "eval.toml"
    file.write_text(
        "[eval]\nnum_problems = 9\nseed = 4\n[[tasks]]\nname = 'running_state'\nlevels = [3]\n",
        encoding="utf-8",
    )
    overrides = ("model", "eval.seed=6", "eval.thinking=true", "--language", "zh", "--dry-run")
    settings = json.loads(invoke(*overrides, "--config", str(file)).stdout)
    asked = settings["eval"]
    assert (asked["num_problems"], asked["seed"], asked["thinking"]) == (9, 6, True)
    (share,) = settings["tasks"]
    assert (share["levels"], share["languages"]) == ([3], ["zh"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("model",), "running_state"),
        (("--task", "running_state"), "no model"),
        (("model", "--task", "runing_state"), "running_state"),
        (("model", "eval.sedd=1", "--task", "running_state"), "did you mean eval.seed"),
        (("model", "seed=1", "--task", "running_state"), "section.key=value"),
        (("model", "--task", "running_state", "--level", "9"), "levels 1 to 4"),
        (("model", "--config", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_usage_errors_name_the_fix(arguments: tuple[str, ...], says: str) -> None:
    error = invoke(*arguments).exception
    assert isinstance(error, ConfigError) and says in str(error)
