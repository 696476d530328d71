"""Rejection sampling as a stage: a model's right answers to training problems, as JSONL for SFT.

The sampling, the judging and the going on after an interrupt are those of distillation by traces.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from rorqual.checkpoint import model_directory
from rorqual.config.distill import DistillConfig, DistillRunConfig
from rorqual.config.recipe import RejectionRunConfig
from rorqual.distill.asking import Asking
from rorqual.distill.source import Preparation
from rorqual.distill.teacher import load_teacher
from rorqual.distill.traces import TRACES_FILE, CheckpointTeacher, TraceSource
from rorqual.engine.rollouts import EngineSampler
from rorqual.interrupt import StopRequest, stop_on_signals
from rorqual.kernels.ops import select_ops
from rorqual.parallel import threads_per_process
from rorqual.tasks import load_task
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder


def collect_traces(
    config: RejectionRunConfig, folder: RunFolder, say: Callable[[str], None]
) -> tuple[Path, Preparation | None, StopRequest]:
    """The file of kept traces; no Preparation if a signal stopped it before the end."""
    rejection = config.rejection
    num_threads = rejection.num_threads or threads_per_process()
    torch.set_num_threads(num_threads)
    directory = model_directory(rejection.model)
    tokenizer = Tokenizer.load(directory)
    model = load_teacher(directory, select_ops(rejection.kernels, num_threads))
    tasks = {share.name: load_task(share.name) for share in config.tasks}
    asking = Asking(_as_distillation(config), tasks, tokenizer, EngineSampler())
    teacher = CheckpointTeacher(model, asking, torch.float32)
    source = TraceSource(folder, teacher, asking, model.config.max_position_embeddings)
    if not folder.exists:
        folder.create(config)
    try:
        with stop_on_signals() as stop:
            collected = source.prepare(lambda: bool(stop), say)
    finally:
        for task in tasks.values():
            task.close()
    return folder.path / TRACES_FILE, collected, stop


def _as_distillation(config: RejectionRunConfig) -> DistillRunConfig:
    """The same sampling in distillation's words; the student is not trained."""
    rejection = config.rejection
    distill = DistillConfig(
        method="traces",
        teacher=rejection.model,
        student=rejection.model,
        seed=rejection.seed,
        trace_problems=rejection.num_problems,
        prompts_per_step=rejection.problems_per_batch,
        samples_per_prompt=rejection.samples_per_problem,
        traces_per_problem=rejection.traces_per_problem,
        max_completion_length=rejection.max_completion_length,
        teacher_temperature=rejection.temperature,
        thinking=rejection.thinking,
    )  # pyright: ignore[reportCallIssue]
    return DistillRunConfig(distill=distill, tasks=config.tasks)  # pyright: ignore[reportCallIssue]
