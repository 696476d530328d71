"""The model's manners as a family: what pays and what does not."""

import random

import pytest

from rorqual.tasks import Language, load_task

TASK = load_task("about_itself")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("level", [1, 2])
def test_worked_replies_pay_with_and_without_thinking(level: int, language: Language) -> None:
    rng = random.Random(level)
    for _ in range(50):
        problem = TASK.make(rng, level, language)
        solution = TASK.solve(problem, rng)
        for thinking in (True, False):
            assert TASK.score(problem, solution.completion(thinking=thinking)).correct


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_reply_to_the_other_question_or_in_the_other_language_earns_nothing(
    language: Language,
) -> None:
    rng = random.Random(1)
    other: Language = "zh" if language == "en" else "en"
    who, beyond = (TASK.make(rng, level, language) for level in (1, 2))
    replies = [TASK.solve(problem, rng).completion(thinking=False) for problem in (who, beyond)]
    assert not TASK.score(who, replies[1]).correct
    assert not TASK.score(beyond, replies[0]).correct
    assert not TASK.score(who, " ".join(replies)).correct
    foreign = TASK.solve(TASK.make(rng, 1, other), rng).completion(thinking=False)
    assert not TASK.score(who, foreign).correct


def test_a_reply_hidden_in_long_talk_or_in_the_thinking_earns_nothing() -> None:
    rng = random.Random(2)
    problem = TASK.make(rng, 1, "en")
    reply = TASK.solve(problem, rng).completion(thinking=False)
    assert TASK.score(problem, "Well. " * 100 + reply).reason == "too long"
    assert not TASK.score(problem, f"<think>\n{reply}\n</think>\n\nI cannot say.").correct
    assert not TASK.score(problem, f"<think>\n{reply}").correct
