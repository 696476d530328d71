"""kill -9 at random moments of saving a model with its training state: always one good checkpoint.

A child process imports torch once and forks savers; each saves generation after generation until it
is killed. Whatever is found afterwards must be whole and of one generation.
"""

import subprocess
import sys
from pathlib import Path

import pytest

KILLED_AT_RANDOM = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from rorqual.checkpoint import (
    atomic_directory, full_state_dict, load_model, load_training_state, save_training_state,
    write_model,
)
from rorqual.config import ModelConfig
from rorqual.model import Transformer

torch.set_num_threads(1)
path, kills = Path(sys.argv[1]), int(sys.argv[2])
config = ModelConfig(
    vocab_size=4096, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=2, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8,
    moe_intermediate_size=16, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2,
)
model = Transformer(config)

def save(generation):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(generation)
    state = full_state_dict(model)
    with atomic_directory(path) as directory:
        write_model(directory, config, state, None, max_shard_bytes=200_000)
        save_training_state(directory, state, {"generation": generation})

def found():
    moments, values = load_training_state(path)
    numbers = {values["generation"]}
    for tensors in (moments, load_model(path).state_dict()):
        for tensor in tensors.values():
            numbers |= set(tensor.unique().tolist())
    (generation,) = numbers
    return int(generation)

save(0)
dice = random.Random(0)
start = time.perf_counter()
save(1)
save_seconds = time.perf_counter() - start
last, beginnings = 1, []
for _ in range(kills):
    child = os.fork()
    if child == 0:
        generation = last
        while True:
            generation += 1
            save(generation)
    time.sleep(dice.uniform(0, 4 * save_seconds))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    beginnings.append(sorted(p.name.partition("-")[0] for p in path.parent.iterdir()))
    generation = found()
    assert generation >= last, (generation, last)
    last = generation
print(last, sum(names != [path.name] for names in beginnings))
"""


def _kill(path: Path, kills: int) -> tuple[int, int]:
    """(generations saved, kills that interrupted a save)"""
    command = [sys.executable, "-c", KILLED_AT_RANDOM, str(path), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    saved, interrupted = done.stdout.split()
    return int(saved), int(interrupted)


def test_kill_9_during_a_save_leaves_a_good_checkpoint(tmp_path: Path) -> None:
    saved, interrupted = _kill(tmp_path / "c", 10)
    assert saved > 1
    assert interrupted >= 3


@pytest.mark.soak
def test_a_hundred_kills_leave_a_good_checkpoint(tmp_path: Path) -> None:
    saved, interrupted = _kill(tmp_path / "c", 100)
    assert saved > 20
    assert interrupted >= 30
