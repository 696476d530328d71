"""The pretraining loop: batches in, checkpoints, metrics and samples out.

Everything a later process needs to continue bit for bit is in the newest checkpoint: weights, the
optimizer's moments, the data cursor and the counters below. Nothing else carries over a step.
"""

import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rorqual.config.run import RunConfig
from rorqual.data import Batch, PackedLoader, load_index, validation_batches
from rorqual.errors import ConfigError, DataError, RorqualError
from rorqual.model import PackedTokens, Sampling, Transformer, generate
from rorqual.parallel import Processes
from rorqual.planner import (
    count_parameters,
    mtp_train_flops_per_token,
    train_flops_per_token,
)
from rorqual.tokenizer import Tokenizer
from rorqual.tokenizer.special import ASSISTANT, USER
from rorqual.train.folder import RunFolder
from rorqual.train.interrupt import StopRequest
from rorqual.train.progress import TrainingProgress
from rorqual.train.report import write_report
from rorqual.train.schedule import sequences_per_step
from rorqual.train.state import RunState, restore, save
from rorqual.train.step import StepResult, TrainStep
from rorqual.train.validate import bits_per_byte

_VALIDATION = "validation-"  # split names: validation-en, validation-zh, validation-code
_CALIBRATION_STEPS = 6  # the first one warms up
_CALIBRATION_SHARE = 0.9  # the rest of a time budget goes to validation, samples, checkpoints


class UnstableRun(RorqualError):
    """Too many steps in a row had to be skipped."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended. stopped_by names a signal, None if the budget was used up."""

    step: int
    tokens_seen: int
    stopped_by: str | None
    checkpoint: Path


class Trainer:
    """One pretraining run on already built shards."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        processes: Processes,
        model: Transformer,
        tokenizer: Tokenizer,
        index: Path,
        dtype: torch.dtype,
    ):
        self.config, self.folder, self.processes = config, folder, processes
        self.model, self.tokenizer, self.index, self.dtype = model, tokenizer, index, dtype
        self.step = TrainStep(model, config.train, processes, dtype)
        self.state = RunState()
        self.loader = self._open_loader()
        self.flops_per_token = flops_per_token(config)
        self._token_bytes = tokenizer.token_num_bytes()
        splits = load_index(index).splits
        self.languages = [s.removeprefix(_VALIDATION) for s in splits if s.startswith(_VALIDATION)]

    def resume(self) -> None:
        """Continue from the newest checkpoint of the folder, or anew if there is none yet."""
        steps = self.folder.checkpoint_steps()
        if steps:
            self.state = restore(self.folder.checkpoint_path(steps[-1]), self.model, self.step)
            self.loader.load_state_dict(self.state.loader)
        if self.processes.is_main:
            self.folder.forget_after(self.state.step)

    def run(self, stop: StopRequest) -> TrainResult:
        """Train until the budget is used up or `stop` is set; always leaves a checkpoint."""
        if self.state.token_budget == 0:
            self.state.token_budget = self._token_budget()
        started = time.monotonic() - self.state.elapsed_seconds
        last_checkpoint = time.monotonic()
        budget, main = self.state.token_budget, self.processes.is_main
        with TrainingProgress(budget, self.flops_per_token, enabled=main) as progress:
            self.progress = progress
            while self.state.tokens_seen < budget and not self._should_stop(stop):
                result, seconds, num_tokens = self._one_step()
                self.state.elapsed_seconds = time.monotonic() - started
                self._record(result, num_tokens / seconds)
                self._guard(result)
                self._milestones()
                due = time.monotonic() - last_checkpoint >= self.config.train.checkpoint_seconds
                if self.processes.any(due):
                    self._checkpoint()
                    last_checkpoint = time.monotonic()
            path = self._checkpoint()
        return TrainResult(self.state.step, self.state.tokens_seen, stop.signal_name, path)

    def _should_stop(self, stop: StopRequest) -> bool:
        return self.processes.any(bool(stop))

    def _open_loader(self) -> PackedLoader:
        train = self.config.train
        return PackedLoader(
            self.index,
            sequence_length=train.sequence_length,
            sequences_per_batch=train.sequences_per_step,
            seed=train.seed,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
        )

    def _micro_batches(self, rows: int) -> list[PackedTokens]:
        """This process's share of the next `rows` rows."""
        self.loader.sequences_per_batch = rows
        batch = packed(self.loader.next_batch(), self.processes.device)
        size = self.config.train.sequences_per_micro_batch
        pairs = zip(batch.tokens.split(size), batch.document_idx.split(size), strict=True)
        pieces = [PackedTokens(tokens, document_idx) for tokens, document_idx in pairs]
        return (
            pieces
            if self.config.train.loss_on_prompts
            else [self._without_prompts(p) for p in pieces]
        )

    def _without_prompts(self, batch: PackedTokens) -> PackedTokens:
        special = self.tokenizer.special_tokens
        if USER not in special or ASSISTANT not in special:
            raise ConfigError(
                f"train.loss_on_prompts=false needs the tokens {USER} and {ASSISTANT}, which the "
                "tokenizer lacks; set it to true"
            )
        return without_prompts(batch, special[USER], special[ASSISTANT])

    def _one_step(self) -> tuple[StepResult, float, int]:
        before = time.perf_counter()
        progress = self.state.tokens_seen / self.state.token_budget
        rows = sequences_per_step(self.config.train, progress, self.processes.world_size)
        result = self.step.run(self._micro_batches(rows), progress)
        num_tokens = rows * self.config.train.sequence_length
        self.state.step += 1
        self.state.tokens_seen += num_tokens
        return result, time.perf_counter() - before, num_tokens

    def _token_budget(self) -> int:
        """The configured budget, or what the measured speed allows in time_budget_seconds."""
        train = self.config.train
        if train.token_budget is not None:
            return train.token_budget
        assert train.time_budget_seconds is not None
        rows = train.sequences_per_step  # the batch that nearly all of a run has, ramp or not
        seconds: list[float] = []
        for _ in range(_CALIBRATION_STEPS):
            before = time.perf_counter()
            self.step.rehearse(self._micro_batches(rows))
            seconds.append(time.perf_counter() - before)
        self.step.forget()
        self.loader = self._open_loader()
        tokens_per_step = rows * train.sequence_length
        usual = statistics.median(seconds[1:])
        steps = int(train.time_budget_seconds * _CALIBRATION_SHARE / usual)
        budget = self.processes.broadcast(max(steps, 1) * tokens_per_step)
        assert isinstance(budget, int)
        return budget

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
        if self.state.skipped_in_a_row >= self.config.train.max_skipped_steps:
            path = self._checkpoint()
            raise UnstableRun(
                f"{self.state.skipped_in_a_row} steps in a row were skipped ({result.skipped}); "
                f"the weights of the last accepted step are in {path}; look at metrics.jsonl and "
                "start again with a lower train.learning_rate"
            )

    def _milestones(self) -> None:
        """Validations and samples whose share of the budget has been reached."""
        train, state = self.config.train, self.state
        progress = min(state.tokens_seen / state.token_budget, 1.0)
        due = int(progress / train.validation_fraction + 1e-9)
        reached = sum(1 for fraction in train.sample_fractions if progress >= fraction)
        if due > state.validations_done:
            state.validations_done = due
            self._validate()
        if reached > state.samples_done:
            state.samples_done = reached
            self._sample(progress)

    def _validate(self) -> None:
        train = self.config.train
        record: dict[str, Any] = {
            "kind": "validation",
            "step": self.state.step,
            "tokens_seen": self.state.tokens_seen,
        }
        for language in self.languages:
            batches = validation_batches(
                self.index,
                language,
                sequence_length=train.sequence_length,
                sequences_per_batch=train.sequences_per_micro_batch,
                max_tokens=train.validation_tokens,
            )
            value = bits_per_byte(
                self.model,
                (packed(batch, self.processes.device) for batch in batches),
                self._token_bytes,
                self.processes,
                document_mask=train.document_mask,
                dtype=self.dtype,
            )
            if not np.isnan(value):
                record[f"bpb_{language}"] = round(value, 5)
        if self.processes.is_main:
            self.folder.log(record)
            found = ", ".join(f"{k[4:]} {v:.3f}" for k, v in record.items() if k[:4] == "bpb_")
            self.progress.say(f"held-out bits per byte at step {self.state.step}: {found}")

    def _sample(self, progress: float) -> None:
        """Continue the fixed prompts with a fixed seed, so that samples compare."""
        train = self.config.train
        prompts = [
            [self.tokenizer.bos_token_id, *self.tokenizer.encode(text)]
            for text in train.sample_prompts
        ]
        if not prompts:
            return
        sampling = Sampling(max_new_tokens=train.sample_tokens, seed=train.seed)
        for text, prompt in zip(train.sample_prompts, prompts, strict=True):
            row = generate(self.model, [prompt], sampling, dtype=self.dtype)[0]
            record = {
                "step": self.state.step,
                "progress": round(progress, 4),
                "prompt": text,
                "continuation": self.tokenizer.decode(row, skip_special=True),
            }
            if self.processes.is_main:
                self.folder.log(record, "samples.jsonl")

    def _checkpoint(self) -> Path:
        path = self.folder.checkpoint_path(self.state.step)
        if not path.exists():
            self.state.loader = self.loader.state_dict()
            save(path, self.model, self.tokenizer, self.step, self.state)
            if self.processes.is_main:
                self.folder.prune(self.config.train.keep_checkpoints)
        if self.processes.is_main:
            write_report(self.folder, self.folder.path.name)
        return path


def flops_per_token(config: RunConfig) -> float:
    """Training FLOPs per token: 6 x active weights and causal attention, MTP modules included."""
    counts, length = count_parameters(config.model), config.train.sequence_length
    main = train_flops_per_token(config.model, counts, length, causal=True)
    return main + mtp_train_flops_per_token(config.model, counts, length)


def packed(batch: Batch, device: torch.device) -> PackedTokens:
    """The loader's numpy rows as tensors on the device."""
    if batch.tokens.shape[0] == 0:
        raise DataError("the loader gave an empty batch; add data or lower sequences_per_step")
    return PackedTokens(
        torch.from_numpy(batch.tokens.astype(np.int64)).to(device),
        torch.from_numpy(batch.document_idx.astype(np.int32)).to(device),
    )


def without_prompts(batch: PackedTokens, user_id: int, assistant_id: int) -> PackedTokens:
    """The same rows; what lies from a user marker to the next assistant marker is no target.

    A small model cannot predict which numbers a problem asks about, and trying drowns the signal of
    how they are used (docs/log.md).
    """
    tokens = batch.tokens  # [B, T+1]
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    fresh = torch.ones_like(tokens, dtype=torch.bool)
    fresh[:, 1:] = batch.document_idx[:, 1:] != batch.document_idx[:, :-1]

    def last(mask: torch.Tensor) -> torch.Tensor:
        return torch.where(mask, places, -1).cummax(dim=1).values  # [B, T+1]

    user, assistant = last(tokens == user_id), last(tokens == assistant_id)
    in_prompt = (user >= last(fresh)) & (user > assistant)
    written = ~in_prompt & (tokens != assistant_id)
    return PackedTokens(tokens, batch.document_idx, written)
