"""How a run begins: its time budget, what a failed start leaves, what brought files must fit."""

import shutil
from pathlib import Path

import pytest

from rorqual.cli.main import main
from rorqual.config.run import load_run_config
from rorqual.data import build_shards
from rorqual.model import PackedTokens
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder
from tests.train.conftest import new_trainer


def test_a_time_budget_is_measured_on_the_full_batch_and_not_on_the_ramps_first(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp = ("train.sequences_per_step_start=2", "train.batch_ramp_fraction=0.05")
    timed = ("train.token_budget=none", "train.time_budget_seconds=9")
    trainer = new_trainer(corpus, tmp_path / "run", *ramp, *timed)
    rows: list[int] = []

    def rehearse(batches: list[PackedTokens]) -> None:
        rows.append(sum(len(batch.tokens) for batch in batches))

    clock = iter(range(100))  # each step takes one second
    monkeypatch.setattr(trainer.step, "rehearse", rehearse)
    monkeypatch.setattr("rorqual.train.loop.time.perf_counter", lambda: next(clock))
    assert trainer._token_budget() == 8 * 8 * 64  # 0.9 of 9 s, 8 rows of 64 tokens
    assert set(rows) == {8}


def test_a_run_killed_before_its_first_checkpoint_starts_anew_with_clean_logs(
    corpus: Path, tmp_path: Path
) -> None:
    trainer = new_trainer(corpus, tmp_path / "run")
    for step in (1, 2):
        trainer.folder.log({"kind": "step", "step": step})
    trainer.resume()
    assert trainer.state.step == 0
    assert trainer.folder.read_log() == []


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.eos_token_id=2", "model.eos_token_id=2, the tokenizer's is 1"),
        ("model.vocab_size=300", "model.vocab_size=300 is below the tokenizer's 512 ids"),
    ],
)
def test_a_model_that_does_not_fit_the_tokenizer_is_refused_and_leaves_no_run(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    override: str,
    words: str,
) -> None:
    index = build_shards(load_run_config("tiny", (f"data.root={corpus}",)).data)
    Tokenizer.load(index.parent / "tokenizer").save(tmp_path / "brought")
    shutil.copytree(corpus / "corpus", tmp_path / "data" / "corpus")
    shutil.copy(corpus / "manifest.json", tmp_path / "data")
    data = [f"data.root={tmp_path / 'data'}", f"data.tokenizer={tmp_path / 'brought'}"]
    arguments = ["train", "tiny", *data, override, "--out", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["rorqual", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
    assert not RunFolder(tmp_path / "run").exists
