"""The process in which users' reward functions and tasks run.

One spawned process, asked over a pipe. If it does not answer in time or dies it is killed, the
batch is reported as failed, and the next call starts a new one; it imports no torch, so that this
takes no longer than Python itself. NOTE: this protects the run from mistakes, not the machine from
malice: the functions are the user's own code.
"""

import importlib.util
import inspect
import multiprocessing
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, cast

from rorqual.tasks.base import Problem, Score
from rorqual.tasks.registry import load_task

_LOADING_SECONDS = 180.0  # a user's file may import torch, on a busy machine


@dataclass(frozen=True, slots=True)
class WorkerOutcome:
    """Values, or in words why there are none."""

    values: list[Any]
    problem: str | None = None


def _load_function(name: str) -> Any:
    path, _, attribute = name.rpartition(":")
    spec = importlib.util.spec_from_file_location(f"rorqual_reward_{Path(path).stem}", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, attribute)


def _reward(function: Any, columns: dict[str, Any]) -> list[float | None]:
    values = function(**columns)
    if inspect.isawaitable(values):
        raise TypeError("async reward functions are not supported; return the list itself")
    return [None if value is None else float(value) for value in values]


def _score(task: Any, pairs: list[tuple[Problem, str]]) -> list[Score]:
    return [task.score(problem, text) for problem, text in pairs]


def _serve(connection: "Connection[Any, Any]") -> None:
    """Answer requests until the pipe closes: "loaded", then the answer."""
    loaded: dict[str, Any] = {}
    while True:
        try:
            kind, name, payload = connection.recv()
        except EOFError:
            return
        load, ask = (_load_function, _reward) if kind == "reward" else (load_task, _score)
        try:
            if name not in loaded:
                loaded[name] = load(name)
            connection.send(("loaded", None))
            connection.send(("ok", ask(loaded[name], payload)))
        except Exception:
            last = traceback.format_exc().strip().splitlines()
            connection.send(
                ("raised", f"raised {last[-1]} ({last[-2].strip() if len(last) > 1 else ''})")
            )


class RewardWorker:
    """Starts its process when it is first asked."""

    def __init__(self, timeout_seconds: float):
        self.timeout_seconds = timeout_seconds
        self._process: SpawnProcess | None = None
        self._connection: Connection[Any, Any] | None = None

    def call(self, name: str, columns: dict[str, Any], count: int) -> WorkerOutcome:
        """A reward function's values for a batch of `count`."""
        outcome = self._ask("reward", name, columns)
        if outcome.problem is None and len(outcome.values) != count:
            return WorkerOutcome(
                [], f"returned {len(outcome.values)} values for {count} completions"
            )
        return outcome

    def score(self, name: str, pairs: Sequence[tuple[Problem, str]]) -> WorkerOutcome:
        """A user's task's scores of (problem, completion) pairs."""
        outcome = self._ask("score", name, list(pairs))
        if outcome.problem is None and not all(isinstance(v, Score) for v in outcome.values):
            return WorkerOutcome([], "score returned something else than a Score")
        return outcome

    def close(self) -> None:
        """Kill the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, kind: str, name: str, payload: Any) -> WorkerOutcome:
        try:
            connection = self._start()
            connection.send((kind, name, payload))
            status, answer = self._receive(connection, _LOADING_SECONDS)
            if status == "loaded":
                status, answer = self._receive(connection, self.timeout_seconds)
        except TimeoutError as error:
            self.close()
            return WorkerOutcome([], f"{error}, stopped it")
        except (EOFError, OSError) as error:
            self.close()
            return WorkerOutcome([], f"its process died ({type(error).__name__})")
        return WorkerOutcome(answer) if status == "ok" else WorkerOutcome([], str(answer))

    def _receive(self, connection: "Connection[Any, Any]", seconds: float) -> tuple[str, Any]:
        if not connection.poll(seconds):
            raise TimeoutError(f"gave no answer in {seconds:g} s")
        return connection.recv()

    def _start(self) -> "Connection[Any, Any]":
        if self._connection is None:
            context = multiprocessing.get_context("spawn")
            here, there = cast("tuple[Connection[Any, Any], Connection[Any, Any]]", context.Pipe())
            self._process = context.Process(target=_serve, args=(there,), daemon=True)
            self._process.start()
            there.close()
            self._connection = here
        return self._connection
