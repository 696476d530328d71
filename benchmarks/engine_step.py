"""Speed of the native runtime's steps on random weights, beside what memory allows.

    python benchmarks/engine_step.py [--size m_small] [--precision bf16 int8] [--threads 1 2]

Prints, for each precision and thread count: decoding one and sixteen sequences at context 512 and
prefilling 8 x 512 tokens, in tokens a second; for decoding also the bytes of weights and cache that
a step touches, as GB/s and as a share of the read speed of an equally large buffer in the same run.
Medians of short rounds; token ids are random, so routing is as even as random weights make it.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rorqual.config import DenseConfig, ModelConfig
from rorqual.kernels.library import Library, native_library
from rorqual.kernels.machine import read_bytes_per_second
from rorqual.kernels.runtime import Runtime
from rorqual.kernels.runtime_layout import Precision, Slot, published_tensors
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch

_MOE = {
    "num_hidden_layers": 8, "num_attention_heads": 8, "n_shared_experts": 1,
    "num_experts_per_tok": 4, "first_k_dense_replace": 1, "max_position_embeddings": 8192,
}  # fmt: skip
SIZES: dict[str, ModelConfig | DenseConfig] = {
    "m_small": ModelConfig.model_validate({
        **_MOE, "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1536,
        "q_lora_rank": 192, "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32,
        "v_head_dim": 64, "moe_intermediate_size": 256, "n_routed_experts": 32,
    }),
    "m_tiny": ModelConfig.model_validate({
        **_MOE, "num_hidden_layers": 6, "vocab_size": 4096, "hidden_size": 256,
        "intermediate_size": 768, "q_lora_rank": 96, "kv_lora_rank": 64, "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16, "v_head_dim": 32, "moe_intermediate_size": 128,
        "n_routed_experts": 16,
    }),
    "hidden96": ModelConfig.model_validate({
        **_MOE, "num_hidden_layers": 4, "vocab_size": 512, "hidden_size": 96,
        "intermediate_size": 256, "num_attention_heads": 4, "q_lora_rank": None,
        "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
        "moe_intermediate_size": 64, "n_routed_experts": 8, "num_experts_per_tok": 2,
    }),
    "smollm2": DenseConfig.model_validate({
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "head_dim": 64, "rope_theta": 100000.0, "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
    }),
}  # fmt: skip
BYTES_PER_WEIGHT: dict[Precision, float] = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5625}
_SPARSE = (Slot.EXPERT_GATE, Slot.EXPERT_UP, Slot.EXPERT_DOWN)


@dataclass
class Measured:
    """One line of the table."""

    name: str
    seconds: float
    tokens: int
    touched_bytes: float | None


def random_weights(config: ModelConfig | DenseConfig) -> dict[str, NDArray[np.float32]]:
    """Every published tensor, normal with a standard deviation that keeps activations near 1."""
    rng = np.random.default_rng(0)
    found = {}
    for tensor in published_tensors(config):
        if "norm" in tensor.name:
            found[tensor.name] = np.ones(tensor.shape, np.float32)
            continue
        scale = np.float32(tensor.shape[-1] ** -0.5)
        found[tensor.name] = rng.standard_normal(tensor.shape, np.float32) * scale
    return found


def touched_weight_bytes(
    config: ModelConfig | DenseConfig, precision: Precision, experts_touched: float
) -> float:
    """Bytes of weights that a step reads, if `experts_touched` experts of a layer have rows."""
    total = 0.0
    for tensor in published_tensors(config):
        if tensor.slot == Slot.EMBEDDING and not config.tie_word_embeddings:
            continue
        size = float(np.prod(tensor.shape))
        if tensor.slot in _SPARSE:
            assert isinstance(config, ModelConfig)
            size *= experts_touched / config.num_experts
        small = len(tensor.shape) == 1 or tensor.slot == Slot.ROUTER
        rate = 4.0 if small else BYTES_PER_WEIGHT[precision]
        if precision in ("int8", "int4") and not small:
            # What quantised models keep wider: the absorbed halves of kv_b, and int4's head.
            rate = 2.0 if tensor.slot == Slot.KEY_VALUE else rate
            rate = 1.0 if tensor.slot in (Slot.HEAD, Slot.EMBEDDING) else rate
        total += size * rate
    return total


def median_seconds(run: object, rounds: int) -> float:
    assert callable(run)
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


class Bench:
    """One runtime with a filled cache."""

    def __init__(
        self,
        config: ModelConfig | DenseConfig,
        weights: dict[str, NDArray[np.float32]],
        precision: Precision,
        library: Library,
        context: int,
    ):
        self.config, self.context = config, context
        self.precision: Precision = precision
        self.blocks_each = (context + BLOCK_TOKENS) // BLOCK_TOKENS + 1
        self.runtime = Runtime(
            config, weights.__getitem__, precision=precision, num_blocks=16 * self.blocks_each,
            library=library, max_batch_tokens=max(4096, context),
        )  # fmt: skip
        self.rng = np.random.default_rng(1)
        for sequence in range(16):
            self.runtime.step(self.batch(1, context, 0, first=sequence))

    def batch(self, sequences: int, fed: int, cached: int, first: int = 0) -> StepBatch:
        ids = self.rng.integers(0, self.config.vocab_size, sequences * fed, dtype=np.int32)
        rows = np.arange(0, (sequences + 1) * fed, fed, dtype=np.int32)
        tables = np.arange(sequences * self.blocks_each, dtype=np.int32) + first * self.blocks_each
        return StepBatch(
            ids, rows, np.full(sequences, cached, np.int32),
            tables.reshape(sequences, -1), rows[1:] - np.int32(1),
        )  # fmt: skip

    def decode(self, sequences: int, rounds: int) -> Measured:
        experts = 0.0
        batches = [self.batch(sequences, 1, self.context) for _ in range(8)]
        if isinstance(self.config, ModelConfig) and self.config.n_routed_experts:
            routes = [self.runtime.step(b, record_routes=True).routes for b in batches]
            counts = [len(np.unique(r[:, layer])) for r in routes if r is not None
                      for layer in range(r.shape[1])]  # fmt: skip
            experts = float(np.mean(counts))
        turn = iter(range(10**9))
        seconds = median_seconds(lambda: self.runtime.step(batches[next(turn) % 8]), rounds)
        cache = self.runtime.cache_bytes_per_block / BLOCK_TOKENS * self.context * sequences
        touched = touched_weight_bytes(self.config, self.precision, experts) + cache
        return Measured(f"decode batch {sequences}", seconds, sequences, touched)

    def prefill(self, sequences: int, rounds: int) -> Measured:
        batch = self.batch(sequences, self.context, 0)
        seconds = median_seconds(lambda: self.runtime.step(batch), rounds)
        return Measured(f"prefill {sequences}x{self.context}", seconds, len(batch.token_ids), None)


def report(measured: Measured, library: Library) -> None:
    line = f"  {measured.name:16} {measured.tokens / measured.seconds:9.0f} tok/s"
    line += f"  {measured.seconds * 1e3:8.3f} ms"
    if measured.touched_bytes is not None:
        rate = measured.touched_bytes / measured.seconds
        limit = read_bytes_per_second(library, int(measured.touched_bytes), 15)
        line += f"  {measured.touched_bytes / 1e6:7.1f} MB {rate / 1e9:6.1f} GB/s"
        line += f"  {100 * rate / limit:5.1f} % of {limit / 1e9:.1f}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", choices=SIZES, default="m_small")
    parser.add_argument("--precision", nargs="+", choices=BYTES_PER_WEIGHT, default=["bf16"])
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--isa", default=None)
    arguments = parser.parse_args()
    config = SIZES[arguments.size]
    weights = random_weights(config)
    found = native_library()
    assert found is not None, "build the native kernels first"
    chosen: list[Precision] = arguments.precision
    for precision in chosen:
        for threads in arguments.threads:
            library = found.using(isa=arguments.isa, num_threads=threads)
            print(f"{arguments.size} {precision} {library.isa} threads={threads}", flush=True)
            bench = Bench(config, weights, precision, library, arguments.context)
            report(bench.decode(1, 200), library)
            report(bench.decode(16, 60), library)
            report(bench.prefill(8 if arguments.context <= 512 else 1, 3), library)
            bench.runtime.close()


if __name__ == "__main__":
    main()
