"""Problems from the optional package `reasoning-gym`, as a generator only.

Its own scorers are never called: some evaluate the answer text, others pay for substrings. The
datasets listed here have one right answer that the exact comparison of `answers` decides, and short
prompts. English only, and without worked solutions: for RL and evaluation, not for SFT.
"""

import importlib
import random
from typing import Any, ClassVar

from rorqual.errors import ConfigError
from rorqual.tasks.base import Language, Problem, Solution, Task, check_level

DATASETS = (
    "basic_arithmetic",
    "chain_sum",
    "count_bits",
    "count_primes",
    "gcd",
    "lcm",
    "leg_counting",
    "letter_counting",
    "products",
    "spell_backward",
)
_VIRTUAL_SIZE = 2**31  # items are computed when asked for
_MOST_LEVELS = 3


class ReasoningGymTask(Task):
    """One dataset; level k sets every attribute of its curriculum to step k or the last one."""

    num_levels: ClassVar[int] = _MOST_LEVELS
    datasets: ClassVar[tuple[Any, ...]]

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        if language == "zh":
            raise ConfigError(f'{self.name} asks in English only; set languages = ["en"]')
        item = self.datasets[level - 1][rng.randrange(_VIRTUAL_SIZE)]
        prompt = str(item["question"]).strip()
        return Problem(
            task=self.name,
            level=level,
            language="en",
            prompt=prompt,
            answer=str(item["answer"]),
            key=" ".join(prompt.split()),
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        """The answer alone; the package has no worked solutions."""
        del rng
        return Solution("", f"\\boxed{{{problem.answer}}}")


def load_reasoning_gym_task(dataset: str) -> Task:
    """The task `reasoning_gym:dataset`; ConfigError if unlisted, or the package is missing."""
    if dataset not in DATASETS:
        raise ConfigError(
            f"reasoning_gym:{dataset} is not among the datasets with an exact answer and a short "
            f"prompt; choose one of {', '.join(DATASETS)}"
        )
    try:
        package = importlib.import_module("reasoning_gym.factory")
    except ImportError as error:
        raise ConfigError(
            f"reasoning_gym:{dataset} needs the package reasoning-gym ({error}); "
            "pip install reasoning-gym==0.1.25"
        ) from error
    levels = tuple(_at_level(package, dataset, level) for level in range(_MOST_LEVELS))

    class GymTask(ReasoningGymTask):
        name: ClassVar[str] = f"reasoning_gym:{dataset}"
        datasets: ClassVar[tuple[Any, ...]] = levels

    return GymTask()


def _at_level(package: Any, dataset: str, level: int) -> Any:
    """The generator with every attribute at this step (counted from 0) or its last."""
    curriculum = package.create_curriculum(dataset)
    for name, attribute in curriculum.attributes.items():
        curriculum.set_attr_level(name, min(level, len(attribute.levels) - 1))
    config = curriculum.generate_configuration({"seed": 0, "size": _VIRTUAL_SIZE})
    return package.create_dataset(dataset, **vars(config))
