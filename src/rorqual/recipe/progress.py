"""What a recipe says on stderr: one line a stage, the stage's own progress beneath it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from rorqual.config.recipe import Stage
from rorqual.data.build import OnProgress
from rorqual.recipe.words import stage_note
from rorqual.units import format_seconds

_LINE_SECONDS = 10.0


class RecipeProgress:
    """Lines about stages, and the time left.

    The recipe says what each stage took where it was made; this machine's speed is what the stages
    finished so far took compared with that.
    """

    def __init__(self, stages: tuple[Stage, ...]):
        self.console = Console(stderr=True)
        self.stages = stages
        self._started = time.monotonic()
        self._expected = self._spent = 0.0  # of finished stages that have an expectation

    def say(self, message: str) -> None:
        """One line."""
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def kept(self, number: int, seconds: float, facts: dict[str, Any]) -> None:
        """A stage that an earlier process finished."""
        self._count(number, seconds)
        note = self._note(number, facts)
        self.say(f"{self._title(number)}: done before in {format_seconds(seconds)}; {note}")

    def begin(self, number: int) -> None:
        """A stage starts."""
        elapsed = format_seconds(time.monotonic() - self._started)
        left = self._left(number)
        about = "" if left is None else f", about {format_seconds(left)} left"
        self.say(f"{self._title(number)}: {elapsed} so far{about}")

    def end(self, number: int, seconds: float, facts: dict[str, Any]) -> None:
        """A stage is finished."""
        self._count(number, seconds)
        note = self._note(number, facts)
        self.say(f"{self._title(number)}: done in {format_seconds(seconds)}; {note}")

    def every_few_seconds(self) -> Callable[[str], None]:
        """A `say` that leaves out what comes within seconds of the line before."""
        last = time.monotonic()

        def say(message: str) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_SECONDS:
                last = time.monotonic()
                self.say(message)

        return say

    @contextmanager
    def show_build(self) -> Iterator[OnProgress]:
        """For the building of token shards: a line per step of it."""
        current = ""

        def report(done: int, total: int, step: str) -> None:
            nonlocal current
            if step != current:
                self.say(step)
            current = step

        yield report

    def _title(self, number: int) -> str:
        stage = self.stages[number - 1]
        return f"[{number}/{len(self.stages)}] {stage.name} ({stage.head.kind})"

    def _note(self, number: int, facts: dict[str, Any]) -> str:
        return stage_note(self.stages[number - 1].head.kind, facts)[0]

    def _count(self, number: int, seconds: float) -> None:
        expected = self.stages[number - 1].head.expected_seconds
        if expected is not None:
            self._expected += expected
            self._spent += seconds

    def _left(self, number: int) -> float | None:
        """Seconds from the beginning of a stage to the end; None if a stage does not say."""
        expected = [stage.head.expected_seconds for stage in self.stages[number - 1 :]]
        if None in expected:
            return None
        speed = self._spent / self._expected if self._expected else 1.0
        return speed * sum(seconds for seconds in expected if seconds is not None)
