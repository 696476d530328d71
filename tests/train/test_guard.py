"""A run that cannot go on stops by itself, with a checkpoint."""

import json
from pathlib import Path

import pytest
import torch

from rorqual.config.run import load_run_config
from rorqual.data import build_shards
from rorqual.model import Transformer, initialize
from rorqual.parallel import join_processes
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder, StopRequest, Trainer, UnstableRun


def test_too_many_skipped_steps_stop_the_run_with_a_checkpoint(
    corpus: Path, tmp_path: Path
) -> None:
    config = load_run_config("tiny", (f"data.root={corpus}", "train.max_skipped_steps=3"))
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    index = build_shards(config.data)
    model = Transformer(config.model)
    initialize(model, 0)
    with torch.no_grad():
        model.lm_head.weight[7, 7] = torch.nan
    trainer = Trainer(
        config,
        folder,
        join_processes(),
        model,
        Tokenizer.load(index.parent / "tokenizer"),
        index,
        torch.float32,
    )
    with pytest.raises(UnstableRun, match="3 steps in a row"):
        trainer.run(StopRequest())
    assert folder.checkpoint_steps() == [3]
    lines = (folder.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [record for record in map(json.loads, lines) if record["kind"] == "step"]
    assert ["not finite" in record["skipped"] for record in steps] == [True] * 3
    assert folder.read_config() == config
