"""Logit distillation: the teacher writes, the student matches its whole distribution per token.

KL(teacher, student) on the teacher's samples is Hinton's distillation (arXiv 1503.02531) on
sequences drawn as in sequence-level distillation (Kim & Rush, arXiv 1606.07947): each token tells
the student about all ids, where a trace tells it about one. Wrong and truncated samples are kept:
the distribution is what is taught. What stays is exposure bias: the student never sees prefixes
that only it would write.
"""

import torch
from torch import Tensor

from rorqual.distill.asking import Asking
from rorqual.distill.source import Drawn, Source
from rorqual.distill.teacher import compare
from rorqual.model import Transformer
from rorqual.rl.costs import Tokens
from rorqual.rl.packing import PackedSequences


class LogitsSource(Source):
    """Fresh samples of the teacher for every step."""

    measures_kl = True

    def __init__(self, teacher: Transformer, asking: Asking):
        self.teacher, self.asking = teacher, asking

    def draw(self, student: Transformer, step: int, dtype: torch.dtype) -> Drawn:
        """The teacher's answers to the step's problems."""
        del student
        temperature = self.asking.config.teacher_temperature
        answers = self.asking.ask(self.teacher, step, temperature=temperature, dtype=dtype)
        spent = Tokens(teacher_sampling=answers.num_forward_tokens)
        return Drawn(answers.prompts, answers.ids, spent, self.asking.figures(answers))

    def loss(
        self, student: Transformer, hidden: Tensor, batch: PackedSequences, dtype: torch.dtype
    ) -> tuple[Tensor, Tokens]:
        """Summed KL(teacher, student) of the completion tokens."""
        return compare(self.teacher, student, hidden, batch, "forward", dtype)
