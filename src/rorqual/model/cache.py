"""The latent KV cache: per token and layer kv_lora_rank + qk_rope_head_dim numbers (V2 sec. 2.1).

Rows may have different lengths: a prompt shorter than its batch's longest is padded on the right,
and its padding is overwritten by the tokens that follow.
"""

import torch
from torch import Tensor

from rorqual.config import ModelConfig
from rorqual.errors import CapacityError


class LatentCache:
    """Latents of `batch_size` sequences of up to `max_tokens` tokens each.

    `lengths` [B] counts the valid tokens of each row; `append` writes behind them and `advance`
    moves them, once per forward, after every layer has written.
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

    @property
    def max_tokens(self) -> int:
        """Tokens that fit per row."""
        return self.latents.shape[2]

    def positions(self, num_tokens: int) -> Tensor:
        """Positions of the next `num_tokens` tokens of each row. [B, T]"""
        steps = torch.arange(num_tokens, device=self.lengths.device)
        return self.lengths[:, None] + steps  # [B, T]

    def append(self, layer_idx: int, latent: Tensor) -> Tensor:
        """Write latent [B, T, C+R] behind each row's tokens; the layer's rows. [B, S, C+R]"""
        num_tokens = latent.shape[1]
        longest = int(self.lengths.max()) + num_tokens
        if longest > self.max_tokens:
            raise CapacityError(
                f"sequence of {longest} tokens exceeds the cache's {self.max_tokens}; "
                "ask for fewer new tokens or a longer context"
            )
        rows = self.latents[layer_idx]  # [B, S, C+R]
        index = self.positions(num_tokens)[..., None].expand(-1, -1, latent.shape[-1])
        rows.scatter_(1, index, latent.to(rows.dtype))
        return rows[:, :longest]

    def advance(self, num_tokens: Tensor | int) -> None:
        """Count `num_tokens` (one number, or one per row [B]) more tokens as valid."""
        self.lengths = self.lengths + num_tokens
