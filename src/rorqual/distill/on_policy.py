"""On-policy distillation: the student writes, the teacher says per token how it would go on.

The loss is KL(student, teacher) after every prefix that the student sampled (GKD, arXiv 2306.13649,
eq. 4 with lambda 1 and reverse KL; DeepSeek-V4 merges its experts so, over the full vocabulary).

NOTE: how this relates to the per-token policy gradient that Thinking Machines describe. There a
sampled token y earns the advantage A = log q(y) - log p(y) (q teacher, p student), and the loss is
-A log p(y): a one-sample estimate. Its mean over y ~ p is exactly the gradient taken here,

    E_y [-A grad log p(y)] = sum_y p(y) (log p(y) - log q(y)) grad log p(y) = grad KL(p, q),

since E_y [grad log p(y)] = 0; the sum over the vocabulary replaces the draw and takes its variance
away, for one product with the teacher's head. A sampled y counts only as a prefix of what follows.
Both forms leave out that a token also changes which prefixes come after it (GKD does not
differentiate through sampling; their discount is 0). At the teacher's own weights it is 0.
"""

import torch
from torch import Tensor

from rorqual.distill.asking import Asking
from rorqual.distill.source import Drawn, Source
from rorqual.distill.teacher import compare
from rorqual.model import Transformer
from rorqual.rl.costs import Tokens
from rorqual.rl.packing import PackedSequences


class OnPolicySource(Source):
    """Fresh samples of the student for every step, at temperature 1."""

    measures_kl = True

    def __init__(self, teacher: Transformer, asking: Asking):
        self.teacher, self.asking = teacher, asking

    def draw(self, student: Transformer, step: int, dtype: torch.dtype) -> Drawn:
        """The student's answers to the step's problems."""
        answers = self.asking.ask(student, step, temperature=1.0, dtype=dtype)
        spent = Tokens(student_sampling=answers.num_forward_tokens)
        return Drawn(answers.prompts, answers.ids, spent, self.asking.figures(answers))

    def loss(
        self, student: Transformer, hidden: Tensor, batch: PackedSequences, dtype: torch.dtype
    ) -> tuple[Tensor, Tokens]:
        """Summed KL(student, teacher) of the completion tokens."""
        return compare(self.teacher, student, hidden, batch, "reverse", dtype)
