"""Output projection and cross entropy in plain torch: the specification of `fused_loss`.

The loss is a sum over targets: whoever steps the optimizer divides by the number of targets of the
whole step, so that accumulation and data parallelism give the gradient of one large batch.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from rorqual.errors import ConfigError, DataError

IGNORED_TARGET: Final = -100


def check_loss_shapes(hidden: Tensor, head: Tensor, targets: Tensor) -> None:
    """Raises ConfigError unless the three operands fit each other."""
    if hidden.ndim != 2 or head.ndim != 2 or hidden.shape[1] != head.shape[1]:
        raise ConfigError(
            f"linear_cross_entropy takes hidden [M, H] and head [V, H]; got {list(hidden.shape)} "
            f"and {list(head.shape)}"
        )
    if targets.shape != hidden.shape[:1]:
        raise ConfigError(
            f"linear_cross_entropy: targets {list(targets.shape)} must be [{hidden.shape[0]}], one "
            "per row of hidden"
        )


def check_targets(targets: Tensor, vocab_size: int) -> None:
    """Raises DataError on a target that is neither a token id nor the ignored one."""
    bad = ((targets < 0) & (targets != IGNORED_TARGET)) | (targets >= vocab_size)
    if bad.any():
        raise DataError(
            f"target {int(targets[bad][0])} is outside the vocabulary of {vocab_size} tokens; "
            f"tokenize the data with the model's tokenizer, or use {IGNORED_TARGET} to ignore it"
        )


def linear_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Summed cross entropy of the targets under softmax(hidden head^T).

    hidden [M, H], head [V, H], targets [M] int64 (-100: ignored) -> fp32 scalar
    """
    check_loss_shapes(hidden, head, targets)
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    logits = F.linear(hidden, head).to(dtype)  # [M, V] fp32
    return F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED_TARGET)
