"""Initial weights: normal with std `initializer_range` (V3 section 4.2: 0.006), norms at one.

Every tensor draws from its own generator, seeded by the run's seed and its name, so a weight does
not depend on which other weights exist or on how many processes share the model.
"""

import hashlib

import torch

from rorqual.model.transformer import Transformer


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@torch.no_grad()
def initialize(model: Transformer, seed: int) -> None:
    """Fill all parameters in place: matrices N(0, initializer_range), norms 1, biases 0."""
    std = model.config.initializer_range
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0)
            continue
        values = torch.empty(parameter.shape, dtype=torch.float32)
        values.normal_(0.0, std, generator=_generator(seed, name))
        parameter.copy_(values)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.zero_()
