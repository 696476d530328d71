"""The whole recipe through the command line: it ends, it resumes, it refuses other settings."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from rorqual.config.recipe import Pipeline, load_recipe
from rorqual.data import load_manifest
from rorqual.errors import ConfigError, DataError, RorqualError
from rorqual.recipe import run_recipe
from rorqual.recipe.check import check_pipeline
from rorqual.recipe.folder import stage_folders
from tests.recipe.conftest import SECONDS, end, start

WEIGHTS = "model.safetensors"


def results(out: Path) -> dict[str, bytes]:
    """What the stages left, byte for byte: the weights of every checkpoint, and traces."""
    assert all(folder.done() for folder in stage_folders(load_recipe("tiny"), out))
    files = [*out.glob(f"*/checkpoints/*/{WEIGHTS}"), *out.glob("*/traces.jsonl")]
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(files)}


def steps(folder: Path) -> list[Any]:
    log = folder / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [record for record in records if record["kind"] == "step"]


def wait_for_steps(process: "subprocess.Popen[str]", folder: Path, count: int) -> None:
    deadline = time.monotonic() + SECONDS
    while len(steps(folder)) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


def test_every_stage_leaves_its_result(finished: Path) -> None:
    found = results(finished)
    newest = {
        f"{stage}/checkpoints/step-{step:08d}/{WEIGHTS}"
        for stage, step in (("02-base", 160), ("03-zero", 9), ("06-r1", 6), ("09-final", 6))
    }
    assert newest <= found.keys()
    assert len({found[name] for name in newest}) == 4
    traces = [found[f"{stage}/traces.jsonl"] for stage in ("04-zero-traces", "07-r1-traces")]
    assert all(trace.count(b"reasoning_content") < trace.count(b"\n") for trace in traces)
    summaries = list((finished / "12-models").glob("*/summary.json"))
    assert len(summaries) == 6
    assert load_manifest(finished / "01-corpus").sources["tasks"].documents > 1000


def test_killed_and_stopped_it_ends_with_the_same_weights(finished: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of one stage, SIGTERM in another; earlier stages are not repeated."""
    out = tmp_path / "again"
    for name in ("01-corpus", "02-base", "10-student-base"):  # those that follow from no other run
        shutil.copytree(finished / name, out / name)
    often = ("zero.rl.checkpoint_seconds=0.001", "final.rl.checkpoint_seconds=0.001")
    process = start(out, *often)
    wait_for_steps(process, out / "03-zero", 4)
    process.kill()
    process.communicate()
    assert not (out / "03-zero" / "done.json").exists()

    process = start(out, *often)
    wait_for_steps(process, out / "09-final", 2)
    process.send_signal(signal.SIGTERM)
    _, said = end(process, expected=1)
    assert "[2/12] base (pretrain): done before" in said
    assert f"--preset tiny --out {out}" in said and "stopped by SIGTERM" in said
    assert [record["step"] for record in steps(out / "03-zero")] == list(range(1, 10))

    _, said = end(start(out, *often))
    assert "[3/12] zero (rl): done before" in said
    assert results(out) == results(finished)


def test_another_configuration_of_a_begun_stage_is_refused(finished: Path) -> None:
    before = results(finished)
    with pytest.raises(ConfigError) as error:
        run_recipe(load_recipe("tiny", ("cold.sft.epochs=3",)), finished)
    assert "stage cold" in str(error.value) and "sft.epochs was 2, is 3" in str(error.value)
    assert results(finished) == before


def test_a_result_that_is_gone_is_named(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "moved"
    shutil.copytree(finished / "02-base", out / "02-base")
    shutil.rmtree(out / "02-base" / "checkpoints")
    folder = stage_folders(load_recipe("tiny"), out)[1]
    with pytest.raises(DataError, match="the result of stage base is gone"):
        folder.done()


def pipeline(*overrides: str) -> Pipeline:
    return load_recipe("tiny", overrides)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("final.tasks.1.name=chain_sun", "stage final: task 'chain_sun' is not known"),
        ("zero.tasks.0.levels=[9]", "stage zero: level=9 of task running_state"),
        ('r1.rl.rewards=["truth", "format", "language"]', "stage r1: reward 'truth' is not known"),
        ("cold.train.sequence_length=512", "stage cold: train.sequence_length=512 exceeds"),
        (
            "student.distill.max_completion_length=256",
            "stage student: distill.max_completion_length=256 leaves no room for a prompt",
        ),
        ("corpus.corpus.text=nowhere", "stage corpus: nowhere: there is no text"),
        ("zero.rl.model=nowhere", "stage zero: "),
    ],
)
def test_what_is_bound_to_fail_is_said_before_the_first_stage(override: str, words: str) -> None:
    check_pipeline(pipeline())
    with pytest.raises(RorqualError) as error:
        check_pipeline(pipeline(override))
    assert words in str(error.value) and "\n" not in str(error.value)
