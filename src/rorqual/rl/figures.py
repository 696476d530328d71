"""A step's figures from its rollouts, under TRL's names where TRL has one."""

from collections.abc import Sequence

import torch

from rorqual.rl.advantages import has_signal
from rorqual.rl.rollout import Group, Rollouts
from rorqual.tasks.answers import THINK_BEGIN, split_reasoning


def rollout_figures(rollouts: Rollouts) -> dict[str, float | None]:
    """Everything that was drawn counts, not only the groups that were learnt from."""
    groups = rollouts.drawn
    rewards = torch.stack([group.rewards for group in groups])  # [P, G]
    signal = has_signal(rewards)  # [P]
    right = torch.tensor([[s.correct for s in group.scores] for group in groups])  # [P, G]
    useless = right[~signal].float().mean(dim=1) if (~signal).any() else torch.zeros(0)
    figures: dict[str, float | None] = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "groups/reward_std": float(rewards.std(dim=1).mean()),
        "frac_reward_zero_std": float((~signal).float().mean()),
        "groups/all_wrong": float((useless < 0.5).sum()) / len(groups),
        "groups/all_right": float((useless >= 0.5).sum()) / len(groups),
        "groups/kept": float(len(rollouts.kept)),
        "accuracy": float(right.float().mean()),
        "tokens/sampled": float(rollouts.sampled_tokens),
        "time/gen": rollouts.generate_seconds,
        "time/score": rollouts.score_seconds,
    }
    for name, values in rollouts.parts.items():
        if values:
            column = torch.tensor(values)
            figures[f"rewards/{name}/mean"] = float(column.mean())
            figures[f"rewards/{name}/std"] = float(column.std()) if len(values) > 1 else 0.0
    return figures | _completion_figures(groups)


def _completion_figures(groups: Sequence[Group]) -> dict[str, float | None]:
    completions = [completion for group in groups for completion in group.completions]
    texts = [text for group in groups for text in group.texts]
    scores = [score for group in groups for score in group.scores]
    lengths = torch.tensor([float(len(completion.ids)) for completion in completions])
    ended = torch.tensor([completion.ended for completion in completions])
    thinks = torch.tensor([text.lstrip().startswith(THINK_BEGIN) for text in texts])
    right = torch.tensor([score.correct for score in scores]).float()
    unanswered = [score.reason == "no answer" for score in scores]
    characters = [len(split_reasoning(text)[0] or "") for text in texts]
    return {
        "num_tokens": float(lengths.sum()),
        "entropy": sum(c.entropy * len(c.ids) for c in completions) / float(lengths.sum()),
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float((~ended).float().mean()),
        "completions/mean_terminated_length": _mean(lengths[ended]),
        "completions/thinking_share": float(thinks.float().mean()),
        "completions/thinking_characters": sum(characters) / len(characters),
        "accuracy/thinking": _mean(right[thinks]),
        "accuracy/direct": _mean(right[~thinks]),
        "share_no_answer": sum(unanswered) / len(unanswered),
    }


def _mean(values: torch.Tensor) -> float | None:
    """None of an empty selection, which JSON and plots can hold."""
    return float(values.mean()) if values.numel() else None
