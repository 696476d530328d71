"""Runs: the student approaches the teacher, resumes exactly, and accounts for what it spent."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rorqual.checkpoint import load_model, save_model
from rorqual.config import ModelConfig
from rorqual.config.distill import DistillRunConfig
from rorqual.distill import DistillProgress, DistillResult
from rorqual.distill.divergence import Direction, token_divergence
from rorqual.errors import ConfigError
from rorqual.interrupt import StopRequest
from rorqual.model import Transformer, initialize, sample_completions
from rorqual.planner import count_parameters
from rorqual.rl.packing import PackedSequences, pack_sequences
from rorqual.tokenizer import Tokenizer, train_tokenizer
from rorqual.train import RunFolder
from tests.distill.conftest import (
    StopAt,
    opened,
    run_config,
    save_student,
    steps_of,
    worked,
)

KIND: dict[str, Direction] = {"logits": "forward", "on_policy": "reverse"}


def finish(config: Any, folder: RunFolder) -> DistillResult:
    return opened(config, folder).run(StopRequest(), DistillProgress(100, enabled=False))


def logits(model: Transformer, batch: PackedSequences) -> Tensor:
    """Before each completion token. [M, V]"""
    return model.lm_head(batch.select(batch.run(model, torch.float32).hidden))


@torch.no_grad()
def written_by(model: Transformer, tokenizer: Tokenizer) -> PackedSequences:
    """Samples of a model on problems that no run draws."""
    prompts = [
        tokenizer.encode_messages([{"role": "user", "content": prompt}], add_generation_prompt=True)
        for prompt, _ in worked(99, 48)
    ]
    found = sample_completions(model, prompts, seeds=range(48), max_new_tokens=12)
    (batch,) = pack_sequences(
        prompts, [c.ids for c in found], row_tokens=96, rows_per_batch=99, pad_token_id=1
    )
    return batch


def approach(method: str, teacher: Path, student: Path, folder: RunFolder, steps: int) -> Path:
    """A run that is long enough to get near; the student it leaves."""
    config = run_config(
        teacher, student, method=method, max_steps=steps, prompts_per_step=4, learning_rate=1e-2,
        eval_steps=100, rows_per_micro_batch=8,
    )  # fmt: skip
    return finish(config, folder).checkpoint


@pytest.fixture(scope="module")
def taught(
    teacher_path: Path, student_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, Path]:
    """A run of logit distillation, and the student it left, part of the way to the teacher."""
    folder = RunFolder(tmp_path_factory.mktemp("taught") / "run")
    return folder, approach("logits", teacher_path, student_path, folder, 30)


@torch.no_grad()
def divergence_and_bound(
    method: str, teacher_path: Path, student_path: Path, tokenizer: Tokenizer
) -> tuple[float, float]:
    """Nats per token of a student, and of the best one that ignores the context.

    That one always says the teacher's mean distribution (forward KL: no other constant is nearer).
    """
    teacher = load_model(teacher_path, dtype=torch.float32)
    student = load_model(student_path, dtype=torch.float32)
    batch = written_by(teacher if method == "logits" else student, tokenizer)
    theirs = logits(teacher, batch)
    mean = theirs.softmax(dim=-1).mean(dim=0).log().expand_as(theirs)
    blind = float(token_divergence(mean, theirs, KIND[method]).mean())
    return float(token_divergence(logits(student, batch), theirs, KIND[method]).mean()), blind


def test_logits_bring_the_student_nearer_than_any_that_ignores_the_context(
    teacher_path: Path, taught: tuple[RunFolder, Path], tokenizer: Tokenizer
) -> None:
    folder, student = taught
    reached, blind = divergence_and_bound("logits", teacher_path, student, tokenizer)
    assert reached < 0.5 * blind
    kl = [record["kl"] for record in steps_of(folder)]
    assert sum(kl[-5:]) < 0.25 * sum(kl[:5])


def test_on_policy_distillation_brings_a_warm_student_nearer(
    teacher_path: Path, taught: tuple[RunFolder, Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Warm, since from random weights its samples are hardly worth correcting."""
    _, warm = taught
    before, _ = divergence_and_bound("on_policy", teacher_path, warm, tokenizer)
    student = approach("on_policy", teacher_path, warm, RunFolder(tmp_path / "run"), 20)
    reached, blind = divergence_and_bound("on_policy", teacher_path, student, tokenizer)
    assert reached < 0.5 * before and reached < 0.25 * blind


@pytest.mark.parametrize("method", ["logits", "on_policy"])
def test_the_teacher_itself_learns_nothing_from_itself(
    method: str, teacher_path: Path, tmp_path: Path
) -> None:
    config = run_config(teacher_path, teacher_path, method=method, max_steps=1)
    folder = RunFolder(tmp_path / "run")
    finish(config, folder)
    (step,) = steps_of(folder)
    assert abs(step["kl"]) < 1e-5 and step["grad_norm"] < 1e-4


@pytest.mark.parametrize("method", ["logits", "on_policy"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    method: str, teacher_path: Path, student_path: Path, tmp_path: Path
) -> None:
    config = run_config(teacher_path, student_path, method=method, optimizer="muon")
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    ended = finish(config, whole)
    stop = StopRequest()
    stopped = opened(config, parts).run(stop, StopAt(stop, step=2))
    assert (stopped.step, stopped.ended_by) == (2, "SIGTERM")
    again = finish(config, parts)
    for kind in ("step", "eval"):
        assert steps_of(parts, kind) == steps_of(whole, kind)
    for name in ("pass@1", "flops", "tokens", "step"):
        assert again.summary[name] == ended.summary[name]
    files = [path / "model.safetensors" for path in (ended.checkpoint, again.checkpoint)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_killed_before_its_first_checkpoint_starts_anew(
    teacher_path: Path, student_path: Path, tmp_path: Path
) -> None:
    config, folder = run_config(teacher_path, student_path), RunFolder(tmp_path / "run")

    class Killed(DistillProgress):
        def step(self, step: int, figures: Any) -> None:
            raise MemoryError

    with pytest.raises(MemoryError):
        opened(config, folder).run(StopRequest(), Killed(4, enabled=False))
    finish(config, folder)
    assert [record["step"] for record in steps_of(folder)] == [1, 2, 3, 4]
    assert [record["step"] for record in steps_of(folder, "eval")] == [0, 2, 4]


def test_the_summary_adds_up(teacher_path: Path, student_path: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    result = finish(run_config(teacher_path, student_path), folder)
    summary = json.loads((folder.path / "summary.json").read_text(encoding="utf-8"))
    assert summary == result.summary
    steps, evaluations = steps_of(folder), steps_of(folder, "eval")
    last = {k.removeprefix("flops/"): v for k, v in steps[-1].items() if k.startswith("flops/")}
    assert summary["flops"] == last
    tokens = summary["tokens"]
    # Every trained token was scored by the teacher; both, and sampling, read shared prompts once.
    assert tokens["student_training"] == tokens["teacher_scoring"]
    written = sum(record["num_tokens"] for record in steps)
    assert written < tokens["student_sampling"] == tokens["student_training"]
    small = count_parameters(load_model(student_path).config).active_matmul
    assert summary["flops"]["student_training"] == 6 * small * tokens["student_training"]
    scores = [record["eval/all/pass@1"] for record in evaluations]
    passed = summary["pass@1"]
    assert (passed["first"], passed["final"]) == (scores[0], scores[-1])
    assert passed["best"] == max(scores) and passed["final_step"] == 4
    assert passed["best_step"] == evaluations[scores.index(max(scores))]["step"]
    kept = load_model(folder.checkpoints / "best").config
    assert kept.hidden_size == load_model(student_path).config.hidden_size
    seconds = summary["seconds"]
    parts = seconds["drawing"] + seconds["training"] + seconds["evaluating"]
    assert 0 < parts <= seconds["elapsed"] + 0.1


def test_a_student_from_scratch_takes_the_teachers_tokenizer(
    teacher_path: Path, student_config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    section = {"model": student_config.model_dump()}
    config = run_config(teacher_path, None, section, max_steps=1)
    folder = RunFolder(tmp_path / "run")
    result = finish(config, folder)
    assert Tokenizer.load(result.checkpoint).vocab_size == tokenizer.vocab_size
    assert folder.read_config(type(config)) == config
    smaller = {"model": student_config.model_dump() | {"vocab_size": tokenizer.vocab_size - 1}}
    with pytest.raises(ConfigError, match="is below the teacher's tokenizer's"):
        finish(run_config(teacher_path, None, smaller), RunFolder(tmp_path / "small"))
    padded = {"model": student_config.model_dump() | {"vocab_size": tokenizer.vocab_size + 8}}
    with pytest.raises(ConfigError, match=r"vocab_size=.* is not the teacher's"):
        finish(run_config(teacher_path, None, padded), RunFolder(tmp_path / "padded"))


@pytest.fixture(scope="module")
def stranger(student_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student whose tokenizer is as large as the teacher's and means other things."""
    texts = ["whales sing in the deep sea", "a whale is no fish"] * 50
    texts += [text[::-1] for text in texts]
    other = train_tokenizer([*texts, *(f"n{n} {n * n}" for n in range(999))] * 3, vocab_size=400)
    config = student_config.model_copy(update={"vocab_size": other.vocab_size})
    return save_student(other, config, tmp_path_factory.mktemp("stranger") / "model")


@pytest.mark.parametrize("method", ["logits", "on_policy"])
def test_another_vocabulary_is_refused(
    method: str, teacher_path: Path, stranger: Path, tmp_path: Path
) -> None:
    config = run_config(teacher_path, stranger, method=method)
    with pytest.raises(ConfigError, match=r"vocabulary .* is not the student's .* traces"):
        finish(config, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_traces_pass_as_text_between_vocabularies(
    teacher_path: Path, stranger: Path, tmp_path: Path
) -> None:
    config = run_config(
        teacher_path, stranger, method="traces", max_completion_length=32, row_tokens=192
    )
    folder = RunFolder(tmp_path / "run")
    result = finish(config, folder)
    assert result.ended_by == "done" and len(steps_of(folder)) == 4
    assert "kl" not in steps_of(folder)[0]


def test_traces_make_the_student_write_what_the_teacher_wrote(
    teacher_path: Path, student_path: Path, tmp_path: Path
) -> None:
    config = run_config(
        teacher_path, student_path, method="traces", max_steps=40, learning_rate=1e-2,
        eval_steps=100,
    )  # fmt: skip
    folder = RunFolder(tmp_path / "run")
    result = finish(config, folder)
    losses = [record["loss"] for record in steps_of(folder)]
    # \boxed{ d } and the end token: a blind guess knows all but one digit in ten.
    assert sum(losses[-5:]) < 0.25 * sum(losses[:5])
    assert result.summary["tokens"]["teacher_sampling"] > 0
    assert result.summary["tokens"]["student_sampling"] == 0


def test_a_student_loses_its_mtp_modules(
    teacher_path: Path, teacher_config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    assert teacher_config.num_nextn_predict_layers == 1
    student = Transformer(teacher_config)
    initialize(student, 1)
    save_model(student, tokenizer, tmp_path / "student")
    config = run_config(teacher_path, tmp_path / "student", max_steps=1, bias_update_speed=1e-2)
    result = finish(config, RunFolder(tmp_path / "run"))
    trained = load_model(result.checkpoint)
    assert trained.config.num_nextn_predict_layers == 0
    biases = [b for name, b in trained.named_buffers() if name.endswith("correction_bias")]
    assert biases and any(bias.abs().max() > 0 for bias in biases)


def test_a_time_budget_ends_a_run_with_its_final_figures(
    teacher_path: Path, student_path: Path, tmp_path: Path
) -> None:
    config = run_config(teacher_path, student_path, max_steps=10**6, time_budget_seconds=0.5,
                        eval_steps=10**6)  # fmt: skip
    result = finish(config, RunFolder(tmp_path / "run"))
    assert result.ended_by == "time budget" and result.step < 10**6
    assert result.summary["pass@1"]["final_step"] == result.step


def test_completions_that_leave_no_room_for_a_prompt_are_refused(
    teacher_path: Path, student_path: Path, tmp_path: Path
) -> None:
    config = run_config(teacher_path, student_path, max_completion_length=256)
    with pytest.raises(ConfigError, match="max_completion_length=256 leaves no room"):
        finish(config, RunFolder(tmp_path / "run"))


@pytest.mark.parametrize(
    ("fields", "sections", "says"),
    [
        ({"teacher": None}, {}, "exactly one teacher"),
        ({}, {"endpoint": {"base_url": "http://x", "model": "m"}}, "exactly one teacher"),
        ({"student": None}, {}, "exactly one student"),
        (
            {"teacher": None, "method": "logits"},
            {"endpoint": {"base_url": "http://x", "model": "m"}},
            "needs the teacher's logits",
        ),
        (
            {"teacher": None, "method": "traces"},
            {"endpoint": {"base_url": "file:///etc/passwd", "model": "m"}},
            "base_url",
        ),
    ],
)
def test_configurations_that_do_not_hold_together_are_refused(
    fields: dict[str, Any], sections: dict[str, Any], says: str
) -> None:
    names = {"teacher": Path("teacher"), "student": Path("student"), "method": "on_policy"}
    raw = {"distill": names | fields, "tasks": [{"name": "running_state"}], **sections}
    with pytest.raises(ValueError, match=says):
        DistillRunConfig.model_validate(raw)
