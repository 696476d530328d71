"""The network of DeepSeek-V3: embedding, MLA + MoE layers, head, and MTP modules.

One definition for pretraining, reinforcement learning and the reference decode path. Parameter
names are the published checkpoint's, so `state_dict()` is the checkpoint but for the stacked
experts. MTP module k (from 0) is layer `num_hidden_layers + k` and shares embedding and head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rorqual.config import ModelConfig
from rorqual.kernels.ops import Ops, select_ops
from rorqual.kernels.twins_attention import Gap
from rorqual.model.attention import Attention, Sight
from rorqual.model.cache import LatentCache, Placement
from rorqual.model.layers import MLP, Linear, RMSNorm
from rorqual.model.moe import MoE, RoutingStatistics
from rorqual.model.rope import rope_tables


@dataclass(frozen=True, slots=True)
class Output:
    """What a training forward returns.

    hidden [B, T, H] is normed and ready for the head; mtp_hidden holds one such tensor per MTP
    module; routing holds one entry per MoE layer that ran, MTP layers included.
    """

    hidden: Tensor
    mtp_hidden: tuple[Tensor, ...]
    routing: tuple[RoutingStatistics, ...]


@dataclass(frozen=True, slots=True)
class Branches:
    """Rows in which several continuations stand behind one prefix and do not see each other.

    position [B, T] int64: a token's place in its own sequence; gap 2 x [B, T] int32: first and one
    past the last column of the other continuations between the prefix and its own.
    """

    position: Tensor
    gap: Gap


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual; what every layer is made of."""

    def __init__(self, config: ModelConfig, layer_idx: int, ops: Ops):
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(hidden, eps, ops)
        self.self_attn = Attention(config, layer_idx, ops)
        self.post_attention_layernorm = RMSNorm(hidden, eps, ops)
        self.mlp = (
            MoE(config, layer_idx, ops)
            if config.is_moe_layer(layer_idx)
            else MLP(hidden, config.intermediate_size, ops)
        )

    def transform(self, x: Tensor, sight: Sight) -> tuple[Tensor, RoutingStatistics | None]:
        """x [B, T, H] -> ([B, T, H], statistics of a MoE layer)"""
        x = x + self.self_attn(self.input_layernorm(x), sight)
        return self.feed_forward(x)

    def feed_forward(self, x: Tensor) -> tuple[Tensor, RoutingStatistics | None]:
        """The second half of a layer: x [B, T, H] -> ([B, T, H], statistics of a MoE layer)"""
        normed = self.post_attention_layernorm(x)
        if isinstance(self.mlp, MoE):
            out, statistics = self.mlp(normed)
            return x + out, statistics
        return x + self.mlp(normed), None


class DecoderLayer(Block):
    """A layer of the main model."""

    def forward(self, x: Tensor, sight: Sight) -> tuple[Tensor, RoutingStatistics | None]:
        """x [B, T, H] -> ([B, T, H], statistics of a MoE layer)"""
        return self.transform(x, sight)

    def forward_cached(
        self, x: Tensor, rotation: Tensor, placement: Placement, cache: LatentCache
    ) -> Tensor:
        """x [B, T, H], rotation [B, T, 1, R/2] -> [B, T, H], absorbed attention over the cache"""
        normed = self.input_layernorm(x)
        x = x + self.self_attn.forward_cached(normed, rotation, placement, cache)
        normed = self.post_attention_layernorm(x)
        if not isinstance(self.mlp, MoE):
            return x + self.mlp(normed)
        out, routing = self.mlp.mix(normed)
        if cache.routes is not None:
            cache.routes.append(routing.expert_idx.unflatten(0, x.shape[:2]))
        return x + out


class SharedHead(nn.Module):
    """The norm before the shared head in an MTP module (published name `shared_head.norm`)."""

    def __init__(self, config: ModelConfig, ops: Ops):
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, ops)


class MTPLayer(Block):
    """One multi-token-prediction module (V3 section 2.2, eq. 21-23).

    NOTE: the projection takes the embedding first and the hidden state second, as checkpoints do;
    the paper writes them the other way round.
    """

    def __init__(self, config: ModelConfig, layer_idx: int, ops: Ops):
        super().__init__(config, layer_idx, ops)
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.enorm = RMSNorm(hidden, eps, ops)
        self.hnorm = RMSNorm(hidden, eps, ops)
        self.eh_proj = Linear(2 * hidden, hidden, ops)
        self.shared_head = SharedHead(config, ops)

    def forward(
        self, embedding: Tensor, previous: Tensor, sight: Sight
    ) -> tuple[Tensor, Tensor, RoutingStatistics | None]:
        """One depth further.

        embedding [B, T, H] of the newest known token and the previous depth's state [B, T, H] ->
        this depth's state, the same normed for the shared head, statistics of a MoE layer.
        """
        joined = torch.cat((self.enorm(embedding), self.hnorm(previous)), dim=-1)  # [B, T, 2H]
        state, statistics = self.transform(self.eh_proj(joined), sight)  # eq. 21, 22
        return state, self.shared_head.norm(state), statistics  # eq. 23


class Embedding(nn.Module):
    """`embed_tokens`: ids to vectors in the compute dtype."""

    def __init__(self, vocab_size: int, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size))

    def forward(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """[B, T] int64 -> [B, T, H] dtype"""
        return F.embedding(tokens, self.weight).to(dtype)


class Trunk(nn.Module):
    """Everything below the head; published prefix `model.`"""

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: ModelConfig, ops: Ops):
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        num_main = config.num_hidden_layers
        layers: list[Block] = [DecoderLayer(config, i, ops) for i in range(num_main)]
        depths = range(config.num_nextn_predict_layers)
        layers += [MTPLayer(config, num_main + k, ops) for k in depths]
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, ops)
        cos, sin = rope_tables(config, config.max_position_embeddings)  # 2 x [P, R/2]
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)

    def forward(
        self,
        tokens: Tensor,
        document_start: Tensor | None,
        branches: Branches | None,
        dtype: torch.dtype,
        *,
        with_mtp: bool,
    ) -> Output:
        """tokens [B, T], or [B, T+1] with_mtp (the last column only feeds MTP)."""
        num_mtp = self.config.num_nextn_predict_layers if with_mtp else 0
        length = tokens.shape[1] - (1 if with_mtp else 0)
        sight = self._sight(length, document_start, branches)
        embedded = self.embed_tokens(tokens, dtype)  # [B, T(+1), H]
        x, routing = embedded[:, :length], []
        for layer in self.layers[: self.config.num_hidden_layers]:
            x, statistics = layer(x, sight)
            routing.append(statistics)
        hidden = self.norm(x)
        previous, mtp_hidden = hidden, []
        for depth, layer in enumerate(self.layers[self.config.num_hidden_layers :][:num_mtp]):
            shifted = _shift_left(embedded, depth + 1, length)  # Emb(t_{i+depth+1})
            previous, normed, statistics = layer(shifted, previous, sight)
            routing.append(statistics)
            mtp_hidden.append(normed)
        found = tuple(statistics for statistics in routing if statistics is not None)
        return Output(hidden, tuple(mtp_hidden), found)

    def _sight(
        self, length: int, document_start: Tensor | None, branches: Branches | None
    ) -> Sight:
        if branches is None:
            rope = (self.rope_cos[:length], self.rope_sin[:length])  # 2 x [T, R/2]
            return Sight(rope, document_start, None)
        rope = (self.rope_cos[branches.position], self.rope_sin[branches.position])
        return Sight(rope, document_start, branches.gap)

    def forward_cached(self, tokens: Tensor, cache: LatentCache, dtype: torch.dtype) -> Tensor:
        """Next tokens [B, T] of the cached sequences -> normed hidden [B, T, H]"""
        placement = cache.place(tokens.shape[1], dtype)
        capped = placement.positions.clamp(max=self.rope_cos.shape[0] - 1)  # [B, T]
        rotation = torch.complex(self.rope_cos[capped], self.rope_sin[capped])  # [B, T, R/2]
        x = self.embed_tokens(tokens, dtype)  # [B, T, H]
        for layer in self.layers[: self.config.num_hidden_layers]:
            assert isinstance(layer, DecoderLayer)
            x = layer.forward_cached(x, rotation[:, :, None], placement, cache)
        return self.norm(x)


def _shift_left(embedded: Tensor, amount: int, length: int) -> Tensor:
    """Columns amount .. amount+length of [B, T+1, H]; zeros past the end (their loss is masked)."""
    window = embedded[:, amount : amount + length]
    return F.pad(window, (0, 0, 0, length - window.shape[1]))


class Transformer(nn.Module):
    """DeepSeek-V3 / V2 as published: `model.*` and `lm_head.weight`.

    Parameters are created uninitialised; `initialize` or a checkpoint fills them. `ops` chooses the
    kernels (None: native where they run, else the torch twins). has_published_form: whether a model
    directory can hold it; a variant that is tried against it says False.
    """

    has_published_form = True

    def __init__(self, config: ModelConfig, ops: Ops | None = None):
        super().__init__()
        self.config = config
        self.ops = select_ops("auto") if ops is None else ops
        self.model = Trunk(config, self.ops)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, self.ops)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        tokens: Tensor,
        document_start: Tensor | None = None,
        branches: Branches | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        with_mtp: bool = False,
    ) -> Output:
        """Hidden states of every position, for the losses.

        tokens [B, T] int64; with_mtp: [B, T+1], whose last column is only looked up by the MTP
        modules. document_start [B, T] int32: the first position of the document each position
        belongs to (None: one document a row); branches: where documents share their beginning, not
        with_mtp. dtype: of the activations.
        """
        assert branches is None or not with_mtp, "MTP reads the next column, which may be another's"
        return self.model(tokens, document_start, branches, dtype, with_mtp=with_mtp)

    def logits(
        self,
        tokens: Tensor,
        document_start: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """tokens [B, T] -> logits [B, T, V] fp32, the naive form"""
        return self.lm_head(self(tokens, document_start, dtype=dtype).hidden).float()

    def decode(
        self,
        tokens: Tensor,
        cache: LatentCache,
        num_valid: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Feed the next tokens [B, T] through the cache; logits [B, T, V] fp32.

        num_valid [B]: how many of the T tokens are real in each row (None: all); the rest is
        padding on the right that later tokens overwrite.
        """
        hidden = self.model.forward_cached(tokens, cache, dtype)
        cache.advance(tokens.shape[1] if num_valid is None else num_valid)
        return self.lm_head(hidden).float()

    def decode_last(
        self, tokens: Tensor, cache: LatentCache, num_valid: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Feed prompts [B, T]; the logits [B, V] fp32 after the last real token of each row."""
        hidden = self.model.forward_cached(tokens, cache, dtype)
        cache.advance(num_valid)
        rows = torch.arange(len(tokens), device=tokens.device)
        return self.lm_head(hidden[rows, num_valid - 1]).float()
