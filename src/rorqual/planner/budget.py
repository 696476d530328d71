"""GPU time and money of a training run.

hours = tokens * FLOPs per token / (peak * MFU * 3600). Peaks are dense BF16 as the vendors print
them (half of the figure with sparsity). The same convention must hold on both sides: an MFU
measured with causal FLOPs goes with causal FLOPs per token.
"""

import difflib
from dataclasses import dataclass

from rorqual.errors import ConfigError

_SECONDS_PER_HOUR = 3600.0
HOURS_PER_DAY = 24.0


@dataclass(frozen=True)
class Gpu:
    """An accelerator by its vendor's own figures."""

    name: str
    bf16_flops_per_second: float
    memory_bytes: float
    source: str


_GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A100", 312e12, 80e9, "NVIDIA A100 80GB SXM datasheet"),
        Gpu("A800", 312e12, 80e9, "as A100; only NVLink is cut"),
        Gpu("H100", 989.4e12, 80e9, "NVIDIA H100 SXM datasheet, 1,979 with sparsity"),
        Gpu("H800", 989.4e12, 80e9, "as H100, only NVLink is cut; 432 / 43.73 % in 2505.09343"),
        Gpu("H200", 989.4e12, 141e9, "NVIDIA H200 SXM datasheet, 1,979 with sparsity"),
        Gpu("B200", 2250e12, 180e9, "NVIDIA HGX B200 datasheet, 4,500 with sparsity"),
        Gpu("L40S", 362.05e12, 48e9, "NVIDIA L40S datasheet"),
        Gpu("RTX4090", 165.2e12, 24e9, "NVIDIA Ada whitepaper, FP32 accumulate"),
        Gpu("MI300X", 1307.4e12, 192e9, "AMD Instinct MI300X datasheet"),
    )
}


def find_gpu(name: str) -> Gpu:
    """The table's entry; an unknown GPU is a ConfigError, never a guess."""
    gpu = _GPUS.get(name.upper().replace(" ", "").replace("-", ""))
    if gpu is None:
        nearest = difflib.get_close_matches(name.upper(), list(_GPUS), n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise ConfigError(
            f"plan.gpu={name!r} is not in the GPU table; {hint}choose one of {', '.join(_GPUS)}"
        )
    return gpu


def gpu_hours(train_tokens: float, flops_per_token: float, gpu: Gpu, mfu: float) -> float:
    """GPU-hours to push `train_tokens` through at a share `mfu` of the peak."""
    rate = gpu.bf16_flops_per_second * mfu
    return train_tokens * flops_per_token / rate / _SECONDS_PER_HOUR


def implied_mfu(tokens_per_gpu_hour: float, flops_per_token: float, gpu: Gpu) -> float:
    """The share of peak that a published throughput amounts to."""
    rate = tokens_per_gpu_hour * flops_per_token / _SECONDS_PER_HOUR
    return rate / gpu.bf16_flops_per_second
