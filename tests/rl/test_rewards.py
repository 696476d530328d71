"""What each reward pays for, and how they add up."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rorqual.config.rl import RLConfig
from rorqual.errors import ConfigError
from rorqual.rl.rewards import (
    FORMAT_REWARD,
    Rewards,
    Written,
    format_reward,
    language_reward,
    random_reward,
)
from rorqual.tasks import Language, Problem, load_task

Make = Callable[..., Rewards]


def written(text: str, *, ended: bool = True, language: Language = "en", seed: int = 0) -> Written:
    problem = Problem("running_state", 1, language, "Start with 3. Add 4.", "7", "k")
    return Written(problem, text, [5, 6, 7], ended, seed)


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Rewards] = []

    def build(*names: str, **fields: Any) -> Rewards:
        config = RLConfig.model_validate({"model": Path("m"), "rewards": names} | fields)
        made.append(Rewards(config, {"running_state": load_task("running_state")}))
        return made[-1]

    yield build
    for rewards in made:
        rewards.close()


RIGHT = "<think>\n3 + 4 = 7\n</think>\n\n\\boxed{7}"


@pytest.mark.parametrize(
    ("text", "ended", "earned"),
    [
        (RIGHT, True, FORMAT_REWARD),
        ("It is \\boxed{8}.", True, FORMAT_REWARD),  # form, not truth
        (RIGHT, False, 0.0),
        ("<think>\n\n</think>\n\n\\boxed{7}", True, 0.0),  # thinks nothing
        ("<think>\n3 + 4 = 7\n\\boxed{7}", True, 0.0),  # never stops thinking
        ("<think>\n\\boxed{7}\n</think>\n\n", True, 0.0),  # the answer is not in the reply
        ("Seven.", True, 0.0),
        ("", True, 0.0),
    ],
)
def test_format_pays_for_form(text: str, ended: bool, earned: float) -> None:
    assert format_reward(written(text, ended=ended)) == earned


@pytest.mark.parametrize(
    ("thinking", "language", "share"),
    [
        ("add four", "en", 1.0),
        ("add four", "zh", 0.0),
        ("加四 ab", "zh", 0.5),
        ("加四 ab", "en", 0.5),
        ("3 + 4 = 7", "en", None),
    ],
)
def test_language_pays_the_share_of_its_own_letters(
    thinking: str, language: Language, share: float | None
) -> None:
    reply = f"<think>\n{thinking}\n</think>\n\nso 是 \\boxed{{7}}"
    assert language_reward(written(reply, language=language)) == share


def test_language_pays_nothing_where_nothing_was_thought() -> None:
    assert language_reward(written("The answer is \\boxed{7}")) is None


def test_random_is_a_fair_coin_that_its_seed_decides() -> None:
    tosses = [random_reward(written("a", seed=seed)) for seed in range(2000)]
    assert set(tosses) == {0.0, 1.0}
    assert sum(tosses) / len(tosses) == pytest.approx(0.5, abs=0.05)
    assert tosses == [random_reward(written(RIGHT, seed=seed)) for seed in range(2000)]


def test_accuracy_needs_the_right_answer_and_the_end_token(make: Make) -> None:
    batch = [written(RIGHT), written("\\boxed{8}"), written(RIGHT, ended=False), written("seven")]
    judged = make("accuracy").judge(batch, step=0)
    assert judged.total.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert [score.correct for score in judged.scores] == [True, False, False, False]
    reasons = [score.reason for score in judged.scores]
    assert reasons == ["correct", "wrong answer", "truncated", "no answer"]


def test_the_total_is_the_weighted_sum(make: Make) -> None:
    rewards = make("accuracy", "format", "language", reward_weights=(2.0, 3.0, 0.5))
    batch = [written(RIGHT), written("<think>\nadd 加\n</think>\n\n\\boxed{8}")]
    judged = rewards.judge(batch, step=0)
    assert judged.total.tolist() == pytest.approx([2 + 0.3, 0.3 + 0.5 * 0.75])
    assert judged.parts["language"] == [None, 0.75]  # None: says nothing, counts as 0
    assert list(judged.parts) == ["accuracy", "format", "language"]


def test_scores_are_known_even_if_accuracy_is_not_paid(make: Make) -> None:
    judged = make("format").judge([written(RIGHT)], step=0)
    assert judged.total.tolist() == pytest.approx([FORMAT_REWARD])
    assert judged.scores[0].correct


def test_an_unknown_reward_is_named_with_the_known_ones() -> None:
    config = RLConfig(model=Path("m"), rewards=("acuracy",))
    with pytest.raises(ConfigError, match=r"'acuracy' .* accuracy, format, language, random"):
        Rewards(config, {})


def test_users_functions_see_the_columns_and_must_return_finite_numbers(
    make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "def mine(prompts, completions, completion_ids, answer, level, trainer_state, **kwargs):\n"
        "    assert trainer_state['global_step'] == 7 and kwargs['language'] == ['en', 'zh']\n"
        "    return [None if 'nan' in text else level[i] + len(completion_ids[i]) / 10\n"
        "            for i, text in enumerate(completions)]\n"
        "def odd(completions, **kwargs):\n"
        "    return [float(text) for text in completions]\n"
    )
    rewards = make(f"{path}:mine", f"{path}:odd", reward_weights=(2.0, 1.0))
    judged = rewards.judge([written("10"), written("nan", language="zh")], step=7)
    assert judged.total.tolist() == pytest.approx([2.6 + 10, 0.0])
    (problem,) = rewards.take_problems()
    assert "odd" in problem and "nan" in problem
    assert rewards.take_problems() == []


def test_the_time_limit_is_for_judging_not_for_loading(make: Make, tmp_path: Path) -> None:
    """The worker brings no torch; a file that imports it may take its time."""
    path = tmp_path / "heavy.py"
    path.write_text(
        "import sys, time\n"
        "brought = 'torch' in sys.modules\n"
        "time.sleep(1)\n"
        "def heavy(completions, **kwargs):\n"
        "    return [float(brought)] * len(completions)\n"
    )
    rewards = make(f"{path}:heavy", reward_timeout_seconds=0.8)
    judged = rewards.judge([written("10")], step=1)
    assert (rewards.take_problems(), judged.parts[f"{path}:heavy"]) == ([], [0.0])
