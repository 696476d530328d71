"""A training step against transformers and plain torch: same shapes, same text, AdamW everywhere.

    python benchmarks/train_step.py --index data/tokens-4096/index.json

Every measurement is a process of its own, alone on the machine; peers take turns, so a slow minute
hits all of them. Printed: tokens/s as median (min-max) over rounds, the ratio to Rorqual in the
same round, peak memory, and the share of a reference GEMM measured between the rounds.
FLOPs are 6 x active weights in matrix products, attention scores not counted.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_padded import plain_padded_ops
from torch import Tensor
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from rorqual.config import ModelConfig, TrainConfig, model_config_to_hf
from rorqual.data import PackedLoader
from rorqual.kernels.ops import select_ops
from rorqual.model import PackedTokens, Transformer, initialize
from rorqual.parallel import join_processes
from rorqual.planner import count_parameters
from rorqual.train import TrainStep, multiplies_bfloat16

SIZES = {
    "m_tiny": {
        "vocab_size": 4096, "hidden_size": 256, "num_hidden_layers": 6, "n_routed_experts": 16,
        "moe_intermediate_size": 128, "intermediate_size": 768, "q_lora_rank": 96,
        "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
    },
    "m_small": {
        "vocab_size": 8192, "hidden_size": 512, "num_hidden_layers": 8, "n_routed_experts": 32,
        "moe_intermediate_size": 256, "intermediate_size": 1536, "q_lora_rank": 192,
        "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
    },
}  # fmt: skip
COMMON = {
    "num_attention_heads": 8, "num_experts_per_tok": 4, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "routed_scaling_factor": 2.5,
}  # fmt: skip
SEQUENCE_LENGTH, ROWS = 512, 8
PEERS = (
    "rorqual", "transformers-fp32-eager", "transformers-fp32-grouped_mm",
    "transformers-bf16-eager", "transformers-bf16-grouped_mm", "plain-padded",
)  # fmt: skip


def config_of(size: str) -> ModelConfig:
    return ModelConfig(**(SIZES[size] | COMMON))  # type: ignore[arg-type]


def rows_of(index: Path) -> Callable[[], PackedTokens]:
    """Packed rows of real text, the same sequence for every peer."""
    loader = PackedLoader(index, sequence_length=SEQUENCE_LENGTH, sequences_per_batch=ROWS, seed=0)

    def next_rows() -> PackedTokens:
        batch = loader.next_batch()
        tokens = torch.from_numpy(batch.tokens.astype(np.int64))
        return PackedTokens(tokens, torch.from_numpy(batch.document_idx.astype(np.int32)))

    return next_rows


def rorqual_step(config: ModelConfig, plain: bool) -> Callable[[PackedTokens], float]:
    """Ours as `rorqual train` runs it, or the same model on plain torch operations."""
    dtype = torch.bfloat16 if multiplies_bfloat16(torch.device("cpu")) else torch.float32
    model = Transformer(config, plain_padded_ops() if plain else select_ops("native"))
    initialize(model, 0)
    # Without document masks, as the peers run; spikes cannot be skipped here.
    train = TrainConfig(
        token_budget=10**9, learning_rate=3e-4, document_mask=False, spike_factor=1e9
    )
    step = TrainStep(model, train, join_processes(), dtype)
    return lambda rows: step.run([rows], progress=0.1).loss


def transformers_step(
    config: ModelConfig, bfloat16: bool, experts: str
) -> Callable[[PackedTokens], float]:
    """transformers' DeepseekV3ForCausalLM with SDPA, fp32 or bf16 autocast."""
    hf = DeepseekV3Config(**model_config_to_hf(config, dtype="float32"))
    hf._attn_implementation, hf._experts_implementation = "sdpa", experts
    torch.manual_seed(0)
    model = DeepseekV3ForCausalLM(hf).train()
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)

    def step(rows: PackedTokens) -> float:
        tokens: Tensor = rows.tokens[:, :-1].contiguous()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def build(peer: str, config: ModelConfig) -> Callable[[PackedTokens], float]:
    if peer in ("rorqual", "plain-padded"):
        return rorqual_step(config, plain=peer == "plain-padded")
    _, dtype, experts = peer.split("-")
    return transformers_step(config, dtype == "bf16", experts)


def measure_one(peer: str, size: str, index: Path, steps: int) -> dict[str, Any]:
    """Time `steps` steps after two that are not counted."""
    torch.set_num_threads(os.cpu_count() or 1)
    step, next_rows = build(peer, config_of(size)), rows_of(index)
    seconds, losses = [], []
    for _ in range(steps + 2):
        rows = next_rows()
        before = time.perf_counter()
        losses.append(step(rows))
        seconds.append(time.perf_counter() - before)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds[2:], "losses": losses, "peak_bytes": peak_bytes}


def reference_gemm_flops_per_second(dtype: torch.dtype) -> float:
    """Median of five 2048-cubed products."""
    a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    times = []
    for _ in range(6):
        before = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - before)
    return 2 * 2048**3 / statistics.median(times[1:])


def spread(values: list[float], digits: int = 0) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def run_size(size: str, arguments: argparse.Namespace) -> None:
    peers = arguments.peers
    speeds: dict[str, list[float]] = {peer: [] for peer in peers}
    memory: dict[str, float] = {}
    gemm: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(arguments.rounds):
        for name, values in gemm.items():
            values.append(reference_gemm_flops_per_second(getattr(torch, name)))
        for peer in peers:
            command = [sys.executable, __file__, "--one", peer, "--sizes", size]
            command += ["--steps", str(arguments.steps), "--index", str(arguments.index)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            result = json.loads(done.stdout.splitlines()[-1])
            speeds[peer].append(ROWS * SEQUENCE_LENGTH / statistics.median(result["seconds"]))
            memory[peer] = max(memory.get(peer, 0), result["peak_bytes"])
            print(f"  {size} {peer}: {speeds[peer][-1]:.0f} tok/s", file=sys.stderr, flush=True)
    flops = 6 * count_parameters(config_of(size)).active_matmul
    print(f"\n{size}: {flops / 1e6:.1f} MFLOP a token; reference GEMM, GFLOP/s:", end=" ")
    print(", ".join(f"{k} {spread([v / 1e9 for v in values])}" for k, values in gemm.items()))
    best_gemm = max(statistics.median(values) for values in gemm.values())
    print(f"{'peer':32}{'tok/s':>24}{'Rorqual is x':>22}{'of GEMM':>9}{'peak MB':>9}")
    for peer in peers:
        ratios = [
            ours / theirs for ours, theirs in zip(speeds["rorqual"], speeds[peer], strict=True)
        ]
        share = statistics.median(speeds[peer]) * flops / best_gemm
        print(
            f"{peer:32}{spread(speeds[peer]):>24}{spread(ratios, 2):>22}{share:>9.1%}"
            f"{memory[peer] / 1e6:>9.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, default=Path("data/tokens-4096/index.json"))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        size = arguments.sizes[0]
        result = measure_one(arguments.one, size, arguments.index, arguments.steps)
        print(json.dumps(result))
        return
    for size in arguments.sizes:
        run_size(size, arguments)


if __name__ == "__main__":
    main()
