"""Supervised fine-tuning: conversations in, a model that answers as they do out.

The step is pretraining's own, MTP included; only the targets are masked. The token budget is what
the rows of all epochs hold, so every schedule is known before the first step. A run resumed from
its newest checkpoint is bit for bit the uninterrupted one.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rorqual.config.sft import SFTRunConfig
from rorqual.errors import ConfigError, DataError
from rorqual.model import IGNORED, PackedTokens, Transformer, loss_terms
from rorqual.parallel import Processes
from rorqual.planner import count_parameters, mtp_train_flops_per_token, train_flops_per_token
from rorqual.tokenizer import Tokenizer
from rorqual.train.conversations import (
    Conversation,
    ConversationLoader,
    Encoded,
    encode_samples,
    split_held_out,
    validation_batches,
)
from rorqual.train.device import choose_dtype
from rorqual.train.folder import RunFolder
from rorqual.train.interrupt import StopRequest
from rorqual.train.loop import TrainResult, UnstableRun
from rorqual.train.progress import TrainingProgress
from rorqual.train.report import write_report
from rorqual.train.samples import Sample, read_samples
from rorqual.train.state import RunState, restore, save
from rorqual.train.step import StepResult, TrainStep
from rorqual.train.worked import worked_examples


@dataclass(frozen=True, slots=True)
class SFTData:
    """What a run trains on and validates with; encoded says what was left out."""

    loader: ConversationLoader
    held_out: list[Conversation]
    encoded: Encoded

    def counts(self) -> dict[str, int]:
        """Figures of the data, for the log and for people."""
        train = self.loader.conversations
        return {
            "conversations": len(train),
            "held_out": len(self.held_out),
            "tokens": sum(len(item.ids) for item in train),
            "targets": sum(int(item.learn[1:].sum()) for item in train),
            "rows": self.loader.num_rows,
            "too_long": self.encoded.too_long,
            "nothing_to_learn": self.encoded.nothing_to_learn,
            "unused": self.encoded.unused,
        }


def collect_samples(config: SFTRunConfig) -> Iterator[Sample]:
    """Worked examples of the tasks, then the rows of the files."""
    sft = config.sft
    for example in worked_examples(config.tasks, sft.num_examples, config.train.seed):
        yield Sample(example.messages)
    for path in sft.files:
        yield from read_samples(path)


def prepare_data(config: SFTRunConfig, tokenizer: Tokenizer) -> SFTData:
    """Read, draw, encode, split and pack; DataError if nothing is left to train on."""
    sft, train = config.sft, config.train
    row_tokens = train.sequence_length + 1
    encoded = encode_samples(tokenizer, collect_samples(config), sft.loss_on, row_tokens)
    conversations, held_out = split_held_out(encoded.conversations, sft.held_out_fraction)
    loader = ConversationLoader(
        conversations,
        row_tokens=row_tokens,
        pad_token_id=tokenizer.pad_token_id,
        seed=train.seed,
        epochs=sft.epochs,
    )
    if loader.num_rows == 0:
        raise DataError(
            f"no conversation to train on: {encoded.too_long} exceed train.sequence_length="
            f"{train.sequence_length}, {encoded.nothing_to_learn} have no assistant turn, "
            f"{encoded.unused} are not to be used; raise it or bring others"
        )
    return SFTData(loader, held_out, encoded)


class SFTTrainer:
    """One fine-tuning run."""

    def __init__(
        self,
        config: SFTRunConfig,
        folder: RunFolder,
        processes: Processes,
        model: Transformer,
        tokenizer: Tokenizer,
        data: SFTData,
    ):
        tune = config.train
        if tune.sequence_length > model.config.max_position_embeddings:
            raise ConfigError(
                f"train.sequence_length={tune.sequence_length} exceeds the model's "
                f"max_position_embeddings={model.config.max_position_embeddings}; lower it"
            )
        if tune.sequences_per_step % processes.world_size:
            raise ConfigError(
                f"train.sequences_per_step={tune.sequences_per_step} is not a multiple of "
                f"{processes.world_size} processes; raise it to one"
            )
        self.config, self.folder, self.processes = config, folder, processes
        self.model, self.tokenizer, self.data = model, tokenizer, data
        self.loader = data.loader
        budget = self.loader.num_rows * tune.sequence_length
        self.train_config = tune.train_config(budget)
        self.dtype = choose_dtype(self.train_config, processes.device)
        self.step = TrainStep(model, self.train_config, processes, self.dtype)
        self.state = RunState(token_budget=budget)
        self._fingerprint = self.loader.fingerprint

    def resume(self) -> None:
        """Continue from the newest checkpoint of the folder, or anew if there is none yet."""
        steps = self.folder.checkpoint_steps()
        if steps:
            self.state = restore(self.folder.checkpoint_path(steps[-1]), self.model, self.step)
            if self.state.loader["fingerprint"] != self._fingerprint:
                raise DataError(
                    f"{self.folder.path}: the conversations have changed since this run was "
                    "saved; bring the old ones back or start a new run"
                )
            self.loader.rows_seen = self.state.loader["rows_seen"]
        if self.processes.is_main:
            self.folder.forget_after(self.state.step or -1)  # step 0 is measured anew

    def run(self, stop: StopRequest) -> TrainResult:
        """Train to the end of the last epoch or until `stop` is set; always leaves a checkpoint."""
        started = time.monotonic() - self.state.elapsed_seconds
        last_checkpoint = time.monotonic()
        flops_per_token = self._flops_per_token()
        budget = self.state.token_budget
        with TrainingProgress(
            budget, flops_per_token, enabled=self.processes.is_main
        ) as self.progress:
            self._begin()
            while self.state.tokens_seen < budget and not self.processes.any(bool(stop)):
                result, seconds = self._one_step()
                self.state.elapsed_seconds = time.monotonic() - started
                self._record(result, seconds, flops_per_token)
                self._guard(result)
                self._validate_if_due()
                due = time.monotonic() - last_checkpoint >= self.config.train.checkpoint_seconds
                if self.processes.any(due):
                    self._checkpoint()
                    last_checkpoint = time.monotonic()
            path = self._checkpoint()
        return TrainResult(self.state.step, self.state.tokens_seen, stop.signal_name, path)

    def _begin(self) -> None:
        """Say what the data is; measure what the model was before the first step."""
        counts = self.data.counts()
        self.progress.say(
            f"{counts['conversations']} conversations of {counts['tokens']} tokens, "
            f"{counts['targets']} of them targets, in {counts['rows']} rows over "
            f"{self.config.sft.epochs} epoch(s); {counts['held_out']} held out; left out: "
            f"{counts['too_long']} longer than a row, {counts['nothing_to_learn']} without an "
            f"assistant turn, {counts['unused']} not to be used"
        )
        if self.state.step == 0:
            if self.processes.is_main:
                self.folder.log({"kind": "data", "step": 0} | counts)
            self._validate()

    def _one_step(self) -> tuple[StepResult, float]:
        before = time.perf_counter()
        tune, processes = self.config.train, self.processes
        progress = self.state.tokens_seen / self.state.token_budget
        rows_before = self.loader.rows_seen
        batch = self.loader.next_batch(
            tune.sequences_per_step, processes.rank, processes.world_size
        )
        result = self.step.run(self._micro_batches(batch), progress)
        self.state.step += 1
        self.state.tokens_seen += (self.loader.rows_seen - rows_before) * tune.sequence_length
        return result, time.perf_counter() - before

    def _micro_batches(self, batch: PackedTokens) -> list[PackedTokens]:
        size = self.config.train.sequences_per_micro_batch
        assert batch.loss_mask is not None
        parts = (batch.tokens, batch.document_idx, batch.loss_mask)
        split = (part.to(self.processes.device).split(size) for part in parts)
        return [PackedTokens(*rows) for rows in zip(*split, strict=True)]

    def _record(self, result: StepResult, seconds: float, flops_per_token: float) -> None:
        if not self.processes.is_main:
            return
        state = self.state
        tokens_per_step = self.config.train.sequences_per_step * self.config.train.sequence_length
        tokens_per_second = tokens_per_step / seconds
        common: dict[str, Any] = {
            "kind": "step",
            "step": state.step,
            "tokens_seen": state.tokens_seen,
            "elapsed_seconds": round(state.elapsed_seconds, 3),
            "tokens_per_second": round(tokens_per_second, 1),
            "flops_per_second": round(tokens_per_second * flops_per_token),
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

    def _validate_if_due(self) -> None:
        progress = self.state.tokens_seen / self.state.token_budget
        due = int(progress / self.config.train.validation_fraction + 1e-9)
        if due > self.state.validations_done:
            self.state.validations_done = due
            self._validate()

    def _validate(self) -> None:
        """Log the mean loss of the held-out targets, if there are any."""
        if not self.data.held_out:
            return
        loss = self.validation_loss()
        if self.processes.is_main:
            step, seen = self.state.step, self.state.tokens_seen
            record = {"kind": "validation", "step": step, "tokens_seen": seen}
            self.folder.log(record | {"validation_loss": round(loss, 6)})
            self.progress.say(f"held-out loss at step {step}: {loss:.4f} nats per target")

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss in nats over the targets of the held-out conversations."""
        tune = self.config.train
        batches = validation_batches(
            self.data.held_out,
            row_tokens=self.loader.row_tokens,
            pad_token_id=self.loader.pad_token_id,
            max_tokens=tune.validation_tokens,
            rows_per_batch=tune.sequences_per_micro_batch,
        )
        nats, num_targets = 0.0, 0
        for batch in batches:
            (rows,) = self._micro_batches(batch)
            terms = loss_terms(
                self.model, rows, document_mask=True, with_mtp=False, dtype=self.dtype
            )
            nats += float(terms.main)
            num_targets += int((rows.targets() != IGNORED).sum())
        return nats / num_targets

    def _checkpoint(self) -> Path:
        path = self.folder.checkpoint_path(self.state.step)
        if not path.exists():
            position = {"fingerprint": self._fingerprint, "rows_seen": self.loader.rows_seen}
            self.state.loader = position
            save(path, self.model, self.tokenizer, self.step, self.state)
            if self.processes.is_main:
                self.folder.prune(self.config.train.keep_checkpoints)
        if self.processes.is_main:
            write_report(self.folder, self.folder.path.name)
        return path

    def _flops_per_token(self) -> float:
        """Training FLOPs per token of a row, MTP modules included."""
        model, length = self.model.config, self.config.train.sequence_length
        counts = count_parameters(model)
        main = train_flops_per_token(model, counts, length, causal=True)
        return main + mtp_train_flops_per_token(model, counts, length)
