"""The distillation loop: prepare, draw, update, look at held-out problems, save, account.

Everything drawn is seeded by its place, so the newest checkpoint (weights, moments, counters)
continues the run exactly. The best checkpoint by held-out pass@1 is kept beside it, and
summary.json says what the run cost and what came of it.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from rorqual.checkpoint import (
    atomic_directory,
    full_tensors,
    load_model,
    load_training_state,
    save_training_state,
    write_model,
)
from rorqual.config import ModelConfig
from rorqual.config.distill import DistillRunConfig
from rorqual.distill.progress import DistillProgress
from rorqual.distill.source import Source
from rorqual.distill.update import DistillUpdate
from rorqual.errors import DataError
from rorqual.interrupt import StopRequest
from rorqual.model import Transformer
from rorqual.planner import count_parameters
from rorqual.release import sign_here
from rorqual.rl.costs import FlopCounter, Tokens
from rorqual.rl.held_out import HeldOut, in_words
from rorqual.rl.trainer import BEST
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder

SUMMARY_FILE = "summary.json"


@dataclass(slots=True)
class DistillState:
    """Counters of a run. pass@1 is None until something was evaluated."""

    step: int = 0
    prepared: bool = False
    fingerprint: str = ""
    tokens: Tokens = field(default_factory=Tokens)
    drawing_seconds: float = 0.0
    training_seconds: float = 0.0
    evaluating_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    first_pass_at_1: float | None = None
    last_pass_at_1: float | None = None
    last_evaluated_step: int | None = None
    best_pass_at_1: float | None = None
    best_step: int | None = None


@dataclass(frozen=True, slots=True)
class DistillResult:
    """How a run ended: "done", "time budget" or a signal's name."""

    step: int
    ended_by: str
    checkpoint: Path
    best: Path | None
    summary: dict[str, Any]


class DistillTrainer:
    """One distillation on one machine."""

    def __init__(
        self,
        config: DistillRunConfig,
        folder: RunFolder,
        student: Transformer,
        tokenizer: Tokenizer,
        source: Source,
        held_out: HeldOut,
        *,
        teacher: ModelConfig | None,
        dtype: torch.dtype = torch.float32,
    ):
        """teacher: None where its size is unknown."""
        self.config, self.folder, self.tokenizer = config, folder, tokenizer
        self.student, self.source, self.held_out = student, source, held_out
        self.teacher, self.dtype = teacher, dtype
        self.update = DistillUpdate(student, config.distill, source, dtype)
        self.counter = FlopCounter(student.config, teacher)
        self.state = DistillState()

    def close(self) -> None:
        """Let go of what the tasks hold."""
        for task in self.held_out.tasks.values():
            task.close()

    def resume(self) -> None:
        """Continue from the newest checkpoint of the folder, or anew if there is none."""
        steps = self.folder.checkpoint_steps()
        if not steps:
            self.folder.forget_after(-1)
            return
        path = self.folder.checkpoint_path(steps[-1])
        saved = load_model(path, dtype=torch.float32, ops=self.student.ops)
        self.student.load_state_dict(saved.state_dict())
        moments, values = load_training_state(path)
        self.update.optimizer.load_state(moments)
        tokens = Tokens(**values.pop("tokens"))
        self.state = DistillState(tokens=tokens, **values)
        self.folder.forget_after(self.state.step)

    def run(self, stop: StopRequest, progress: DistillProgress) -> DistillResult:
        """Train until something ends it; always leaves a checkpoint and a summary."""
        started = time.monotonic() - self.state.elapsed_seconds
        prepared = self._prepare(stop, progress)
        if prepared and self.state.first_pass_at_1 is None and not stop:
            self._evaluate(progress)
        ended_by = self._train(stop, progress, started) if prepared else str(stop.signal_name)
        if not stop and self.state.last_evaluated_step != self.state.step:
            self._evaluate(progress)
        self.state.elapsed_seconds = time.monotonic() - started
        path = self._checkpoint()
        summary = self._write_summary(ended_by)
        best = None if self.state.best_step is None else self.folder.checkpoints / BEST
        return DistillResult(self.state.step, ended_by, path, best, summary)

    def _train(self, stop: StopRequest, progress: DistillProgress, started: float) -> str:
        """Steps until something ends them; what did."""
        distill, state = self.config.distill, self.state
        last_checkpoint = time.monotonic()
        while state.step < distill.max_steps:
            if stop:
                return str(stop.signal_name)
            state.elapsed_seconds = time.monotonic() - started
            budget = distill.time_budget_seconds
            if budget is not None and state.elapsed_seconds >= budget:
                return "time budget"
            self._one_step(progress)
            if state.step % distill.eval_steps == 0 or state.step == distill.max_steps:
                self._evaluate(progress)
            if time.monotonic() - last_checkpoint >= distill.checkpoint_seconds:
                state.elapsed_seconds = time.monotonic() - started
                self._checkpoint()
                last_checkpoint = time.monotonic()
        return "done"

    def _prepare(self, stop: StopRequest, progress: DistillProgress) -> bool:
        """The source's own preparation, counted once; false if it was stopped."""
        state = self.state
        done = self.source.prepare(lambda: bool(stop), progress.say)
        if done is None:
            return False
        if state.prepared and done.fingerprint != state.fingerprint:
            raise DataError(
                f"{self.folder.path}: its traces have changed since this run was saved; bring the "
                "old ones back or start a new run"
            )
        if not state.prepared:
            state.prepared, state.fingerprint = True, done.fingerprint
            state.tokens.add(done.spent)
            state.drawing_seconds += done.seconds
            if done.figures:
                self.folder.log({"kind": "traces", "step": 0} | done.figures)
        return True

    def _one_step(self, progress: DistillProgress) -> None:
        started, state = time.perf_counter(), self.state
        drawn = self.source.draw(self.student, state.step, self.dtype)
        drawn_at = time.perf_counter()
        learnt, spent = self.update.run(drawn, state.step)
        ended = time.perf_counter()
        state.tokens.add(drawn.spent)
        state.tokens.add(spent)
        state.drawing_seconds += drawn_at - started
        state.training_seconds += ended - drawn_at
        state.step += 1
        figures: dict[str, Any] = {"kind": "step", "step": state.step, **drawn.figures, **learnt}
        figures["step_time"] = ended - started
        flops = self.counter.flops(state.tokens)
        figures |= {f"flops/{name}": value for name, value in flops.items()}
        self.folder.log({k: round(v, 6) if isinstance(v, float) else v for k, v in figures.items()})
        progress.step(state.step, figures)

    def _evaluate(self, progress: DistillProgress) -> None:
        """Held-out problems; keeps the checkpoint if it is the best so far."""
        started, state = time.perf_counter(), self.state
        figures, samples = self.held_out.evaluate(self.student)
        self.folder.log({"kind": "eval", "step": state.step} | figures)
        for sample in samples:
            self.folder.log({"step": state.step} | sample, "samples.jsonl")
        score = figures["eval/all/pass@1"]
        progress.say(f"held-out at step {state.step}: {in_words(figures)}")
        state.last_pass_at_1, state.last_evaluated_step = score, state.step
        if state.first_pass_at_1 is None:
            state.first_pass_at_1 = score
        state.evaluating_seconds += time.perf_counter() - started
        if state.best_pass_at_1 is None or score > state.best_pass_at_1:
            state.best_pass_at_1, state.best_step = score, state.step
            self._write(self.folder.checkpoints / BEST)

    def _checkpoint(self) -> Path:
        path = self.folder.checkpoint_path(self.state.step)
        self._write(path)
        self.folder.prune(1)
        return path

    def _write(self, path: Path) -> None:
        with atomic_directory(path) as directory:
            write_model(directory, self.student.config, self.student.state_dict(), self.tokenizer)
            moments = full_tensors(self.update.optimizer.state())
            save_training_state(directory, moments, asdict(self.state))
            sign_here(directory, path.name)

    def _write_summary(self, ended_by: str) -> dict[str, Any]:
        """What the run cost and what came of it; evaluations cost seconds, not counted FLOPs."""
        state = self.state
        summary: dict[str, Any] = {
            "method": self.config.distill.method,
            "seed": self.config.distill.seed,
            "ended_by": ended_by,
            "step": state.step,
            "pass@1": {
                "first": state.first_pass_at_1,
                "final": state.last_pass_at_1,
                "final_step": state.last_evaluated_step,
                "best": state.best_pass_at_1,
                "best_step": state.best_step,
            },
            "flops": self.counter.flops(state.tokens),
            "tokens": asdict(state.tokens),
            "seconds": {
                "drawing": round(state.drawing_seconds, 3),
                "training": round(state.training_seconds, 3),
                "evaluating": round(state.evaluating_seconds, 3),
                "elapsed": round(state.elapsed_seconds, 3),
            },
            "student": _sizes(self.student.config),
            "teacher": None if self.teacher is None else _sizes(self.teacher),
        }
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        temporary = self.folder.path / f"{SUMMARY_FILE}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.folder.path / SUMMARY_FILE)
        return summary


def _sizes(config: ModelConfig) -> dict[str, int]:
    counts = count_parameters(config)
    return {"parameters": counts.total, "active_parameters": counts.active_matmul}
