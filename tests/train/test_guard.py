"""A run that cannot go on stops by itself, with a checkpoint."""

import json
from pathlib import Path

import pytest
import torch

from rorqual.config.run import RunConfig
from rorqual.interrupt import StopRequest
from rorqual.train import RunFolder, UnstableRun, run_loop
from tests.train.conftest import new_trainer


def test_too_many_skipped_steps_stop_the_run_with_a_checkpoint(
    corpus: Path, tmp_path: Path
) -> None:
    trainer = new_trainer(corpus, tmp_path / "run", "train.max_skipped_steps=3")
    folder = trainer.folder
    with torch.no_grad():
        trainer.model.lm_head.weight[7, 7] = torch.nan
    with pytest.raises(UnstableRun, match="3 steps in a row"):
        trainer.run(StopRequest())
    assert folder.checkpoint_steps() == [3]
    lines = (folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [record for record in map(json.loads, lines) if record["kind"] == "step"]
    assert ["not finite" in record["skipped"] for record in steps] == [True] * 3
    assert folder.read_config(RunConfig).train == trainer.train


def test_a_report_is_drawn_at_the_end_and_seldom_on_the_way(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(run_loop, "write_report", lambda folder, title: drawn.append(title))
    monkeypatch.setattr(run_loop, "_REPORT_SECONDS", 3600.0)  # however slow the machine
    trainer = new_trainer(corpus, tmp_path / "run", "train.checkpoint_seconds=0.001")
    trainer.run(StopRequest())
    assert trainer.state.step > 2
    assert len(drawn) == 2  # with the first checkpoint, and at the end


def test_pruning_clears_what_a_killed_save_left(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    left, whole = ".step-00000003.saving-99", "step-00000002"
    for name in (left, whole):
        (folder.checkpoints / name).mkdir(parents=True)
    folder.prune(1)
    assert [entry.name for entry in folder.checkpoints.iterdir()] == [whole]


def test_logs_keep_line_separators_inside_texts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log({"step": 1, "text": "a\u2028b\u0085c"})
    assert folder.read_log() == [{"step": 1, "text": "a\u2028b\u0085c"}]
