"""Fine-tuning runs: they learn, resume bit for bit, and say what is wrong in one line."""

import json
import math
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rorqual.checkpoint import load_model, save_model
from rorqual.cli.main import main
from rorqual.config.run import load_run_config
from rorqual.config.sft import SFTRunConfig
from rorqual.errors import DataError
from rorqual.interrupt import StopRequest
from rorqual.kernels.ops import select_ops
from rorqual.model import Transformer, initialize
from rorqual.parallel import join_processes
from rorqual.tokenizer import Tokenizer, train_tokenizer
from rorqual.train import RunFolder, SFTTrainer, prepare_data
from rorqual.train.conversations import Conversation

NAMES = "ann ben mia leo zoe max ida tom eva kim sam lou".split()
THINGS = "krill whale ship lamp stone river".split()


def facts() -> list[dict[str, str]]:
    """Twelve questions; what Ann has cannot be known without reading her name."""
    return [
        {"prompt": f"what has {name}?", "completion": f"{THINGS[n * 5 % 6]} {n * 7 % 12}."}
        for n, name in enumerate(NAMES)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of the tiny preset, with MTP and experts."""
    path = tmp_path_factory.mktemp("base") / "model"
    texts = [f"{row['prompt']} {row['completion']}" for row in facts()] * 10
    model = Transformer(load_run_config("tiny").model)
    initialize(model, 0)
    save_model(model, train_tokenizer(texts, vocab_size=420, digits="single"), path)
    return path


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in facts()))
    return path


def make_config(base: Path, traces: Path, **changes: dict[str, Any]) -> SFTRunConfig:
    sections: dict[str, dict[str, Any]] = {
        "sft": {"model": base, "files": [traces], "epochs": 4, "held_out_fraction": 0.1},
        "train": {
            "sequence_length": 64,
            "sequences_per_step": 2,
            "learning_rate": 1e-2,
            "num_threads": 1,
            "kernels": "twin",
        },
    }
    for section, values in changes.items():
        sections[section] = sections.get(section, {}) | values
    return SFTRunConfig.model_validate(sections)


def make_trainer(config: SFTRunConfig, out: Path) -> SFTTrainer:
    """As the command line builds one; resumed if the folder holds a checkpoint."""
    tokenizer = Tokenizer.load(config.sft.model)
    model = load_model(config.sft.model, ops=select_ops("twin", 1))
    folder = RunFolder(out)
    data = prepare_data(config, tokenizer)
    trainer = SFTTrainer(config, folder, join_processes(), model, tokenizer, data)
    if not folder.exists:
        folder.create(config)
    trainer.resume()
    return trainer


def steps_of(out: Path, *fields: str) -> list[list[Any]]:
    records = [record for record in RunFolder(out).read_log() if record["kind"] == "step"]
    return [[record[field] for field in fields] for record in records]


def weights(out: Path) -> bytes:
    newest = sorted((out / "checkpoints").iterdir())[-1]
    return (newest / "model.safetensors").read_bytes()


class StopAfter(StopRequest):
    """A request that comes once so many steps are done."""

    def __init__(self, trainer: SFTTrainer, steps: int):
        super().__init__()
        self._trainer, self._steps = trainer, steps

    def __bool__(self) -> bool:
        if self._trainer.state.step >= self._steps:
            self.signal_name = "SIGINT"
        return self.signal_name is not None


def target_pairs(item: Conversation) -> list[tuple[int, int]]:
    """(token before, target) of a conversation."""
    ids = item.ids.tolist()
    return [(a, b) for a, b, learn in zip(ids, ids[1:], item.learn[1:], strict=False) if learn]


def test_it_learns_what_only_the_question_tells(base: Path, traces: Path, tmp_path: Path) -> None:
    """Held to the best predictor that sees the previous token alone."""
    once_a_step = {"sequences_per_step": 3, "learning_rate": 2e-2}
    config = make_config(
        base, traces, sft={"epochs": 60, "held_out_fraction": 0.0}, train=once_a_step
    )
    trainer = make_trainer(config, tmp_path / "run")
    pairs: Counter[tuple[int, int]] = Counter()
    for item in trainer.loader.conversations:
        pairs.update(target_pairs(item))
    before: Counter[int] = Counter()
    for (previous, _), count in pairs.items():
        before[previous] += count
    bigram = -sum(n * math.log(n / before[a]) for (a, _), n in pairs.items()) / pairs.total()
    assert bigram > 0.3
    trainer.run(StopRequest())
    (last,) = steps_of(tmp_path / "run", "loss")[-1]
    assert last < bigram / 3


def test_stopped_and_resumed_equals_uninterrupted(base: Path, traces: Path, tmp_path: Path) -> None:
    config = make_config(base, traces)
    whole = make_trainer(config, tmp_path / "whole")
    done = whole.run(StopRequest())
    assert done.stopped_by is None and done.tokens_seen == whole.loader.num_rows * 64
    for stop_at in (0, 3):
        out = tmp_path / f"stopped-{stop_at}"
        first = make_trainer(config, out)
        stopped = first.run(StopAfter(first, stop_at))
        assert (stopped.step, stopped.stopped_by) == (stop_at, "SIGINT")
        finished = make_trainer(config, out).run(StopRequest())
        assert finished.step == done.step
        assert weights(out) == weights(tmp_path / "whole")
        fields = ("step", "loss", "mtp_loss", "grad_norm", "learning_rate", "num_targets")
        assert steps_of(out, *fields) == steps_of(tmp_path / "whole", *fields)
        logs = [RunFolder(run).read_log() for run in (out, tmp_path / "whole")]
        for kind in ("data", "validation"):
            found = [[record for record in log if record["kind"] == kind] for log in logs]
            assert found[0] == found[1] != []


def test_a_run_leaves_what_it_promises(base: Path, traces: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = make_config(base, traces)
    trainer = make_trainer(config, out)
    path = trainer.run(StopRequest()).checkpoint
    assert RunFolder(out).read_config(SFTRunConfig) == config
    log = RunFolder(out).read_log()
    (data,) = [record for record in log if record["kind"] == "data"]
    assert (data["conversations"], data["held_out"], data["too_long"]) == (10, 2, 0)
    validations = [r["validation_loss"] for r in log if r["kind"] == "validation"]
    assert validations[0] == pytest.approx(math.log(512), rel=0.05)  # before the first step
    assert len(validations) > 3
    assert validations[-1] < validations[0] and validations[-1] == pytest.approx(
        trainer.validation_loss(), abs=1e-5
    )
    assert all(mtp > 0 for (mtp,) in steps_of(out, "mtp_loss"))
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "held-out loss" in report and "<svg" in report
    tuned, untuned = load_model(path), load_model(base)
    moved = {
        name
        for name, value in untuned.named_parameters()
        if not value.equal(tuned.get_parameter(name))
    }
    layer = untuned.config.num_hidden_layers  # the MTP module
    assert f"model.layers.{layer}.eh_proj.weight" in moved


def test_changed_conversations_are_not_resumed_with(
    base: Path, traces: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text(traces.read_text())
    config = make_config(base, mine, sft={"epochs": 1})
    make_trainer(config, tmp_path / "run").run(StopRequest())
    mine.write_text(traces.read_text().replace("ann", "ian"))
    with pytest.raises(DataError, match="conversations have changed"):
        make_trainer(config, tmp_path / "run")


def write_file(path: Path, base: Path, traces: Path) -> str:
    path.write_text(
        f'[sft]\nmodel = "{base}"\nfiles = ["{traces}"]\nnum_examples = 6\nepochs = 2\n'
        'held_out_fraction = 0.1\n[[tasks]]\nname = "running_state"\n'
        '[train]\nsequence_length = 200\nsequences_per_step = 1\nkernels = "twin"\n'
        "num_threads = 1\n"
    )
    return str(path)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["rorqual", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_the_command_saves_on_a_signal_and_goes_on(
    base: Path,
    traces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write_file(tmp_path / "fine.toml", base, traces)
    assert command(monkeypatch, "sft", file, "--out", str(tmp_path / "whole")) == 0
    printed = capsys.readouterr()
    assert Path(printed.out.strip()).parent == tmp_path / "whole" / "checkpoints"
    assert "held out; left out: 0 longer than a row" in " ".join(printed.err.split())
    record = SFTTrainer._record

    def interrupted(trainer: SFTTrainer, *rest: Any) -> None:
        record(trainer, *rest)
        if trainer.state.step == 2:
            signal.raise_signal(signal.SIGTERM)

    out = str(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(SFTTrainer, "_record", interrupted)
        assert command(patch, "sft", file, "--out", out) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "stopped by SIGTERM after step 2" in said and f"rorqual sft {file}" in said
    assert command(monkeypatch, "sft", file, "--out", out, "--resume") == 0
    assert weights(Path(out)) == weights(tmp_path / "whole")


def test_errors_are_one_line(
    base: Path,
    traces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write_file(tmp_path / "fine.toml", base, traces)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    fresh = ["--out", str(tmp_path / "new")]
    cases: list[tuple[list[str], int, str]] = [
        (["sft.epoch=2"], 2, "did you mean sft.epochs?"),
        ([f'sft.files=["{bad}"]', *fresh], 1, "bad.jsonl:2: has prompt; expected messages"),
        (["sft.files=['/none.jsonl']", *fresh], 1, "/none.jsonl: cannot be read"),
        (["sft.model=/none", *fresh], 1, "/none"),
        (["train.sequence_length=257", *fresh], 2, "max_position_embeddings=256"),
        (["train.sequence_length=4", *fresh], 1, "18 exceed train.sequence_length=4"),
        (["tasks.0.name=runing_state", *fresh], 2, "did you mean running_state?"),
        (["--out", str(tmp_path / "run")], 2, "--resume"),
    ]
    for arguments, code, words in cases:
        assert command(monkeypatch, "sft", file, *arguments) == code, arguments
        lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
        assert len(lines) == 1 and words in lines[0], lines
    assert not (tmp_path / "new").exists()


def test_dry_run_prints_the_configuration_and_starts_nothing(
    base: Path,
    traces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write_file(tmp_path / "fine.toml", base, traces)
    out = str(tmp_path / "none")
    assert command(monkeypatch, "sft", file, "sft.epochs=7", "--out", out, "--dry-run") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["sft"]["epochs"] == 7 and printed["tasks"][0]["name"] == "running_state"
    assert not Path(out).exists()
