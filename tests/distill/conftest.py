"""A tiny teacher that has learnt to answer in form, a smaller student, and runs of both."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from rorqual.checkpoint import save_model
from rorqual.config import ModelConfig
from rorqual.config.distill import DistillRunConfig
from rorqual.config.run import load_run_config
from rorqual.distill import DistillProgress, DistillTrainer, open_trainer
from rorqual.interrupt import StopRequest
from rorqual.kernels.ops import select_ops
from rorqual.model import Transformer, initialize
from rorqual.rl.packing import pack_sequences, score_tokens
from rorqual.tasks import load_task
from rorqual.tokenizer import Tokenizer, train_tokenizer
from rorqual.train import RunFolder

CLOCK = ("time/gen", "time/score", "time/train", "step_time", "seconds")


def worked(seed: int, count: int) -> list[tuple[str, str]]:
    """Questions and direct answers of running_state, level 1, in English."""
    task, rng = load_task("running_state"), random.Random(seed)
    problems = [task.make(rng, 1, "en") for _ in range(count)]
    return [(p.prompt, task.solve(p, rng).completion(thinking=False)) for p in problems]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Digits one by one."""
    texts = [text for pair in worked(0, 300) for text in pair]
    return train_tokenizer(texts, vocab_size=400, digits="single")


@pytest.fixture(scope="session")
def teacher_config(tokenizer: Tokenizer) -> ModelConfig:
    return load_run_config("tiny").model.model_copy(update={"vocab_size": tokenizer.vocab_size})


@pytest.fixture(scope="session")
def student_config(teacher_config: ModelConfig) -> ModelConfig:
    """About a quarter of the teacher in its layers, and dense."""
    values = teacher_config.model_dump() | {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "n_routed_experts": None,
        "num_nextn_predict_layers": 0,
    }
    return ModelConfig(**values)


@pytest.fixture(scope="session")
def teacher_path(
    tokenizer: Tokenizer, teacher_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Fine-tuned for a few seconds: its answers have the right form, some of them are right."""
    model = Transformer(teacher_config)
    initialize(model, seed=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    eos = tokenizer.eos_token_id
    for step in range(40):
        pairs = worked(step + 1, 16)
        prompts = [
            tokenizer.encode_messages(
                [{"role": "user", "content": prompt}], add_generation_prompt=True
            )
            for prompt, _ in pairs
        ]
        replies = [[*tokenizer.encode(reply), eos] for _, reply in pairs]
        (batch,) = pack_sequences(
            prompts, replies, row_tokens=256, rows_per_batch=16, pad_token_id=eos
        )
        (-score_tokens(model, batch, torch.float32).logp.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    path = tmp_path_factory.mktemp("teacher") / "tiny"
    save_model(model, tokenizer, path)
    return path


@pytest.fixture(scope="session")
def student_path(
    tokenizer: Tokenizer, student_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Random weights."""
    return save_student(tokenizer, student_config, tmp_path_factory.mktemp("student") / "small")


def save_student(tokenizer: Tokenizer, config: ModelConfig, path: Path) -> Path:
    model = Transformer(config)
    initialize(model, seed=5)
    save_model(model, tokenizer, path)
    return path


def run_config(
    teacher: Path | None,
    student: Path | None,
    sections: dict[str, Any] | None = None,
    **fields: Any,
) -> DistillRunConfig:
    """A few small steps on running_state, level 1."""
    distill: dict[str, Any] = {
        "method": "on_policy",
        "teacher": teacher,
        "student": student,
        "max_steps": 4,
        "prompts_per_step": 2,
        "samples_per_prompt": 4,
        "max_completion_length": 12,
        "trace_problems": 40,
        "row_tokens": 96,
        "rows_per_micro_batch": 2,
        "warmup_steps": 1,
        "eval_problems": 4,
        "eval_steps": 2,
        "num_threads": 1,
    }
    tasks = [{"name": "running_state", "levels": [1], "languages": ["en"]}]
    return DistillRunConfig.model_validate(
        {"distill": distill | fields, "tasks": tasks} | (sections or {})
    )


def opened(config: DistillRunConfig, folder: RunFolder) -> DistillTrainer:
    """A trainer in a folder that exists, resumed if there is something to resume."""
    trainer = open_trainer(config, folder, select_ops("auto", 1))
    if not folder.exists:
        folder.create(config)
    trainer.resume()
    return trainer


class StopAt(DistillProgress):
    """Asks a run to stop after a step, or after a number of messages."""

    def __init__(self, stop: StopRequest, *, step: int = -1, messages: int = -1):
        super().__init__(100, enabled=False)
        self.stop, self.last_step, self.messages_left = stop, step, messages

    def step(self, step: int, figures: Any) -> None:
        super().step(step, figures)
        if step == self.last_step:
            self.stop.signal_name = "SIGTERM"

    def say(self, message: str) -> None:
        self.messages_left -= 1
        if self.messages_left == 0:
            self.stop.signal_name = "SIGTERM"


def steps_of(folder: RunFolder, kind: str = "step") -> list[dict[str, Any]]:
    """The logged records of a kind without what depends on the clock."""
    records = [record for record in folder.read_log() if record["kind"] == kind]
    return [{k: v for k, v in record.items() if k not in CLOCK} for record in records]


def oracle(student: torch.Tensor, teacher: torch.Tensor, kind: str) -> torch.Tensor:
    """torch's own KL divergence of logits [M, V], summed over tokens."""
    log_p, log_q = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
    left, right = (log_p, log_q) if kind == "forward" else (log_q, log_p)
    return F.kl_div(left, right, reduction="sum", log_target=True)
