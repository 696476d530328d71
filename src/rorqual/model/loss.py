"""The training objective: next token, MTP (V3 eq. 24, 25) and the balance loss.

Losses are sums over target positions; whoever steps the optimizer divides by the number of targets
of the whole step, so accumulation and data parallelism give the same gradient as one large batch.
A target is masked (-100) where it belongs to another document than its input, or to padding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rorqual.model.moe import RoutingStatistics
from rorqual.model.transformer import Transformer

IGNORED = -100


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """A batch of packed rows.

    tokens [B, T+1] int64; document_idx [B, T+1] int32, the running number of the document in its
    row, -1 for padding; loss_mask [B, T+1] bool or None: which tokens may be targets (SFT).
    """

    tokens: Tensor
    document_idx: Tensor
    loss_mask: Tensor | None = None

    def targets(self, depth: int = 0) -> Tensor:
        """Ids that position i predicts at MTP depth `depth` (0: the next token). [B, T] int64"""
        ahead = depth + 1
        length = self.tokens.shape[1] - 1
        targets = torch.full_like(self.tokens[:, :length], IGNORED)  # [B, T]
        usable = length + 1 - ahead
        if usable <= 0:
            return targets
        wanted = self.tokens[:, ahead:]  # [B, T+1-ahead]
        same = self.document_idx[:, ahead:] == self.document_idx[:, :usable]
        same &= self.document_idx[:, :usable] >= 0
        if self.loss_mask is not None:
            same &= self.loss_mask[:, ahead:]
        targets[:, :usable] = torch.where(same, wanted, IGNORED)
        return targets

    def document_start(self) -> Tensor:
        """First position of the document each input position belongs to. [B, T] int32"""
        document = self.document_idx[:, :-1]  # [B, T]
        positions = torch.arange(document.shape[1], device=document.device).expand_as(document)
        is_first = torch.ones_like(document, dtype=torch.bool)
        is_first[:, 1:] = document[:, 1:] != document[:, :-1]
        starts = torch.where(is_first, positions, 0)
        return starts.cummax(dim=1).values.to(torch.int32)


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Summed losses of one micro-batch, before division and weights.

    main is a scalar fp32 sum over targets; mtp one such sum per MTP module; balance the sum over
    MoE layers of the unweighted balance loss, as DeepSeek's code adds it (0 in a dense model).
    """

    main: Tensor
    mtp: tuple[Tensor, ...]
    balance: Tensor
    routing: tuple[RoutingStatistics, ...]


def loss_terms(
    model: Transformer,
    batch: PackedTokens,
    *,
    document_mask: bool,
    with_mtp: bool,
    dtype: torch.dtype = torch.float32,
) -> LossTerms:
    """Forward a packed batch and sum its losses."""
    start = batch.document_start() if document_mask else None
    tokens = batch.tokens if with_mtp else batch.tokens[:, :-1]
    output = model(tokens, start, dtype=dtype, with_mtp=with_mtp)
    head = model.lm_head.weight.to(dtype)

    def summed(hidden: Tensor, targets: Tensor) -> Tensor:
        return model.ops.linear_cross_entropy(hidden.flatten(0, 1), head, targets.flatten())

    main = summed(output.hidden, batch.targets())
    mtp = tuple(
        summed(hidden, batch.targets(depth + 1)) for depth, hidden in enumerate(output.mtp_hidden)
    )
    losses = [statistics.balance_loss for statistics in output.routing]
    balance = torch.stack(losses).sum() if losses else torch.zeros((), device=main.device)
    return LossTerms(main, mtp, balance, output.routing)
