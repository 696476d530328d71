"""Figures that follow from a model's shape alone: parameters, compute and cache per token."""

from rorqual.config import ModelConfig
from rorqual.config.plan import PlanConfig, PublishedFigure
from rorqual.planner.cache import (
    gqa_cache_bytes_per_token,
    mha_cache_bytes_per_token,
    mla_cache_bytes_per_token,
)
from rorqual.planner.figures import Figure
from rorqual.planner.flops import (
    LLAMA31_405B,
    QWEN25_72B,
    decode_flops_per_token,
    dense_train_flops_per_token,
    mtp_train_flops_per_token,
    prefill_flops_per_token,
    train_flops_per_token,
)
from rorqual.planner.parameters import ParameterCounts

_HARDWARE_PAPER = "arXiv 2505.09343"
# NOTE: 394 is below 6 x the weights of Qwen2.5-72B (429); no convention gives it.
_PUBLISHED_FLOPS = {QWEN25_72B: 394e9, LLAMA31_405B: 2448e9}
_PUBLISHED_CACHE_BYTES = {QWEN25_72B: 327_680, LLAMA31_405B: 516_096}
_COMPARISON_TOKENS = 4096


def parameter_figures(config: ModelConfig, counts: ParameterCounts) -> list[Figure]:
    """Total, active by three conventions, the parts, and the MTP modules."""
    router = counts.router + counts.selection_bias
    rows = [
        ("total", "total, main model", counts.total, "sum of the parts below"),
        ("active", "active per token, with head", counts.active_with_head, "K of E experts"),
        (
            "active_with_embedding",
            "active, with embedding and head",
            counts.active_with_embeddings,
            "the above + V*H",
        ),
        (
            "active_without_embedding",
            "active, with neither",
            counts.active_without_embeddings,
            "layers and final norm",
        ),
        ("embedding", "- embedding", counts.embedding, "V*H"),
        ("head", "- head", counts.head, "V*H; 0 if tied"),
        ("attention", "- attention", counts.attention, "q_a + q_b + kv_a + kv_b + o"),
        ("dense", "- dense feed-forward", counts.dense, "3*H*intermediate per layer"),
        ("routed", "- routed experts", counts.routed_experts, "3*H*F*E per layer"),
        ("shared", "- shared experts", counts.shared_experts, "3*H*F*n_shared per layer"),
        ("router", "- router and bias", router, "E*H + E (bias: a buffer in transformers)"),
        ("norms", "- norms", counts.norms + counts.final_norm, "2H + Q + C per layer, final H"),
    ]
    if config.num_nextn_predict_layers:
        with_copies = counts.mtp + counts.mtp_shared
        rows += [
            ("mtp", "MTP modules, own weights", counts.mtp, "block + 2*H*H + 3H per module"),
            ("mtp_with_copies", "MTP, with embedding and head", with_copies, "own + 2*V*H"),
            ("checkpoint", "in the published files", counts.checkpoint, "main + MTP with copies"),
        ]
    source = "weight shapes: V3 report 2.1, README_WEIGHTS"
    return [
        Figure("Parameters", f"parameters_{key}", label, value, "count", formula, source)
        for key, label, value, formula in rows
    ]


def compute_figures(config: ModelConfig, counts: ParameterCounts, plan: PlanConfig) -> list[Figure]:
    """FLOPs per token in training and inference, and two dense models beside them."""
    length, context = plan.sequence_tokens, plan.serve_context_tokens
    rows = [
        (
            "train_flops_per_token",
            f"training, causal, {length} tokens",
            train_flops_per_token(config, counts, length, causal=True),
            "6*active + 3*S*N*(qk + v)*layers",
        ),
        (
            "train_flops_per_token_noncausal",
            "training, full attention square",
            train_flops_per_token(config, counts, length, causal=False),
            "6*active + 6*S*N*(qk + v)*layers",
        ),
        (
            "prefill_flops_per_token",
            f"prefill of {context} tokens",
            prefill_flops_per_token(config, counts, context),
            "2*active + S*N*(qk + v)*layers",
        ),
        (
            "decode_flops_per_token",
            f"decode after {context} tokens",
            decode_flops_per_token(config, counts, context),
            "2*active + 2*S*N*(2C + R)*layers",
        ),
    ]
    if config.num_nextn_predict_layers:
        added = mtp_train_flops_per_token(config, counts, length)
        formula = "6*(active block + 2*H*H + head) + attention"
        rows.append(("train_flops_per_token_mtp", "training, added by MTP", added, formula))
    section, source = "Compute per token", "6N of arXiv 2001.08361; MLA of DeepSeek-V2 2.1.2"
    figures = [Figure(section, key, label, value, "flops", formula, source)
               for key, label, value, formula in rows]  # fmt: skip
    for shape, flops in _PUBLISHED_FLOPS.items():
        figures.append(
            Figure(
                section,
                f"train_flops_{shape.key}",
                f"beside it: {shape.name}, {_COMPARISON_TOKENS} tokens",
                dense_train_flops_per_token(shape, _COMPARISON_TOKENS),
                "flops",
                "6*weights + 3*S*N*2D*layers",
                shape.source,
                PublishedFigure(value=flops, source=f"{_HARDWARE_PAPER}, table 2"),
            )
        )
    return figures


def cache_figures(config: ModelConfig, plan: PlanConfig) -> list[Figure]:
    """Cache bytes per token: this model, its heads uncompressed, and two GQA models."""
    section, element = "Cache per token", plan.cache_element_bytes
    figures = [
        Figure(
            section,
            "cache_bytes_per_token",
            "MLA latent and rope key",
            mla_cache_bytes_per_token(config, element),
            "bytes",
            f"(C + R)*layers*{element:g}",
            "DeepSeek-V2 2.1.2",
        ),
        Figure(
            section,
            "cache_bytes_per_token_mha",
            "the same heads without MLA",
            mha_cache_bytes_per_token(config, element),
            "bytes",
            f"N*(qk + v)*layers*{element:g}",
            "DeepSeek-V2 2.1.2",
        ),
    ]
    for shape, cache_bytes in _PUBLISHED_CACHE_BYTES.items():
        figures.append(
            Figure(
                section,
                f"cache_bytes_{shape.key}",
                f"beside it: {shape.name}, BF16",
                gqa_cache_bytes_per_token(shape),
                "bytes",
                "2*kv_heads*D*layers*2",
                shape.source,
                PublishedFigure(value=cache_bytes, source=f"{_HARDWARE_PAPER}, table 1"),
            )
        )
    return figures
