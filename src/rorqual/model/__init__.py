"""DeepSeek-V3's architecture as the paper writes it: MLA, DeepSeekMoE, MTP (torch)."""

from rorqual.model.cache import LatentCache
from rorqual.model.generate import Sampling, generate, generate_stream, pick_token
from rorqual.model.initialize import initialize
from rorqual.model.loss import IGNORED, LossTerms, PackedTokens, loss_terms
from rorqual.model.moe import MoE, RoutingStatistics
from rorqual.model.router import Router, Routing
from rorqual.model.sample import Completion, sample_completions
from rorqual.model.transformer import Branches, DecoderLayer, MTPLayer, Output, Transformer

__all__ = [
    "IGNORED",
    "Branches",
    "Completion",
    "DecoderLayer",
    "LatentCache",
    "LossTerms",
    "MTPLayer",
    "MoE",
    "Output",
    "PackedTokens",
    "Router",
    "Routing",
    "RoutingStatistics",
    "Sampling",
    "Transformer",
    "generate",
    "generate_stream",
    "initialize",
    "loss_terms",
    "pick_token",
    "sample_completions",
]
