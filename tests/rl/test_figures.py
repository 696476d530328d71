"""A step's figures against groups counted by hand."""

import math

import pytest
import torch

from rorqual.model import Completion
from rorqual.rl.figures import rollout_figures
from rorqual.rl.rollout import Group, Rollouts
from rorqual.tasks import Problem, Score, wrong
from rorqual.tasks.base import RIGHT

PROBLEM = Problem("running_state", 1, "en", "?", "7", "k")


def group(rows: list[tuple[str, int, bool, float, Score]]) -> Group:
    """rows: text, tokens, ended, entropy, score; the score's reward is the reward."""
    completions = [
        Completion([5] * tokens, [0.0] * tokens, ended, entropy)
        for _, tokens, ended, entropy, _ in rows
    ]
    scores = [score for *_, score in rows]
    return Group(
        PROBLEM, 0, [1, 2], completions, [text for text, *_ in rows], scores,
        torch.tensor([score.reward for score in scores]),
    )  # fmt: skip


THOUGHT = "<think>\nabcd\n</think>\n\n\\boxed{7}"
MIXED = group(
    [
        (THOUGHT, 4, True, 0.5, RIGHT),
        ("\\boxed{8}", 2, True, 1.0, wrong("wrong answer")),
        ("seven", 6, True, 0.0, wrong("no answer")),
        ("<think>\nab", 8, False, 0.25, wrong("truncated")),
    ]
)
ALL_WRONG = group([("\\boxed{8}", 5, True, 0.0, wrong("wrong answer"))] * 4)
ALL_RIGHT = group([("\\boxed{7}", 5, True, 0.0, RIGHT)] * 4)
PARTS = {"accuracy": [1.0, 0.0, 0.0, 0.0] + [0.0] * 4 + [1.0] * 4, "language": [0.5]}
ROLLOUTS = Rollouts(
    kept=[MIXED], drawn=[MIXED, ALL_WRONG, ALL_RIGHT], parts=PARTS,
    generate_seconds=2.0, score_seconds=0.5,
)  # fmt: skip


def test_rewards_and_groups_are_counted_over_all_that_was_drawn() -> None:
    figures = rollout_figures(ROLLOUTS)
    # 5 ones among 12: mean 5/12, squared deviations 5 * (7/12)^2 + 7 * (5/12)^2 = 420/144
    assert figures["reward"] == pytest.approx(5 / 12)
    assert figures["reward_std"] == pytest.approx(math.sqrt(420 / 144 / 11))
    assert figures["groups/reward_std"] == pytest.approx(0.5 / 3)  # 1/2, 0 and 0
    assert figures["accuracy"] == pytest.approx(5 / 12)
    assert figures["frac_reward_zero_std"] == pytest.approx(2 / 3)
    assert figures["groups/all_wrong"] == pytest.approx(1 / 3)
    assert figures["groups/all_right"] == pytest.approx(1 / 3)
    assert figures["groups/kept"] == 1
    assert (figures["time/gen"], figures["time/score"]) == (2.0, 0.5)


def test_completions_are_counted_token_by_token() -> None:
    figures = rollout_figures(ROLLOUTS)
    assert figures["num_tokens"] == 4 + 2 + 6 + 8 + 8 * 5
    assert figures["completions/mean_length"] == pytest.approx(60 / 12)
    assert (figures["completions/min_length"], figures["completions/max_length"]) == (2, 8)
    assert figures["completions/clipped_ratio"] == pytest.approx(1 / 12)
    assert figures["completions/mean_terminated_length"] == pytest.approx(52 / 11)
    # Every token counts once: (4 * 0.5 + 2 * 1 + 8 * 0.25) / 60
    assert figures["entropy"] == pytest.approx(6 / 60)
    assert figures["share_no_answer"] == pytest.approx(1 / 12)


def test_thinking_and_direct_answers_are_told_apart() -> None:
    figures = rollout_figures(ROLLOUTS)
    assert figures["completions/thinking_share"] == pytest.approx(2 / 12)
    assert figures["accuracy/thinking"] == pytest.approx(1 / 2)
    assert figures["accuracy/direct"] == pytest.approx(4 / 10)


def test_each_reward_has_its_mean_and_deviation() -> None:
    figures = rollout_figures(ROLLOUTS)
    assert figures["rewards/accuracy/mean"] == pytest.approx(5 / 12)
    assert figures["rewards/accuracy/std"] == pytest.approx(math.sqrt(420 / 144 / 11))
    assert figures["rewards/language/mean"] == 0.5
    assert figures["rewards/language/std"] == 0.0  # one value only


def test_what_there_is_none_of_is_none() -> None:
    figures = rollout_figures(Rollouts(drawn=[ALL_RIGHT], parts={"language": []}))
    assert figures["accuracy/thinking"] is None
    assert "rewards/language/mean" not in figures
    assert figures["frac_reward_zero_std"] == 1.0
    cut = group([("a", 3, False, 0.0, wrong("truncated"))] * 2)
    assert rollout_figures(Rollouts(drawn=[cut]))["completions/mean_terminated_length"] is None
