"""Figures of a run: GPU-hours and money of training, memory, and what a CPU can do."""

import math

from rorqual.config import ModelConfig
from rorqual.config.plan import PlanConfig, PublishedFigure, TrainingStage
from rorqual.planner.budget import (
    HOURS_PER_DAY,
    Gpu,
    find_gpu,
    gpu_hours,
    implied_mfu,
)
from rorqual.planner.figures import Figure, format_value
from rorqual.planner.flops import train_flops_per_token
from rorqual.planner.memory import (
    decode_tokens_per_second_limit,
    serving_bytes,
    train_tokens_per_second_limit,
    training_bytes,
)
from rorqual.planner.parameters import ParameterCounts

_TRILLION = 1e12
# Absent from a plan that lacks the MFU, the throughput or the bill that they follow from.
CONDITIONAL_KEYS = frozenset(
    {
        "gpu_hours_per_trillion",
        "gpu_hours_per_trillion_noncausal",
        "days_per_trillion",
        "mfu_causal",
        "mfu_noncausal",
        "gpu_hours_published",
        "gpu_hours_recomputed",
        "training_usd_published",
        "training_usd_recomputed",
    }
)


def throughput_figures(
    config: ModelConfig, counts: ParameterCounts, plan: PlanConfig
) -> list[Figure]:
    """GPU time per trillion tokens from the MFU, and the MFU from a published throughput."""
    gpu = find_gpu(plan.gpu)
    section, source = f"Training on {gpu.name}", _peak(gpu)
    causal = train_flops_per_token(config, counts, plan.sequence_tokens, causal=True)
    square = train_flops_per_token(config, counts, plan.sequence_tokens, causal=False)
    figures: list[Figure] = []
    formula = "1e12*FLOPs / (peak*MFU*3600)"
    if plan.mfu is not None:
        key, hours = "gpu_hours_per_trillion", gpu_hours(_TRILLION, causal, gpu, plan.mfu)
        label = f"1T tokens at {100 * plan.mfu:.2f} % MFU, causal"
        figures.append(Figure(section, key, label, hours, "hours", formula, source))
        days = hours / plan.num_gpus / HOURS_PER_DAY
        label = f"1T tokens on {plan.num_gpus:,} GPUs"
        key = "days_per_trillion"
        figures.append(Figure(section, key, label, days, "days", "hours / GPUs / 24", source))
    if plan.mfu_noncausal is not None:
        key = "gpu_hours_per_trillion_noncausal"
        label = f"1T tokens at {100 * plan.mfu_noncausal:.2f} % MFU, full square"
        hours = gpu_hours(_TRILLION, square, gpu, plan.mfu_noncausal)
        figures.append(Figure(section, key, label, hours, "hours", formula, source))
    rate, origin = _published_rate(plan)
    if rate is not None:
        formula = f"FLOPs*tokens / (GPU-hours*3600*peak), {origin}"
        for key, label, flops in (
            ("mfu_causal", "MFU, causal", causal),
            ("mfu_noncausal", "MFU, full square", square),
        ):
            share = implied_mfu(rate, flops, gpu)
            figures.append(Figure(section, key, label, share, "share", formula, source))
    return figures


def bill_figures(config: ModelConfig, counts: ParameterCounts, plan: PlanConfig) -> list[Figure]:
    """The training bill, stage by stage: recomputed, and summed as published."""
    section, figures = "Training bill", list[Figure]()
    source = _peak(find_gpu(plan.gpu))
    recomputed = 0.0
    for stage in plan.stages:
        hours = stage_gpu_hours(stage, config, counts, plan)
        recomputed += hours if hours is not None else stage.gpu_hours or 0.0
        if hours is None:
            continue
        published = None
        if stage.gpu_hours is not None:
            published = PublishedFigure(value=stage.gpu_hours, source=stage.source)
        label, key = stage.name.replace("_", " "), f"gpu_hours_{stage.name}"
        formula = "tokens*FLOPs / (peak*MFU*3600)"
        figures.append(Figure(section, key, label, hours, "hours", formula, source, published))
    total, price = published_gpu_hours(plan), f"${plan.gpu_hour_usd:g}/GPU-hour"
    rows: list[tuple[str, str, float, str]] = []
    if total is not None:
        rows.append(("published", "sum of published rows", total, "pretraining + later stages"))
    if plan.mfu is not None and plan.stages:
        formula = "the rows above; published where tokens are not"
        rows.append(("recomputed", "sum from first principles", recomputed, formula))
    for name, label, hours, formula in rows:
        key = f"gpu_hours_{name}"
        figures.append(Figure(section, key, label, hours, "hours", formula, source))
        usd, key = hours * plan.gpu_hour_usd, f"training_usd_{name}"
        label, formula = f"{label}, in money", "GPU-hours * price"
        figures.append(Figure(section, key, label, usd, "usd", formula, price))
    return figures


def stage_gpu_hours(
    stage: TrainingStage, config: ModelConfig, counts: ParameterCounts, plan: PlanConfig
) -> float | None:
    """GPU-hours of a stage from first principles; None where tokens or MFU are unpublished."""
    if plan.mfu is None or not stage.phases:
        return None
    gpu, hours = find_gpu(plan.gpu), 0.0
    for phase in stage.phases:
        flops = train_flops_per_token(config, counts, phase.sequence_tokens, causal=True)
        hours += gpu_hours(phase.train_tokens, flops, gpu, plan.mfu)
    return hours


def published_gpu_hours(plan: PlanConfig) -> float | None:
    """Sum of the bill's published rows; None while there is none or one is missing."""
    hours = [stage.gpu_hours for stage in plan.stages if stage.gpu_hours is not None]
    return sum(hours) if hours and len(hours) == len(plan.stages) else None


def memory_figures(config: ModelConfig, counts: ParameterCounts, plan: PlanConfig) -> list[Figure]:
    """What training and serving hold, and how many GPUs that takes at the least."""
    gpu = find_gpu(plan.gpu)
    train = training_bytes(
        config,
        counts,
        micro_batch_tokens=plan.micro_batch_tokens,
        adam_moment_bytes=plan.adam_moment_bytes,
    )
    serve = serving_bytes(
        config,
        counts,
        context_tokens=plan.serve_context_tokens,
        num_sequences=plan.serve_sequences,
        weight_bytes=plan.weight_bytes,
        cache_element_bytes=plan.cache_element_bytes,
    )
    section = "Training memory, unsharded"
    report, estimate = "V3 report 3.3", "estimate: saved tensors, no recomputation"
    batch = f"{plan.serve_sequences} x {plan.serve_context_tokens} tokens"
    moments = f"2*weights*{plan.adam_moment_bytes}"
    rows = [
        ("weights", "weights, BF16", train.weights, "2 per weight, MTP included", report),
        ("master", "master weights, FP32", train.master, "4 per weight", report),
        ("gradients", "gradients, FP32", train.gradients, "4 per weight", report),
        ("moments", "Adam moments", train.moments, moments, report),
        (
            "activations",
            f"activations of {plan.micro_batch_tokens} tokens",
            train.activations,
            "tokens*(2*saved + 6*V per head)",
            estimate,
        ),
        ("total", "together", train.total, "sum", ""),
    ]
    figures = [
        Figure(section, f"train_bytes_{key}", label, value, "bytes", formula, source)
        for key, label, value, formula, source in rows
    ]
    section, source = f"Serving memory, {batch}", "DeepSeek-V2 2.1.2"
    shapes = "weight shapes"
    weight = f"total*{plan.weight_bytes:g}"
    gpus = math.ceil(serve.total / gpu.memory_bytes)
    held = f"bytes / {gpu.memory_bytes / 1e9:g} GB, rounded up"
    return [
        *figures,
        Figure(section, "serve_bytes_weights", "weights", serve.weights, "bytes", weight, shapes),
        Figure(
            section,
            "serve_bytes_cache",
            "cache",
            serve.cache,
            "bytes",
            "cache per token * tokens",
            source,
        ),
        Figure(section, "serve_bytes_total", "together", serve.total, "bytes", "sum", ""),
        Figure(
            section,
            "serve_gpus",
            f"{gpu.name} GPUs that hold it, at least",
            gpus,
            "gpus",
            held,
            gpu.source,
        ),
    ]


def cpu_figures(config: ModelConfig, counts: ParameterCounts, plan: PlanConfig) -> list[Figure]:
    """Upper limits on a machine of given bandwidth and arithmetic."""
    section = "Limits of a CPU"
    batch = f"{plan.serve_sequences} x {plan.serve_context_tokens} tokens"
    decode = decode_tokens_per_second_limit(
        config,
        counts,
        bytes_per_second=plan.cpu_bytes_per_second,
        context_tokens=plan.serve_context_tokens,
        num_sequences=plan.serve_sequences,
        weight_bytes=plan.weight_bytes,
        cache_element_bytes=plan.cache_element_bytes,
    )
    flops = train_flops_per_token(config, counts, plan.sequence_tokens, causal=True)
    train = train_tokens_per_second_limit(flops, plan.cpu_flops_per_second)
    label = f"decode, {batch} cached"
    bandwidth = f"{plan.cpu_bytes_per_second / 1e9:g} GB/s: plan.cpu_bytes_per_second"
    compute = f"{plan.cpu_flops_per_second / 1e9:g} GFLOP/s: plan.cpu_flops_per_second"
    touched = "bandwidth / (touched weights + cache)"
    per_token = "FLOP/s / FLOPs per token"
    return [
        Figure(section, "cpu_decode", label, decode, "tokens/s", touched, bandwidth),
        Figure(section, "cpu_train", "training", train, "tokens/s", per_token, compute),
    ]


def _peak(gpu: Gpu) -> str:
    return f"{gpu.bf16_flops_per_second / 1e12:g} TFLOP/s dense BF16: {gpu.source}"


def _published_rate(plan: PlanConfig) -> tuple[float | None, str]:
    """Tokens per GPU-hour that somebody measured, and what it was taken from."""
    if plan.measured_tokens_per_day is not None:
        hours = plan.num_gpus * HOURS_PER_DAY
        return (
            plan.measured_tokens_per_day / hours,
            f"published {plan.measured_tokens_per_day / 1e9:g}B tokens/day",
        )
    per_trillion = plan.published.get("gpu_hours_per_trillion")
    if per_trillion is not None:
        hours_text = format_value(per_trillion.value, "hours")
        return _TRILLION / per_trillion.value, f"published {hours_text} per 1T"
    return None, ""
