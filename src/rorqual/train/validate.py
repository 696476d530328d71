"""Held-out quality in bits per byte: comparable between tokenizers, unlike loss per token."""

import math
from collections.abc import Iterable

import numpy as np
import torch

from rorqual.model import IGNORED, PackedTokens, Transformer
from rorqual.parallel import Processes


@torch.no_grad()
def bits_per_byte(
    model: Transformer,
    batches: Iterable[PackedTokens],
    token_num_bytes: np.ndarray,
    processes: Processes,
    *,
    document_mask: bool,
    dtype: torch.dtype,
) -> float:
    """Sum of -log2 p over the targets, divided by the UTF-8 bytes they stand for.

    token_num_bytes [V] int32; special tokens stand for 0 bytes, their loss still counts. Every
    process must pass the same batches. NaN when there is no byte at all.
    """
    sizes = torch.from_numpy(token_num_bytes.astype(np.int64)).to(processes.device)  # [V]
    nats, num_bytes = 0.0, 0
    for batch in batches:
        targets = batch.targets()  # [B, T]
        start = batch.document_start() if document_mask else None
        hidden = model(batch.tokens[:, :-1], start, dtype=dtype).hidden
        head = model.lm_head.weight.to(dtype)
        nats += float(model.ops.linear_cross_entropy(hidden.flatten(0, 1), head, targets.flatten()))
        num_bytes += int(sizes[targets[targets != IGNORED]].sum())
    return nats / math.log(2) / num_bytes if num_bytes else math.nan
