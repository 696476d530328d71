"""What every gradient run on rows shares: budget, log, guard against instability, checkpoints.

Everything a later process needs to continue bit for bit is in the newest checkpoint: weights, the
optimizer's moments, the data cursor and the counters of RunState. Nothing else carries over a step.
"""

import math
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rorqual.config import ModelConfig, TrainConfig
from rorqual.errors import RorqualError
from rorqual.interrupt import StopRequest
from rorqual.model import Transformer
from rorqual.parallel import Processes
from rorqual.planner import count_parameters, mtp_train_flops_per_token, train_flops_per_token
from rorqual.tokenizer import Tokenizer
from rorqual.train.folder import RunFolder
from rorqual.train.progress import TrainingProgress
from rorqual.train.report import write_report
from rorqual.train.state import RunState, save
from rorqual.train.step import StepResult, TrainStep

_REPORT_SECONDS = 30.0  # drawing takes a second or more; checkpoints may be closer than that


class UnstableRun(RorqualError):
    """Too many steps in a row had to be skipped."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended. stopped_by names a signal, None if the budget was used up."""

    step: int
    tokens_seen: int
    stopped_by: str | None
    checkpoint: Path


class RunLoop(ABC):
    """One run; what it trains on, and when it looks at held-out data, is the subclass's."""

    def __init__(
        self,
        train: TrainConfig,
        folder: RunFolder,
        processes: Processes,
        model: Transformer,
        tokenizer: Tokenizer,
        dtype: torch.dtype,
    ):
        self.train, self.folder, self.processes = train, folder, processes
        self.model, self.tokenizer, self.dtype = model, tokenizer, dtype
        self.step = TrainStep(model, train, processes, dtype)
        self.state = RunState()
        self._reported = -math.inf
        self.flops_per_token = flops_per_token(model.config, train.sequence_length)

    @abstractmethod
    def take_step(self) -> tuple[StepResult, int]:
        """Train on the next rows; what happened, and how many tokens they hold."""

    @abstractmethod
    def look(self) -> None:
        """Validate and sample if it is time."""

    @abstractmethod
    def position(self) -> dict[str, Any]:
        """Where in the data the run stands, for RunState.loader."""

    @abstractmethod
    def begin(self) -> None:
        """What comes before the first step of this process; progress can be told."""

    def run(self, stop: StopRequest) -> TrainResult:
        """Train until the budget is used up or `stop` is set; always leaves a checkpoint."""
        started = time.monotonic() - self.state.elapsed_seconds
        last_checkpoint = time.monotonic()
        state, main = self.state, self.processes.is_main
        with TrainingProgress(
            state.token_budget, self.flops_per_token, enabled=main
        ) as self.progress:
            self.begin()
            while state.tokens_seen < state.token_budget and not self.processes.any(bool(stop)):
                before = time.perf_counter()
                result, num_tokens = self.take_step()
                seconds = time.perf_counter() - before
                state.step += 1
                state.tokens_seen += num_tokens
                state.elapsed_seconds = time.monotonic() - started
                self._record(result, num_tokens / seconds)
                self._guard(result)
                self.look()
                due = time.monotonic() - last_checkpoint >= self.train.checkpoint_seconds
                if self.processes.any(due):
                    self._checkpoint(on_the_way=True)
                    last_checkpoint = time.monotonic()
            path = self._checkpoint()
        return TrainResult(state.step, state.tokens_seen, stop.signal_name, path)

    def is_validation_due(self) -> bool:
        """Whether another validation_fraction of the budget has passed; counts it."""
        progress = min(self.state.tokens_seen / self.state.token_budget, 1.0)
        due = int(progress / self.train.validation_fraction + 1e-9)
        if due <= self.state.validations_done:
            return False
        self.state.validations_done = due
        return True

    def _record(self, result: StepResult, tokens_per_second: float) -> None:
        if not self.processes.is_main:
            return
        state = self.state
        common: dict[str, Any] = {
            "kind": "step",
            "step": state.step,
            "tokens_seen": state.tokens_seen,
            "elapsed_seconds": round(state.elapsed_seconds, 3),
            "tokens_per_second": round(tokens_per_second, 1),
            "flops_per_second": round(tokens_per_second * self.flops_per_token),
        }
        self.folder.log(common | asdict(result))
        self.progress.step(state.step, state.tokens_seen, result, tokens_per_second)

    def _guard(self, result: StepResult) -> None:
        """Count skipped steps; stop with a checkpoint after too many in a row."""
        if result.skipped is None:
            self.state.skipped_in_a_row = 0
            return
        self.state.skipped_in_a_row += 1
        self.progress.say(f"step {self.state.step} skipped: {result.skipped}")
        if self.state.skipped_in_a_row >= self.train.max_skipped_steps:
            path = self._checkpoint()
            raise UnstableRun(
                f"{self.state.skipped_in_a_row} steps in a row were skipped ({result.skipped}); "
                f"the weights of the last accepted step are in {path}; look at metrics.jsonl and "
                "start again with a lower train.learning_rate"
            )

    def _checkpoint(self, *, on_the_way: bool = False) -> Path:
        path = self.folder.checkpoint_path(self.state.step)
        if not path.exists():
            self.state.loader = self.position()
            save(path, self.model, self.tokenizer, self.step, self.state)
            if self.processes.is_main:
                self.folder.prune(self.train.keep_checkpoints)
        recent = time.monotonic() - self._reported < _REPORT_SECONDS
        if self.processes.is_main and not (on_the_way and recent):
            write_report(self.folder, self.folder.path.name)
            self._reported = time.monotonic()
        return path


def flops_per_token(model: ModelConfig, sequence_length: int) -> float:
    """Training FLOPs per token: 6 x active weights and causal attention, MTP modules included."""
    counts = count_parameters(model)
    main = train_flops_per_token(model, counts, sequence_length, causal=True)
    return main + mtp_train_flops_per_token(model, counts, sequence_length)
