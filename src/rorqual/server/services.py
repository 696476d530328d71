"""Everything a request handler may need, in one place, made once."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import ParamSpec, TypeVar

from rorqual.config.server import ServerConfig
from rorqual.platform import ApiKey, Platform, QueueFull, User
from rorqual.server.backends.base import LONG_CHARACTERS
from rorqual.server.fetcher import Fetcher
from rorqual.server.known_keys import KnownKeys
from rorqual.server.logs import RequestLog
from rorqual.server.metrics import Metrics
from rorqual.server.models import Models

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asker:
    """Who sends a request, from where, and with which key (None: the app, or local mode).

    deadline_seconds: how long they want to wait for the whole answer; None: as long as we let them.
    """

    user: User
    key: ApiKey | None
    address: str
    deadline_seconds: float | None = None

    @property
    def key_id(self) -> str | None:
        """The key's id."""
        return None if self.key is None else self.key.id


@dataclass
class Services:
    """What the handlers work with. `draining`: the server takes no new work."""

    config: ServerConfig
    platform: Platform
    models: Models
    metrics: Metrics = field(default_factory=Metrics)
    log: RequestLog = field(default_factory=RequestLog)
    known_keys: KnownKeys = field(default_factory=KnownKeys)
    started_seconds: float = field(default_factory=time.time)
    draining: bool = False
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(8, "rorqual-database")
    )

    @cached_property
    def fetcher(self) -> Fetcher:
        """Brings models that are not served yet."""
        return Fetcher(self.config, self.models, self.log)

    @property
    def is_local(self) -> bool:
        """One user, nobody asked for a key, nothing billed."""
        return self.config.mode == "local"

    @cached_property
    def local_user(self) -> User:
        """The one user of local mode."""
        return self.platform.accounts.local_user()

    def check_room(self, num_characters: int) -> None:
        """Refuses a long prompt before it is tokenised when the queue is full.

        Short ones cost nothing to count, and admission may still prefer them to others.
        """
        queued = self.platform.admission.num_queued
        if num_characters > LONG_CHARACTERS and queued >= max(1, self.config.admission.max_queued):
            raise QueueFull(f"{queued} requests wait already; try again", 5.0)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A blocking call of the platform, off the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, lambda: function(*args, **kwargs))

    async def look_up(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A call that reads one row: at once from a file, whose answer takes less time than the
        way to a thread, and `call` from a server."""
        if self.platform.database.is_sqlite:
            return function(*args, **kwargs)
        return await self.call(function, *args, **kwargs)

    async def start(self) -> None:
        """Starts the engines and the platform's keeper."""
        self.platform.start()
        if self.is_local:
            await self.call(lambda: self.local_user)
        for backend in self.models:
            await backend.start()

    async def stop(self) -> None:
        """Ends the engines; requests in flight end with an error."""
        await self.fetcher.stop()
        await asyncio.gather(*(backend.stop() for backend in self.models))
        await asyncio.to_thread(self.platform.close)
        self.threads.shutdown(wait=False, cancel_futures=True)


async def outcome_of(future: Future[T]) -> T:
    """What another thread's future comes to. Its work goes on if the caller is cancelled."""
    if not future.done():
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not woken.done():  # the caller may have been cancelled
                woken.set_result(None)

        def done(_: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(wake)

        future.add_done_callback(done)
        await woken
    return future.result()
