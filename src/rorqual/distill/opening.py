"""From a configuration to a trainer: teacher, student, what they must share, and the method."""

from dataclasses import dataclass
from pathlib import Path

import torch

from rorqual.checkpoint import load_model, model_directory
from rorqual.config import ModelConfig
from rorqual.config.distill import DistillRunConfig
from rorqual.distill.asking import Asking
from rorqual.distill.endpoint import Endpoint
from rorqual.distill.logits import LogitsSource
from rorqual.distill.on_policy import OnPolicySource
from rorqual.distill.source import Source
from rorqual.distill.teacher import check_comparable, check_same_vocabulary, load_teacher
from rorqual.distill.traces import CheckpointTeacher, EndpointTeacher, TraceSource
from rorqual.distill.trainer import DistillTrainer
from rorqual.engine.rollouts import EngineSampler
from rorqual.errors import ConfigError
from rorqual.kernels.ops import Ops
from rorqual.model import Transformer, initialize
from rorqual.rl.held_out import HeldOut
from rorqual.rl.rollout import Sampler
from rorqual.tasks import Task, load_task
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder

_DTYPE = torch.float32


@dataclass(frozen=True, slots=True)
class _Parts:
    """What every method needs."""

    config: DistillRunConfig
    folder: RunFolder
    tasks: dict[str, Task]
    student: Transformer
    tokenizer: Tokenizer
    sampler: Sampler

    def asking(self, tokenizer: Tokenizer) -> Asking:
        """Questions to a model with this tokenizer."""
        return Asking(self.config, self.tasks, tokenizer, self.sampler)


def open_trainer(
    config: DistillRunConfig, folder: RunFolder, ops: Ops, sampler: Sampler | None = None
) -> DistillTrainer:
    """A trainer at its beginning; nothing is written yet."""
    distill, sampler = config.distill, sampler or EngineSampler()
    teacher_at = None if distill.teacher is None else model_directory(distill.teacher)
    student_at = None if distill.student is None else model_directory(distill.student)
    tokenizer_at = student_at or teacher_at
    assert tokenizer_at is not None, "the configuration has a teacher or a student directory"
    if teacher_at is not None and distill.method != "traces":
        check_same_vocabulary(teacher_at, tokenizer_at)
    tokenizer = Tokenizer.load(tokenizer_at)
    student = _student(config, student_at, tokenizer, ops)
    tasks = {share.name: load_task(share.name) for share in config.tasks}
    parts = _Parts(config, folder, tasks, student, tokenizer, sampler)
    source, teacher = _source(parts, teacher_at, ops)
    for shape in [student.config] + ([] if teacher is None else [teacher]):
        name, tokens = "distill.max_completion_length", config.distill.max_completion_length
        shape.check_completion_length(name, tokens)
    by_problem = {task.name: task for task in tasks.values()}
    held_out = HeldOut(config.distill, config.tasks, by_problem, tokenizer, sampler)
    return DistillTrainer(
        config, folder, student, tokenizer, source, held_out, teacher=teacher, dtype=_DTYPE
    )


def _student(
    config: DistillRunConfig, directory: Path | None, tokenizer: Tokenizer, ops: Ops
) -> Transformer:
    """The student without MTP modules, which would go on predicting what it said before."""
    if directory is not None:
        return load_model(directory, dtype=torch.float32, ops=ops, with_mtp=False)
    assert config.model is not None
    model = config.model.model_copy(update={"num_nextn_predict_layers": 0})
    if model.vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_size={model.vocab_size} is below the teacher's tokenizer's "
            f"{tokenizer.vocab_size} ids; raise it"
        )
    for name in ("bos_token_id", "eos_token_id"):
        if getattr(model, name) != getattr(tokenizer, name):
            raise ConfigError(
                f"model.{name}={getattr(model, name)}, the teacher's tokenizer has "
                f"{getattr(tokenizer, name)}; set it to that"
            )
    student = Transformer(model, ops)
    initialize(student, config.distill.seed)
    return student


def _source(parts: _Parts, teacher_at: Path | None, ops: Ops) -> tuple[Source, ModelConfig | None]:
    """The method, and the teacher's shape where it is known."""
    asking = parts.asking(parts.tokenizer)
    context = parts.student.config.max_position_embeddings
    if teacher_at is None:
        assert parts.config.endpoint is not None
        writer = EndpointTeacher(Endpoint(parts.config.endpoint), asking)
        return TraceSource(parts.folder, writer, asking, context), None
    teacher = load_teacher(teacher_at, ops)
    if parts.config.distill.method == "traces":
        own = parts.asking(Tokenizer.load(teacher_at))
        writer = CheckpointTeacher(teacher, own, _DTYPE)
        return TraceSource(parts.folder, writer, asking, context), teacher.config
    check_comparable(teacher.config, parts.student.config)
    if parts.config.distill.method == "logits":
        return LogitsSource(teacher, asking), teacher.config
    return OnPolicySource(teacher, asking), teacher.config
