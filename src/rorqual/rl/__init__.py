"""Reinforcement learning with verifiable rewards: GRPO and its kin (torch)."""

from rorqual.rl.progress import RLProgress
from rorqual.rl.run import run_rl
from rorqual.rl.trainer import RLResult, RLTrainer

__all__ = ["RLProgress", "RLResult", "RLTrainer", "run_rl"]
