"""Lint: try to be paid for anything but the right answer, before a model does.

The reward runs in a child process: a text that hangs it, kills it or runs as code is a finding, not
the end of the linter. A task that is refused would be gamed in training within tens of steps.
"""

import math
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from rorqual.errors import ConfigError
from rorqual.tasks.base import LANGUAGES, Language, Problem, Score, Task
from rorqual.tasks.lint_probes import (
    Probe,
    cheap_probes,
    gold_probes,
    hostile_probes,
    huge_probes,
)
from rorqual.tasks.registry import load_task

LIMIT_SECONDS = 0.05  # of the best of _TRIES, for a task that runs no programs
_TRIES = 3
_HANG_SECONDS, _SANDBOX_HANG_SECONDS, _START_SECONDS = 3.0, 60.0, 120.0
_PROBLEMS, _SANDBOX_PROBLEMS = 3, 1
_DRAWS = 200
_COMMON_SHARE, _FEW = 0.6, 100
_MOST_CHILDREN = 3

Severity = Literal["refused", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a task. count: how often, `example` is the first."""

    task: str
    severity: Severity
    kind: str
    message: str
    example: str
    count: int = 1


def lint_task(name: str, *, seed: int = 0) -> list[Finding]:
    """Everything found on all levels and languages, alike findings as one; [] is a clean task."""
    task = load_task(name)
    found = list(_supervise(name, task, seed))
    groups = Counter((finding.severity, finding.kind, finding.message) for finding in found)
    first: dict[tuple[str, str, str], Finding] = {}
    for finding in found:
        first.setdefault((finding.severity, finding.kind, finding.message), finding)
    return [replace(finding, count=groups[key]) for key, finding in first.items()]


def is_refused(findings: Iterable[Finding]) -> bool:
    """Whether the task must not be trained on."""
    return any(finding.severity == "refused" for finding in findings)


# The parent: watches a child that scores, and starts another one behind the text that stopped it.


def _supervise(name: str, task: Task, seed: int) -> Iterator[Finding]:
    """Findings of a child, of its successors, and of how they ended."""
    hang_seconds = _SANDBOX_HANG_SECONDS if task.uses_sandbox else _HANG_SECONDS
    context = multiprocessing.get_context("spawn")
    start = 0
    for _ in range(_MOST_CHILDREN):
        with tempfile.TemporaryDirectory() as folder:
            canary = Path(folder) / "canary"
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(target=_score_probes, args=(name, seed, start, canary, sender))
            child.start()
            sender.close()
            try:
                fault, where, start = yield from _listen(receiver, task.name, canary, hang_seconds)
            finally:
                child.kill()
                child.join()
        if fault is None:
            return
        yield Finding(task.name, "refused", "stopped", fault, where)
    message = "the reward was stopped too often, the rest was not tried"
    yield Finding(task.name, "refused", "stopped", message, "")


def _listen(
    receiver: Any, name: str, canary: Path, hang_seconds: float
) -> Generator[Finding, None, tuple[str | None, str, int]]:
    """Yields findings; returns (what stopped the child or None, at which probe, next index)."""
    index, where, patience = 0, "before the first text", _START_SECONDS
    while True:
        if not receiver.poll(patience):
            return f"scoring takes longer than {hang_seconds:g} s", where, index + 1
        try:
            word, value = receiver.recv()
        except EOFError:
            return "scoring ends the process", where, index + 1
        if word == "end":
            return None, "", 0
        if word == "finding":
            yield value
        elif word == "failed":
            raise ConfigError(value)
        elif word == "probe":
            index, where = value
            patience = hang_seconds
        if canary.exists():
            canary.unlink()
            yield Finding(name, "refused", "executed", "the answer's text is run as code", where)


# The child.


def _score_probes(name: str, seed: int, start: int, canary: Path, sender: Connection) -> None:
    """Score all probes from number `start` on, telling the parent before each."""
    try:
        task = load_task(name)
        if start == 0:
            for finding in _check_problems(task, seed):
                sender.send(("finding", finding))
        limit = math.inf if task.uses_sandbox else LIMIT_SECONDS
        for index, (problem, probe) in enumerate(_all_probes(task, seed, str(canary))):
            if index < start:
                continue
            where = f"level {problem.level} {problem.language}: {probe.what}"
            sender.send(("probe", (index, where)))
            for kind, message in _judge(task, problem, probe, limit):
                sender.send(("finding", Finding(task.name, "refused", kind, message, where)))
        sender.send(("end", None))
    except ConfigError as error:
        sender.send(("failed", str(error)))


def _all_probes(task: Task, seed: int, canary: str) -> Iterator[tuple[Problem, Probe]]:
    """Every probe with its problem, in an order that depends on the seed alone."""
    num_problems = _SANDBOX_PROBLEMS if task.uses_sandbox else _PROBLEMS
    for level, language in _levels_and_languages(task):
        rng = random.Random(f"{seed} {level} {language}")
        problems = [task.make(rng, level, language) for _ in range(num_problems + 3)]
        for index, problem in enumerate(problems[:num_problems]):
            solution = task.solve(problem, rng)
            yield from ((problem, probe) for probe in gold_probes(solution))
            others = problems[:index] + problems[index + 1 :]
            yield from ((problem, probe) for probe in cheap_probes(problem, solution, others))
        yield from ((problems[0], probe) for probe in hostile_probes(canary))
        yield from ((problems[0], probe) for probe in huge_probes(problems[0].answer))


def _levels_and_languages(task: Task) -> list[tuple[int, Language]]:
    """All pairs; a language that the task says it does not have is left out."""
    spoken: list[Language] = []
    for language in LANGUAGES:
        try:
            task.make(random.Random(0), 1, language)
        except ConfigError:
            continue
        spoken.append(language)
    if not spoken:
        raise ConfigError(f"task {task.name} makes no problem in any of {LANGUAGES}; add one")
    return [(level, language) for level in range(1, task.num_levels + 1) for language in spoken]


def _judge(task: Task, problem: Problem, probe: Probe, limit: float) -> Iterator[tuple[str, str]]:
    """(kind, message) of what is wrong with the score of one probe."""
    fastest = math.inf
    score: Any = None
    for _ in range(_TRIES):
        begin = time.perf_counter()
        try:
            score = task.score(problem, probe.text)
        except Exception as error:  # any fault of the user's reward
            yield "raises", f"score raises {type(error).__name__} on {_described(probe)}"
            return
        fastest = min(fastest, time.perf_counter() - begin)
        if fastest <= limit:
            break
    if not isinstance(score, Score) or not math.isfinite(score.reward):
        yield "raises", f"score gives {str(score)[:80]} and not a Score with a finite reward"
    elif probe.pays:
        if not score.correct or score.reward <= 0:
            yield "gold", f"the task's own solution is not paid ({score.reason})"
    elif score.correct or score.reward > 0:
        yield probe.kind, f"pays {score.reward:g} for {_described(probe)}"
    if fastest > limit and not probe.pays:
        yield "slow", f"takes more than {1000 * limit:.0f} ms on {_described(probe)}"


def _described(probe: Probe) -> str:
    """The probe without what changes from problem to problem, so that findings group."""
    names = {"wrong": "a wrong answer", "empty": "an empty answer"}
    return names.get(probe.kind, probe.what)


def _check_problems(task: Task, seed: int) -> Iterator[Finding]:
    """Same seed, same problem; enough different ones; no answer that is nearly always right."""
    for level, language in _levels_and_languages(task):
        where = f"level {level} {language}"
        drawn, again = (
            [task.make(rng, level, language) for _ in range(_DRAWS)]
            for rng in (random.Random(seed), random.Random(seed))
        )
        if drawn != again:
            message = "make gives other problems for the same seed; draw from the given rng only"
            yield Finding(task.name, "refused", "seed", message, where)
        distinct = len({problem.key for problem in drawn})
        if distinct < _FEW:
            message = f"fewer than {_FEW} different problems in {_DRAWS} draws"
            yield Finding(task.name, "warning", "few", message, f"{where}: {distinct}")
        answer, times = Counter(problem.answer for problem in drawn).most_common(1)[0]
        if answer and times > _COMMON_SHARE * _DRAWS:
            message = "one answer is nearly always right; a model will learn only that"
            example = f"{where}: {answer!r} in {times} of {_DRAWS}"
            yield Finding(task.name, "warning", "constant", message, example)
