"""The pretraining loop on shards: growing batches, held-out bits per byte, samples on the way."""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rorqual.config.run import RunConfig
from rorqual.data import PackedLoader, load_index, validation_batches
from rorqual.errors import ConfigError
from rorqual.interrupt import StopRequest
from rorqual.model import PackedTokens, Sampling, Transformer, generate
from rorqual.parallel import Processes
from rorqual.tokenizer import Tokenizer
from rorqual.tokenizer.special import ASSISTANT, USER
from rorqual.train.folder import RunFolder
from rorqual.train.rows import packed, without_prompts
from rorqual.train.run_loop import RunLoop, TrainResult
from rorqual.train.schedule import sequences_per_step
from rorqual.train.state import restore
from rorqual.train.step import StepResult
from rorqual.train.validate import bits_per_byte

_VALIDATION = "validation-"  # split names: validation-en, validation-zh, validation-code
_CALIBRATION_STEPS = 6  # the first one warms up
_CALIBRATION_SHARE = 0.9  # the rest of a time budget goes to validation, samples, checkpoints


class Trainer(RunLoop):
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
        super().__init__(config.train, folder, processes, model, tokenizer, dtype)
        self.index = index
        self.loader = self._open_loader()
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
        return super().run(stop)

    def begin(self) -> None:
        """Nothing: validations and samples come with the milestones."""

    def position(self) -> dict[str, Any]:
        """The loader's cursor."""
        return self.loader.state_dict()

    def take_step(self) -> tuple[StepResult, int]:
        """Train on the next rows; the batch may still be growing."""
        progress = self.state.tokens_seen / self.state.token_budget
        rows = sequences_per_step(self.train, progress, self.processes.world_size)
        result = self.step.run(self._micro_batches(rows), progress)
        return result, rows * self.train.sequence_length

    def _open_loader(self) -> PackedLoader:
        train = self.train
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
        size = self.train.sequences_per_micro_batch
        pairs = zip(batch.tokens.split(size), batch.document_idx.split(size), strict=True)
        pieces = [PackedTokens(tokens, document_idx) for tokens, document_idx in pairs]
        if self.train.loss_on_prompts:
            return pieces
        return [self._without_prompts(piece) for piece in pieces]

    def _without_prompts(self, batch: PackedTokens) -> PackedTokens:
        special = self.tokenizer.special_tokens
        if USER not in special or ASSISTANT not in special:
            raise ConfigError(
                f"train.loss_on_prompts=false needs the tokens {USER} and {ASSISTANT}, which the "
                "tokenizer lacks; set it to true"
            )
        return without_prompts(batch, special[USER], special[ASSISTANT])

    def _token_budget(self) -> int:
        """The configured budget, or what the measured speed allows in time_budget_seconds."""
        train = self.train
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

    def look(self) -> None:
        """Validations and samples whose share of the budget has been reached."""
        state = self.state
        progress = min(state.tokens_seen / state.token_budget, 1.0)
        reached = sum(1 for fraction in self.train.sample_fractions if progress >= fraction)
        if self.is_validation_due():
            self._validate()
        if reached > state.samples_done:
            state.samples_done = reached
            self._sample(progress)

    def _validate(self) -> None:
        train = self.train
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
        if self.processes.is_main and len(record) > 3:  # chats alone hold no text
            self.folder.log(record)
            found = ", ".join(f"{k[4:]} {v:.3f}" for k, v in record.items() if k[:4] == "bpb_")
            self.progress.say(f"held-out bits per byte at step {self.state.step}: {found}")

    def _sample(self, progress: float) -> None:
        """Continue the fixed prompts with a fixed seed, so that samples compare."""
        train = self.train
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
