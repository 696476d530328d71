"""The torch twin of the native runtime: its oracle, and the path for any other device.

Plain functions over the published tensors, one layer after the other; the paged cache is one
tensor [L, entries, G, W]. Computes in fp32 or bf16. NOTE: on a GPU it has not been run yet.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rorqual.config import DenseConfig, ModelConfig
from rorqual.engine.runner import ReadTensor
from rorqual.engine.torch_attention import Feeding, GroupedForm, LatentForm
from rorqual.engine.torch_experts import feed_forward, mix_experts
from rorqual.engine.torch_weights import (
    Experts,
    GroupedAttention,
    LatentAttention,
    Layer,
    load_weights,
)
from rorqual.errors import ConfigError
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch, StepOutput
from rorqual.kernels.twins_norm import rms_norm

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchRunner:
    """Implements engine/runner.py's Runner. precision: of weights, cache and arithmetic."""

    def __init__(
        self,
        config: ModelConfig | DenseConfig,
        read: ReadTensor,
        *,
        precision: Literal["fp32", "bf16"],
        num_blocks: int,
        device: str = "cpu",
    ):
        if precision not in _DTYPES:
            raise ConfigError(
                f"precision={precision!r} has no torch path; use one of {', '.join(_DTYPES)}"
            )
        self._config, self._num_blocks = config, num_blocks
        self._dtype, self._device = _DTYPES[precision], torch.device(device)
        self._form = (
            LatentForm(config, self._device)
            if isinstance(config, ModelConfig)
            else GroupedForm(config, self._device)
        )
        self._cache = torch.zeros(
            config.num_hidden_layers,
            num_blocks * BLOCK_TOKENS,
            self._form.cached_heads,
            self._form.width,
            dtype=self._dtype,
            device=self._device,
        )  # [L, entries, G, W]
        self.update(read)

    @property
    def config(self) -> ModelConfig | DenseConfig:
        """The network."""
        return self._config

    @property
    def num_blocks(self) -> int:
        """Physical cache blocks."""
        return self._num_blocks

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights."""
        return self._weights.num_bytes

    @property
    def cache_bytes_per_block(self) -> int:
        """Bytes that one block takes in all layers."""
        return self._cache.nbytes // self._num_blocks

    def update(self, read: ReadTensor) -> None:
        """Take new weights; what the cache holds is invalid afterwards."""
        self._weights = load_weights(self._config, read, self._dtype, self._device)

    def copy_block(self, source: int, target: int) -> None:
        """Copy a block of every layer."""
        blocks = self._cache.unflatten(1, (self._num_blocks, BLOCK_TOKENS))
        blocks[:, target] = blocks[:, source]

    def close(self) -> None:
        """Give back weights and cache."""
        del self._weights, self._cache

    @torch.inference_mode()
    def step(
        self,
        batch: StepBatch,
        *,
        want_hidden: bool = False,
        record_routes: bool = False,
        replay_routes: NDArray[np.int16] | None = None,
    ) -> StepOutput:
        """Feed the batch's tokens, append them to the cache, compute the wanted logits.

        replay_routes [T, MoE layers, K]; a row of -1 leaves that token to the router.
        """
        feeding = Feeding(batch, self._device)
        tokens = torch.from_numpy(batch.token_ids.astype(np.int64)).to(self._device)  # [T]
        x = F.embedding(tokens, self._weights.embedding)  # [T, H]
        replay = None
        if replay_routes is not None:
            replay = torch.from_numpy(replay_routes.astype(np.int64)).to(self._device)
        routes: list[Tensor] = []
        for layer_idx, layer in enumerate(self._weights.layers):
            x = self._layer(x, layer, self._cache[layer_idx], feeding, replay, routes)
        rows = torch.from_numpy(batch.output_rows.astype(np.int64)).to(self._device)  # [L]
        normed = rms_norm(x[rows], self._weights.norm, self._config.rms_norm_eps)  # [L, H]
        logits = F.linear(normed, self._weights.head).float()  # [L, V] fp32
        recorded = None
        if record_routes and routes:
            recorded = torch.stack(routes, dim=1).to(torch.int16).cpu().numpy()  # [T, layers, K]
        elif record_routes:
            recorded = np.zeros((len(tokens), 0, 0), dtype=np.int16)
        hidden = x.float().cpu().numpy() if want_hidden else None
        return StepOutput(logits.cpu().numpy(), hidden, recorded)

    def _layer(
        self,
        x: Tensor,
        layer: Layer,
        cache: Tensor,
        feeding: Feeding,
        replay: Tensor | None,
        routes: list[Tensor],
    ) -> Tensor:
        """x [T, H] -> [T, H]; a MoE layer appends its choices [T, K] to routes."""
        eps = self._config.rms_norm_eps
        normed = rms_norm(x, layer.attention_norm, eps)
        if isinstance(self._form, LatentForm):
            assert isinstance(layer.attention, LatentAttention)
            x = x + self._form(normed, layer.attention, cache, feeding)
        else:
            assert isinstance(layer.attention, GroupedAttention)
            x = x + self._form(normed, layer.attention, cache, feeding)
        normed = rms_norm(x, layer.feed_forward_norm, eps)
        if not isinstance(layer.feed_forward, Experts):
            return x + feed_forward(normed, layer.feed_forward)
        assert isinstance(self._config, ModelConfig)
        chosen = None if replay is None else replay[:, len(routes)]  # [T, K]
        out, chosen = mix_experts(normed, layer.feed_forward, self._config, chosen)
        routes.append(chosen)
        return x + out
