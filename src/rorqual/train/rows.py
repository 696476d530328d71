"""Rows of the loader as tensors, and which of their tokens teach."""

import numpy as np
import torch

from rorqual.data import Batch
from rorqual.errors import DataError
from rorqual.model import PackedTokens


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
