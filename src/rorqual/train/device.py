"""How this machine computes: threads and the dtype of activations."""

import torch

from rorqual.config import TrainConfig


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has bf16 matrix instructions (else fp32 is the faster honest choice)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def choose_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The dtype of activations that `[train] dtype` asks for on this device."""
    if config.dtype == "auto":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
