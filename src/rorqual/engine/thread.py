"""The engine in a thread of its own, for a server: requests go in from any thread, deltas come out.

Callers only ever append to a list under a lock; all work on the engine is done by its thread,
between two steps. `on_delta` is called in the engine's thread, once per step and request, and
must return at once (hand the deltas to an event loop).
"""

import threading
from collections.abc import Callable
from typing import Final

from rorqual.engine.engine import Engine
from rorqual.engine.requests import EngineStats, OnDelta, Request
from rorqual.engine.runner import ReadTensor
from rorqual.errors import CapacityError, EngineError

_CLOSED: Final = "the engine was closed"


class EngineThread:
    """Runs an Engine until closed. A failed step fails the requests in flight, not the thread."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._condition = threading.Condition()
        self._commands: list[Callable[[], None]] = []
        self._num_entering = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="rorqual-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, on_delta: OnDelta) -> None:
        """Queue a request; it is checked here, in the caller's thread.

        RequestError or CapacityError if it cannot be served; later failures come as deltas.
        """
        group = self._engine.admission.prepare(request, on_delta)
        limit = self._engine.config.max_waiting_requests
        with self._condition:
            self._check_open()
            num_waiting = len(self._engine.scheduler.waiting) + self._num_entering
            if num_waiting >= limit:
                raise CapacityError(
                    f"{num_waiting} requests are waiting, max_waiting_requests is {limit}; try "
                    "again later"
                )
            self._num_entering += 1
            self._commands.append(lambda: self._engine.enter_or_refuse(group))
            self._condition.notify()

    def cancel(self, request_id: str) -> None:
        """End a request before the next step; its last deltas say so. Unknown ids are ignored."""
        self._command(lambda: self._engine.cancel(request_id))

    def update(self, read: ReadTensor) -> None:
        """Take new weights; returns when they are in place."""
        done = threading.Event()
        failed: list[BaseException] = []

        def command() -> None:
            try:
                self._engine.update(read)
            except Exception as error:  # the caller's to handle, in the caller's thread
                failed.append(error)
            finally:
                done.set()

        self._command(command)
        done.wait()
        if failed:
            raise failed[0]

    def stats(self) -> EngineStats:
        """The engine's load and totals."""
        return self._engine.stats()

    def close(self) -> None:
        """End every request with an EngineError, stop the thread and give back the memory."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()

    def _command(self, command: Callable[[], object]) -> None:
        with self._condition:
            self._check_open()
            self._commands.append(lambda: (command(), None)[1])
            self._condition.notify()

    def _check_open(self) -> None:
        if self._closing:
            raise EngineError(f"{_CLOSED}; open another one")

    def _run(self) -> None:
        engine = self._engine
        while True:
            with self._condition:
                while not (self._commands or engine.has_work or self._closing):
                    self._condition.wait()
                commands, self._commands = self._commands, []
                self._num_entering = 0
                closing = self._closing
            for command in commands:
                try:
                    command()
                except Exception as error:  # a bug of ours: the thread has to live on
                    engine.fail_all(f"the engine failed between steps: {error!r}")
            if closing:
                engine.fail_all(_CLOSED)
                engine.runner.close()
                return
            try:
                engine.step()
            except EngineError:
                continue  # its requests have been told, and stats() says why
