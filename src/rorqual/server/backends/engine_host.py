"""An engine that is driven: requests come from any thread, steps run in one, deltas leave per step.

Checking a request and compiling its structure happens in the caller's thread or in a pool, so that
the engine loses no step to it. Used in the engine's own process, and in a thread by tests.
"""

import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from rorqual.engine import Delta, Engine, EngineStats, Request
from rorqual.engine.sequence import Group
from rorqual.errors import EngineError, RorqualError

Deliver = Callable[[list[Delta], EngineStats], None]
_COMPILERS: Final = 2
_MAX_FAILURES: Final = 3  # steps in a row; then the engine is taken to be beyond repair


class EngineHost:
    """Runs one engine. `deliver` gets each step's deltas at once, and now and then only figures."""

    def __init__(self, engine: Engine, deliver: Deliver, *, beat_seconds: float = 1.0) -> None:
        self._engine = engine
        self._deliver = deliver
        self._beat_seconds = beat_seconds
        self._commands: queue.SimpleQueue[Group | str | list[Delta] | None] = queue.SimpleQueue()
        self._compilers = ThreadPoolExecutor(_COMPILERS, "rorqual-structures")
        self._lock = threading.Lock()
        self._preparing: set[str] = set()
        self._given_up: set[str] = set()
        self._deltas: list[Delta] = []

    def submit(self, request: Request) -> None:
        """Take a request, from any thread; whatever is wrong with it arrives as its delta."""
        with self._lock:
            self._preparing.add(request.id)
        if request.params.structure is None:
            self._prepare(request)
        else:
            self._compilers.submit(self._prepare, request)

    def cancel(self, request_id: str) -> None:
        """End a request, from any thread."""
        with self._lock:
            if request_id in self._preparing:
                self._given_up.add(request_id)
        self._commands.put(request_id)

    def close(self) -> None:
        """Make `run` return, from any thread."""
        self._commands.put(None)

    def run(self) -> None:
        """Step until closed. EngineError if steps keep failing."""
        failures = 0
        last_beat = time.monotonic()
        while self._obey():
            worked = False
            try:
                worked = self._engine.step()
                failures = 0
            except EngineError as error:
                failures += 1
                print(f"engine: {error}", file=sys.stderr, flush=True)
                if failures == _MAX_FAILURES:
                    raise
            now = time.monotonic()
            if self._deltas or (now - last_beat >= self._beat_seconds and not worked):
                last_beat = now
                deltas, self._deltas = self._deltas, []
                self._deliver(deltas, self._engine.stats())
        self._compilers.shutdown(wait=False, cancel_futures=True)
        self._engine.fail_all("the engine is shutting down")
        self._deliver(self._deltas, self._engine.stats())

    def _obey(self) -> bool:
        """Carry out what was asked since the last step; False once closed."""
        wait = not self._engine.has_work and not self._deltas
        while True:
            try:
                command = (
                    self._commands.get(timeout=self._beat_seconds)
                    if wait
                    else (self._commands.get_nowait())
                )
            except queue.Empty:
                return True
            wait = False
            if command is None:
                return False
            if isinstance(command, str):
                self._engine.cancel(command)
            elif isinstance(command, list):
                self._deltas += command
            else:
                self._enter(command)

    def _prepare(self, request: Request) -> None:
        try:
            group = self._engine.admission.prepare(request, self._collect)
        except RorqualError as error:
            self._refuse(request.id, error)
        except Exception as error:  # a bug of ours must not leave the client waiting
            self._refuse(request.id, EngineError(f"{type(error).__name__}: {error}"))
        else:
            self._commands.put(group)

    def _enter(self, group: Group) -> None:
        name = group.request.id
        with self._lock:
            self._preparing.discard(name)
            given_up = name in self._given_up
            self._given_up.discard(name)
        if given_up:
            self._deltas.append(Delta(name, 0, [], finish_reason="cancelled"))
            return
        try:
            self._engine.enter(group)
        except RorqualError as error:
            self._deltas.append(Delta(name, 0, [], finish_reason="error", error=error))

    def _refuse(self, name: str, error: RorqualError) -> None:
        with self._lock:
            self._preparing.discard(name)
            self._given_up.discard(name)
        self._commands.put([Delta(name, 0, [], finish_reason="error", error=error)])

    def _collect(self, deltas: list[Delta]) -> None:
        self._deltas += deltas
