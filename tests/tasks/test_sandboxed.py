"""Who opens a sandbox closes it, and nothing is opened before there is something to run."""

import random
from collections.abc import Iterator

import pytest

from rorqual.errors import CapacityError
from rorqual.sandbox import Sandbox
from rorqual.tasks.python_function import PythonFunction


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(num_workers=1) as opened:
        yield opened


def test_a_given_sandbox_is_used_and_stays_open(sandbox: Sandbox) -> None:
    with PythonFunction(sandbox) as task:
        assert task.sandbox is sandbox
    assert sandbox.run_python("print(1)").stdout == "1\n"


def test_an_own_sandbox_opens_at_the_first_program_and_closes_with_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[int] = []

    class Counted(Sandbox):
        def __init__(self, num_workers: int = 1):
            opened.append(num_workers)
            super().__init__(num_workers=1)

    monkeypatch.setattr("rorqual.tasks.sandboxed.Sandbox", Counted)
    task = PythonFunction()
    rng = random.Random(0)
    problem = task.make(rng, 1)
    assert not task.score(problem, "no program here").correct
    task.close()
    assert opened == []
    text = task.solve(problem, rng).completion(thinking=True)
    assert task.score(problem, text).correct
    assert task.score(problem, text).correct
    assert len(opened) == 1
    own = task.sandbox
    task.close()
    with pytest.raises(CapacityError):
        own.run_python("print(1)")
