"""One optimizer step of a student: sequences in, one update out. The same for every method.

The loss is the mean over all completion tokens of the step, so micro-batches simply add up and the
methods' steps are of one size. MTP modules are not trained.
"""

import math
import time

import torch
from torch.nn.utils import clip_grad_norm_

from rorqual.config.distill import DistillConfig
from rorqual.distill.source import Drawn, Figures, Source
from rorqual.model import Transformer
from rorqual.rl.costs import Tokens
from rorqual.rl.packing import PackedSequences, pack_sequences
from rorqual.train.balance import LoadCounter, max_violation
from rorqual.train.optimizer import RunOptimizer
from rorqual.train.schedule import learning_rate_of_step


class DistillUpdate:
    """The student and its optimizer."""

    def __init__(
        self, student: Transformer, config: DistillConfig, source: Source, dtype: torch.dtype
    ):
        self.student, self.config, self.source, self.dtype = student, config, source, dtype
        self.optimizer = RunOptimizer(student, config)
        self.load = LoadCounter(student)

    def run(self, drawn: Drawn, step: int) -> tuple[Figures, Tokens]:
        """Learn from the sequences of a step; what it did, and what it cost."""
        started = time.perf_counter()
        spent = Tokens()
        num_tokens = sum(map(len, drawn.completions))
        total = 0.0
        for batch in pack_sequences(
            drawn.prompts,
            drawn.completions,
            row_tokens=self.config.row_tokens,
            rows_per_batch=self.config.rows_per_micro_batch,
            pad_token_id=self.student.config.eos_token_id,
        ):
            total += self._accumulate(batch, num_tokens, spent)
        norm = self._finish(step)
        mean = total / num_tokens
        figures: Figures = {
            "loss": mean,
            "grad_norm": norm,
            "learning_rate": learning_rate_of_step(self.config, step),
            "moe/load_violation": max_violation(self.load.counts),
            "time/train": time.perf_counter() - started,
        }
        if self.source.measures_kl:
            figures["kl"] = mean
        self.load.counts.zero_()
        return figures, spent

    def _accumulate(self, batch: PackedSequences, num_tokens: int, spent: Tokens) -> float:
        """Forward and backward of one micro-batch; its summed loss."""
        out = batch.run(self.student, self.dtype)
        hidden = batch.select(out.hidden)  # [M, H]
        loss, scoring = self.source.loss(self.student, hidden, batch, self.dtype)
        (loss / num_tokens).backward()
        self.load.add(self.load.of(out.routing))
        spent.add(scoring)
        spent.add(Tokens(student_training=batch.num_fed))
        return float(loss.detach())

    def _finish(self, step: int) -> float:
        """The update, unless a gradient is not finite; the gradient's norm."""
        norm = float(clip_grad_norm_(self.student.parameters(), self.config.clip_grad_norm))
        if not math.isfinite(norm):
            self.optimizer.zero_grad()
            return norm
        self.optimizer.step(learning_rate_of_step(self.config, step))
        if self.student.config.uses_selection_bias:
            self.load.update_biases(self.load.counts, self.config.bias_update_speed)
        return norm
