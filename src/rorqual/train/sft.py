"""Supervised fine-tuning: conversations in, a model that answers as they do out.

The step is pretraining's own, MTP included; only the targets are masked. The token budget is what
the rows of all epochs hold, so every schedule is known before the first step. A run resumed from
its newest checkpoint is bit for bit the uninterrupted one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from rorqual.config.sft import SFTRunConfig
from rorqual.errors import ConfigError, DataError
from rorqual.model import IGNORED, PackedTokens, Transformer, loss_terms
from rorqual.parallel import Processes
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
from rorqual.train.run_loop import RunLoop
from rorqual.train.samples import Sample, read_samples
from rorqual.train.state import restore
from rorqual.train.step import StepResult
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


class SFTTrainer(RunLoop):
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
        self.config, self.data, self.loader = config, data, data.loader
        train = tune.train_config(self.loader.num_rows * tune.sequence_length)
        dtype = choose_dtype(train, processes.device)
        super().__init__(train, folder, processes, model, tokenizer, dtype)
        assert train.token_budget is not None
        self.state.token_budget = train.token_budget
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

    def begin(self) -> None:
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

    def position(self) -> dict[str, Any]:
        """Rows seen, and of which conversations."""
        return {"fingerprint": self._fingerprint, "rows_seen": self.loader.rows_seen}

    def take_step(self) -> tuple[StepResult, int]:
        """Train on the next rows; the last batch of a run may be smaller."""
        processes, before = self.processes, self.loader.rows_seen
        progress = self.state.tokens_seen / self.state.token_budget
        batch = self.loader.next_batch(
            self.train.sequences_per_step, processes.rank, processes.world_size
        )
        result = self.step.run(self._micro_batches(batch), progress)
        return result, (self.loader.rows_seen - before) * self.train.sequence_length

    def look(self) -> None:
        """The held-out loss, when its share of the budget has passed."""
        if self.is_validation_due():
            self._validate()

    def _micro_batches(self, batch: PackedTokens) -> list[PackedTokens]:
        size = self.config.train.sequences_per_micro_batch
        assert batch.loss_mask is not None
        parts = (batch.tokens, batch.document_idx, batch.loss_mask)
        split = (part.to(self.processes.device).split(size) for part in parts)
        return [PackedTokens(*rows) for rows in zip(*split, strict=True)]

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
