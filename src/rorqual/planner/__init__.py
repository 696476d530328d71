"""What a model and a run cost, from published shapes alone: no torch, no network, no guessing."""

from rorqual.planner.budget import Gpu, find_gpu, gpu_hours, implied_mfu
from rorqual.planner.cache import (
    gqa_cache_bytes_per_token,
    mha_cache_bytes_per_token,
    mla_cache_bytes_per_token,
)
from rorqual.planner.claims import Claim, press_claims
from rorqual.planner.figures import Figure
from rorqual.planner.flops import (
    decode_flops_per_token,
    mtp_train_flops_per_token,
    prefill_flops_per_token,
    train_flops_per_token,
)
from rorqual.planner.memory import (
    ServingBytes,
    TrainingBytes,
    decode_tokens_per_second_limit,
    serving_bytes,
    train_tokens_per_second_limit,
    training_bytes,
)
from rorqual.planner.parameters import LayerParameters, ParameterCounts, count_parameters
from rorqual.planner.plan import make_plan

__all__ = [
    "Claim",
    "Figure",
    "Gpu",
    "LayerParameters",
    "ParameterCounts",
    "ServingBytes",
    "TrainingBytes",
    "count_parameters",
    "decode_flops_per_token",
    "decode_tokens_per_second_limit",
    "find_gpu",
    "gpu_hours",
    "gqa_cache_bytes_per_token",
    "implied_mfu",
    "make_plan",
    "mha_cache_bytes_per_token",
    "mla_cache_bytes_per_token",
    "mtp_train_flops_per_token",
    "prefill_flops_per_token",
    "press_claims",
    "serving_bytes",
    "train_flops_per_token",
    "train_tokens_per_second_limit",
    "training_bytes",
]
