"""Whole runs through the command line: resume, signals, processes, and what they leave."""

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rorqual.checkpoint import ended_by, load_model, save_model
from rorqual.cli.main import main
from rorqual.release import examine, known_keys
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder
from tests.train.conftest import finish, rorqual


def start(corpus: Path, out: Path, *extra: str, processes: int = 1) -> subprocess.Popen[str]:
    return rorqual(
        "train", "tiny", f"data.root={corpus}", *extra, "--out", str(out), processes=processes
    )


def metrics(out: Path, kind: str = "step") -> list[dict[str, float]]:
    path = out / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [record for record in records if record["kind"] == kind]


def wait_until(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    """Until it is so far, or has ended; a busy machine is not a failure."""
    deadline = time.monotonic() + 900
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def weights(out: Path) -> bytes:
    newest = sorted((out / "checkpoints").iterdir())[-1]
    return (newest / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of the tiny preset."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    finish(start(corpus, out))
    return out


def test_a_run_learns_and_leaves_what_it_promises(finished: Path) -> None:
    losses = [record["loss"] for record in metrics(finished)]
    assert len(losses) == 32
    assert losses[-1] < losses[0] - 1.0
    validations = metrics(finished, "validation")
    assert len(validations) == 2
    for language in ("en", "zh", "code"):
        assert validations[1][f"bpb_{language}"] < validations[0][f"bpb_{language}"]
    samples = (finished / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prompt"] for line in samples] == ["The sea "] * 3
    assert "<svg" in (finished / "report.html").read_text(encoding="utf-8")
    config = json.loads((finished / "config.json").read_text(encoding="utf-8"))
    assert config["train"]["seed"] == 0 and config["about"]["version"]
    newest = sorted((finished / "checkpoints").iterdir())[-1]
    assert examine(newest, known_keys()).label == "trained on this machine"


def test_generate_streams_from_the_run(finished: Path) -> None:
    arguments = ("The sea", "--max-new-tokens", "8", "--seed", "1")
    first, _ = finish(rorqual("generate", str(finished), *arguments))
    second, _ = finish(rorqual("generate", str(finished), *arguments))
    assert first == second and first.strip()


def test_generate_needs_no_mtp_modules(finished: Path, tmp_path: Path) -> None:
    """transformers saves V3 without them and leaves them in config.json."""
    newest = max((finished / "checkpoints").glob("step-*"))
    config = json.loads((newest / "config.json").read_text(encoding="utf-8"))
    assert config["num_nextn_predict_layers"] == 1
    save_model(load_model(newest, with_mtp=False), Tokenizer.load(newest), tmp_path / "plain")
    (tmp_path / "plain" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    out, _ = finish(rorqual("generate", str(tmp_path / "plain"), "The sea", "--temperature", "0"))
    assert out.strip()


def test_stopped_by_sigterm_and_resumed_equals_uninterrupted(
    corpus: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    process = start(corpus, out)
    wanted = random.randint(1, 20)
    wait_until(process, lambda: len(metrics(out)) >= wanted)
    process.send_signal(signal.SIGTERM)
    _, said = finish(process, expected=1)
    assert "stopped by SIGTERM" in said and "--resume" in said
    assert ended_by(out) == "SIGTERM"
    steps = len(metrics(out))
    assert wanted <= steps < 32
    finish(start(corpus, out, "--resume"))
    assert ended_by(out) == "done"
    assert weights(out) == weights(finished), f"differs after stopping at step {steps}"
    losses = [[record["loss"] for record in metrics(run)] for run in (out, finished)]
    assert losses[0] == losses[1]


def test_killed_run_resumes_from_its_last_checkpoint(
    corpus: Path, finished: Path, tmp_path: Path
) -> None:
    out, changes = tmp_path / "killed", ("train.checkpoint_seconds=0.1", "train.keep_checkpoints=1")
    checkpoints = RunFolder(out).checkpoint_steps
    process = start(corpus, out, *changes)
    wait_until(process, lambda: len(metrics(out)) >= 9 and bool(checkpoints()))
    process.kill()
    process.communicate()
    assert 1 <= checkpoints()[-1] < 32
    finish(start(corpus, out, *changes, "--resume"))
    assert weights(out) == weights(finished)
    assert [r["step"] for r in metrics(out)] == list(range(1, 33))


def test_two_processes_train_what_one_does(corpus: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    finish(start(corpus, out, processes=2))
    pairs = zip(metrics(out), metrics(finished), strict=True)
    for two, one in pairs:
        assert two["loss"] == pytest.approx(one["loss"], rel=2e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=2e-2)
    assert metrics(out)[0]["loss"] == pytest.approx(metrics(finished)[0]["loss"], rel=1e-6)
    bpb = [metrics(run, "validation")[-1]["bpb_en"] for run in (out, finished)]
    assert bpb[0] == pytest.approx(bpb[1], rel=2e-3)


def test_run_of_two_processes_goes_on_in_one(corpus: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "reshaped"
    process = start(corpus, out, processes=2)
    wait_until(process, lambda: len(metrics(out)) >= 4)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert 4 <= len(metrics(out)) < 32
    finish(start(corpus, out, "--resume"))
    for two, one in zip(metrics(out), metrics(finished), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=2e-4)


def test_finished_run_resumes_to_itself(
    corpus: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    words = ["train", "tiny", f"data.root={corpus}", "--out", str(out), "--resume"]
    monkeypatch.setattr("sys.argv", ["rorqual", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert weights(out) == weights(finished) and len(metrics(out)) == 32


def test_errors_are_one_line_and_lose_nothing(
    corpus: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = weights(finished)
    cases = [
        (["train", "tiny", f"data.root={corpus}", "--out", str(finished)], 2, "--resume"),
        (["train", "tiny", "train.learnin_rate=1"], 2, "did you mean train.learning_rate?"),
        (["train", "tiny", "train.dtype=fp4"], 2, "train.dtype"),
        (["train", "tniy"], 2, "did you mean 'tiny'?"),
        (["train", "tiny", "data.vocab_size=600"], 2, "model.vocab_size=512"),
        (["train", "tiny", f"data.root={tmp_path}/none", "--out", f"{tmp_path}/a"], 1, "fetch"),
        (["generate", str(tmp_path)], 1, "config.json"),
        (["generate", str(finished), "x", "--temperature", "-1"], 1, "expected from 0.0"),
    ]
    for arguments, code, words in cases:
        monkeypatch.setattr("sys.argv", ["rorqual", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == code, arguments
        err = capsys.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and words in lines[0], err
    assert weights(finished) == before
