"""The latent KV cache: per token and layer kv_lora_rank + qk_rope_head_dim numbers (V2 sec. 2.1).

Rows may have different lengths: a prompt shorter than its batch's longest is padded on the right,
and its padding is overwritten by the tokens that follow.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rorqual.config import ModelConfig
from rorqual.errors import CapacityError


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a forward's tokens go and what they see: the same for every layer.

    positions [B, T]; bias [B, T, S], 0 where a token may look and -inf elsewhere; num_slots is S,
    the longest row with its new tokens.
    """

    positions: Tensor
    bias: Tensor
    num_slots: int


class LatentCache:
    """Latents of `batch_size` sequences of up to `max_tokens` tokens each.

    `lengths` [B] counts the valid tokens of each row. A forward asks once where its tokens go
    (`place`), every layer writes them there (`append`), and `advance` counts them at the end.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        max_tokens: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        width = config.kv_lora_rank + config.qk_rope_head_dim
        num_layers = config.num_hidden_layers
        self.latents = torch.zeros(
            num_layers, batch_size, max_tokens, width, dtype=dtype, device=device
        )  # [L, B, S, C+R]
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=device)
        # Where a forward leaves its MoE layers' choices, [B, T, K] each, if it is a list.
        self.routes: list[Tensor] | None = None

    @property
    def max_tokens(self) -> int:
        """Tokens that fit per row."""
        return self.latents.shape[2]

    def place(self, num_tokens: int, dtype: torch.dtype) -> Placement:
        """The next `num_tokens` slots of each row; dtype: of the bias."""
        num_slots = int(self.lengths.max()) + num_tokens
        if num_slots > self.max_tokens:
            raise CapacityError(
                f"sequence of {num_slots} tokens exceeds the cache's {self.max_tokens}; "
                "ask for fewer new tokens or a longer context"
            )
        steps = torch.arange(num_slots, device=self.lengths.device)
        positions = self.lengths[:, None] + steps[:num_tokens]  # [B, T]
        unseen = steps > positions[..., None]  # [B, T, S]
        bias = torch.zeros(unseen.shape, dtype=dtype, device=unseen.device)
        return Placement(positions, bias.masked_fill_(unseen, -torch.inf), num_slots)

    def append(self, layer_idx: int, latent: Tensor, placement: Placement) -> Tensor:
        """Write latent [B, T, C+R] where it belongs; the layer's rows. [B, S, C+R]"""
        rows = self.latents[layer_idx]  # [B, max_tokens, C+R]
        index = placement.positions[..., None].expand(latent.shape)
        rows.scatter_(1, index, latent.to(rows.dtype))
        return rows[:, : placement.num_slots]

    def keep_rows(self, rows: Tensor) -> None:
        """Keep these rows only, in this order: indices (a row may come twice) or a mask [B]."""
        self.latents, self.lengths = self.latents[:, rows], self.lengths[rows]

    def advance(self, num_tokens: Tensor | int) -> None:
        """Count `num_tokens` (one number, or one per row [B]) more tokens as valid."""
        self.lengths = self.lengths + num_tokens
