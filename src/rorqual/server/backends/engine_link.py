"""The way to an engine: in a thread of this process (tests), or in a process beside it."""

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from rorqual.engine import Delta, Engine, EngineStats, Request
from rorqual.errors import EngineError
from rorqual.server.backends.base import BackendState
from rorqual.server.backends.engine_host import EngineHost

OnDeltas = Callable[[list[Delta]], None]


class EngineLink(Protocol):
    """Requests to an engine and deltas back, on the event loop's thread.

    A request whose engine dies gets a delta with an EngineError; none is left without an end.
    """

    state: BackendState
    stats: EngineStats | None
    num_restarts: int
    last_error: str | None

    async def start(self) -> None:
        """Begin; returns before the model is loaded."""
        ...

    async def stop(self) -> None:
        """End the engine."""
        ...

    def submit(self, request: Request, on_deltas: OnDeltas) -> None:
        """Send a request; what is wrong with it arrives as a delta."""
        ...

    def cancel(self, request_id: str) -> None:
        """Ask for a request's end."""
        ...

    def forget(self, request_id: str) -> None:
        """Its deltas are no longer wanted."""
        ...


class Listeners:
    """Who waits for the deltas of which request."""

    def __init__(self) -> None:
        self._waiting: dict[str, OnDeltas] = {}

    def add(self, request_id: str, on_deltas: OnDeltas) -> None:
        """From now on."""
        self._waiting[request_id] = on_deltas

    def remove(self, request_id: str) -> None:
        """Its deltas are no longer wanted."""
        self._waiting.pop(request_id, None)

    def tell(self, deltas: list[Delta]) -> None:
        """Hand a step's deltas to those they are for."""
        by_request: dict[str, list[Delta]] = {}
        for delta in deltas:
            by_request.setdefault(delta.request_id, []).append(delta)
        for name, found in by_request.items():
            on_deltas = self._waiting.get(name)
            if on_deltas is not None:
                on_deltas(found)

    def fail_one(self, request_id: str, reason: str) -> None:
        """End one request with an error."""
        self.tell([Delta(request_id, 0, [], finish_reason="error", error=EngineError(reason))])

    def fail_all(self, reason: str) -> None:
        """End every request with an error."""
        for name in list(self._waiting):  # not those who come because of it
            self.fail_one(name, reason)
            self.remove(name)


class ThreadLink:
    """An engine in a thread of this process."""

    def __init__(self, engine: Engine) -> None:
        self.state: BackendState = "loading"
        self.stats: EngineStats | None = None
        self.num_restarts = 0
        self.last_error: str | None = None
        self._host = EngineHost(engine, self._deliver)
        self._listeners = Listeners()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._host.run, name="rorqual-engine", daemon=True)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self.state = "ready"

    async def stop(self) -> None:
        self._host.close()
        await asyncio.to_thread(self._thread.join)
        self.state = "down"
        self._listeners.fail_all("the server is shutting down")

    def submit(self, request: Request, on_deltas: OnDeltas) -> None:
        self._listeners.add(request.id, on_deltas)
        self._host.submit(request)

    def cancel(self, request_id: str) -> None:
        self._host.cancel(request_id)

    def forget(self, request_id: str) -> None:
        self._listeners.remove(request_id)

    def _deliver(self, deltas: list[Delta], stats: EngineStats) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._tell, deltas, stats)

    def _tell(self, deltas: list[Delta], stats: EngineStats) -> None:
        self.stats = stats
        self._listeners.tell(deltas)
