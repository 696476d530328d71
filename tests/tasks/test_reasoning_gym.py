"""reasoning-gym as a generator: exact answers, short prompts, its scorers never called."""

import importlib
import random
import sys

import pytest

from rorqual.errors import ConfigError
from rorqual.tasks import load_task
from rorqual.tasks.reasoning_gym import DATASETS
from tests.conftest import IN_CI


def test_datasets_without_an_exact_answer_are_refused() -> None:
    for dataset in ("countdown", "fraction_simplification", "nonsense"):
        with pytest.raises(ConfigError, match="choose one of basic_arithmetic"):
            load_task(f"reasoning_gym:{dataset}")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(ConfigError, match=r"pip install reasoning-gym"):
        load_task("reasoning_gym:chain_sum")


@pytest.mark.parametrize("dataset", DATASETS)
def test_problems_are_short_repeatable_and_scored_by_us(
    dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if IN_CI:
        gym = importlib.import_module("reasoning_gym.factory")
    else:
        gym = pytest.importorskip("reasoning_gym.factory")
    scorer = gym.DATASETS[dataset][0]
    monkeypatch.setattr(scorer, "score_answer", lambda *_, **__: pytest.fail("its scorer ran"))
    task = load_task(f"reasoning_gym:{dataset}")
    assert task.name == f"reasoning_gym:{dataset}"
    for level in range(1, task.num_levels + 1):
        problems = [task.make(random.Random(seed), level) for seed in range(30)]
        assert len({problem.key for problem in problems}) > 15
        for seed, problem in enumerate(problems):
            assert problem == task.make(random.Random(seed), level, "en")
            assert len(problem.prompt) <= 250
            solution = task.solve(problem, random.Random(0))
            assert task.score(problem, solution.completion(thinking=False)).correct
            assert not task.score(problem, f"\\boxed{{{problem.answer}7}}").correct
            assert not task.score(problem, problem.prompt).correct
    with pytest.raises(ConfigError, match="English only"):
        task.make(random.Random(0), 1, "zh")
