"""From weights to a running engine: which runner, how much memory, how many cache blocks.

Memory is counted before anything is read: a model that does not fit is refused while the machine
still answers.
"""

import importlib
import importlib.util
import json
import math
import os
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rorqual.checkpoint.models import user_cache
from rorqual.checkpoint.weights import Weights
from rorqual.config import DenseConfig, ModelConfig
from rorqual.config.engine import EngineConfig
from rorqual.engine.blocks import blocks_for
from rorqual.engine.runner import Runner
from rorqual.errors import CapacityError, CheckpointError
from rorqual.kernels.library import native_library
from rorqual.kernels.memory import FreeMemory, free_memory
from rorqual.kernels.packed_cache import PackedCache
from rorqual.kernels.runtime import Runtime
from rorqual.kernels.runtime_layout import Precision
from rorqual.kernels.step import BLOCK_TOKENS
from rorqual.tokenizer import Tokenizer
from rorqual.units import format_bytes

# Scales of the quantised forms included.
_BYTES_PER_WEIGHT: Final[dict[Precision, float]] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "int8": 1.05,
    "int4": 0.6,
}
_WORKSPACE_BYTES: Final = 256 << 20  # activations, logits, the interpreter itself


class Source(Protocol):
    """Where weights come from: checkpoint.open_weights, or a trainer's own parameters."""

    @property
    def config(self) -> ModelConfig | DenseConfig:
        """The network."""
        ...

    def names(self) -> list[str]:
        """Every tensor."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        ...

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor in published orientation."""
        ...

    def generation(self) -> dict[str, Any]:
        """What generation_config.json recommends."""
        ...


def open_runner(source: Source, config: EngineConfig) -> Runner:
    """A runner with its weights loaded; CapacityError if weights or cache do not fit."""
    library = native_library() if config.device == "cpu" else None
    precision = config.precision
    if precision == "auto":
        precision = "fp32" if library is None and config.device == "cpu" else "bf16"
    num_blocks = plan_blocks(source, config, precision, available(config.device))
    if library is not None:
        return Runtime(
            source.config,
            source.read,
            precision=precision,
            num_blocks=num_blocks,
            library=library.using(num_threads=config.num_threads),
            max_batch_tokens=config.max_batch_tokens + config.max_num_seqs,
            packed=packed_cache(source, config),
        )
    if importlib.util.find_spec("torch") is None:
        raise CapacityError(
            "there are neither native kernels nor PyTorch to compute with; install a C++ compiler "
            "and Rorqual again, or PyTorch"
        )
    twin = importlib.import_module("rorqual.engine.torch_runner")
    return twin.TorchRunner(
        source.config,
        source.read,
        precision=precision,
        num_blocks=num_blocks,
        device=config.device,
    )


def plan_blocks(
    source: Source, config: EngineConfig, precision: Precision, free: FreeMemory
) -> int:
    """Cache blocks for a model, from the memory that is free beside its weights."""
    sizes = [math.prod(source.shape(name)) for name in source.names()]
    needed = loading_bytes(sizes, precision)
    free_bytes = free.num_bytes
    if needed > free_bytes:
        fitting = [one for one in _BYTES_PER_WEIGHT if loading_bytes(sizes, one) <= free_bytes]
        fix = f"set precision to {fitting[0]}" if fitting else "choose a smaller model"
        raise CapacityError(
            f"the weights in {precision} need {format_bytes(needed)}, but "
            f"{format_bytes(free_bytes)} of memory are free ({free.limit}); {fix}, or close other "
            "programs"
        )
    left = free_bytes - needed
    cache_bytes = config.max_cache_bytes or int(left * config.cache_share)
    per_block = block_bytes(source.config, precision)
    context = min(
        config.max_model_len or source.config.max_position_embeddings,
        source.config.max_position_embeddings,
    )
    useful = config.max_num_seqs * blocks_for(context)
    num_blocks = min(cache_bytes // per_block, useful)
    if num_blocks < 1:
        raise CapacityError(
            f"a cache of {format_bytes(cache_bytes)} holds no block of {format_bytes(per_block)} "
            f"({BLOCK_TOKENS} tokens); raise max_cache_bytes or free memory"
        )
    if num_blocks * per_block > left:
        raise CapacityError(
            f"a cache of {format_bytes(num_blocks * per_block)} beside the weights' "
            f"{format_bytes(needed)} exceeds the {format_bytes(free_bytes)} of memory that are "
            "free; lower max_cache_bytes, max_num_seqs or max_model_len"
        )
    return num_blocks


def loading_bytes(sizes: Sequence[int], precision: Precision) -> int:
    """Memory for tensors of these element counts: packed, with the widest in fp32 beside them."""
    return int(sum(sizes) * _BYTES_PER_WEIGHT[precision]) + 4 * max(sizes) + _WORKSPACE_BYTES


def block_bytes(config: ModelConfig | DenseConfig, precision: Precision) -> int:
    """Bytes of a cache block in all layers, MTP modules' included; fp32 beside fp32, else bf16."""
    if isinstance(config, ModelConfig):
        width = config.kv_lora_rank + config.qk_rope_head_dim
        num_layers = config.num_hidden_layers + config.num_nextn_predict_layers
    else:
        width = 2 * config.num_key_value_heads * config.head_dim
        num_layers = config.num_hidden_layers
    element_bytes = 4 if precision == "fp32" else 2
    return BLOCK_TOKENS * num_layers * width * element_bytes


def available(device: str) -> FreeMemory:
    """Memory that can be taken without swapping, and what sets the limit."""
    if device != "cpu":
        torch = importlib.import_module("torch")
        return FreeMemory(int(torch.cuda.mem_get_info(device)[0]), f"the memory of {device}")
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return free_memory() or FreeMemory(physical, "the machine's physical memory")


def packed_cache(source: Source, config: EngineConfig) -> PackedCache | None:
    """Where the packed weights of a checkpoint are kept; None if they are not.

    Weights that live in memory (a trainer's) have no files to be known by, and change.
    """
    if config.packed_cache == "off" or not isinstance(source, Weights):
        return None
    try:
        folder = user_cache() / "packed"
    except RuntimeError:  # a user without a home
        return None
    identity = json.dumps(source.identity())
    return PackedCache(folder, config.packed_cache_bytes, identity, str(source.path))


def end_token_ids(source: Source, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """Every token that the files name as an end: generation_config, config, tokenizer."""
    config = source.config
    found: list[int] = []
    for value in (source.generation().get("eos_token_id"), config.eos_token_id):
        if value is not None:
            found += [value] if isinstance(value, int) else list(value)
    if tokenizer is not None:
        try:
            found.append(tokenizer.eos_token_id)
        except CheckpointError:
            pass  # a tokenizer may name none: then the configs decide
    ids = tuple(dict.fromkeys(i for i in found if 0 <= i < config.vocab_size))
    if not ids:
        raise CheckpointError(
            "neither config.json, generation_config.json nor the tokenizer names an end token; "
            "add eos_token_id to config.json"
        )
    return ids


def begin_ids(tokenizer: Tokenizer) -> Sequence[int]:
    """What a plain prompt begins with: the begin token of models that have one."""
    try:
        return (tokenizer.bos_token_id,)
    except CheckpointError:
        return ()
