"""Models that are not served yet: fetched by name in a process of their own, loaded, then served.

One at a time. How far it is lives here and not in a connection, so that a page may be reloaded, and
a failure stays until somebody tries again. The file is fetched by the code of `rorqual serve NAME`;
the signature is judged as those of configured models are; memory is counted by the engine's own
process before it reads the weights, and a model that does not fit is never served.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from rorqual.checkpoint.models import (
    PACKAGED,
    FetchFailure,
    PackagedModel,
    packaged_cache,
    packaged_file,
)
from rorqual.config.http import ServedModel
from rorqual.config.server import ServerConfig
from rorqual.errors import RequestError, RorqualError
from rorqual.platform import NotAllowed, NotFound
from rorqual.server.backends import Backend
from rorqual.server.errors import INTERNAL
from rorqual.server.logs import RequestLog
from rorqual.server.models import Models, open_model, refuses_unsigned, trusted_keys

FailureCode = FetchFailure | Literal["disk_full", "not_loaded", "failed"]
_END_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.1


@dataclass(slots=True)
class Fetch:
    """How far a model is; a failed one says why."""

    state: Literal["fetching", "loading", "failed"] = "fetching"
    received_bytes: int = 0
    code: FailureCode | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that could be served. is_stored: its file is on this machine already."""

    name: str
    model: PackagedModel
    file: Path
    is_stored: bool
    fetch: Fetch | None


class FetchFailed(Exception):
    """One attempt is over."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code: FailureCode = code


class Fetcher:
    """The models that are not served, and the one that is on its way."""

    def __init__(self, config: ServerConfig, models: Models, log: RequestLog) -> None:
        self._config = config
        self._models = models
        self._log = log
        self._fetches: dict[str, Fetch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def offers(self) -> Iterator[Offer]:
        """Every known model that is not served here, under whatever name."""
        try:
            cache = packaged_cache()
        except RuntimeError:  # a user without a home has nowhere to keep them
            return
        served = {Path(model.path).resolve() for model in self._config.models if model.path}
        for name, model in PACKAGED.items():
            file = packaged_file(name, model, cache)
            if not self._models.is_served(name) and file.resolve() not in served:
                yield Offer(name, model, file, file.is_file(), self._fetches.get(name))

    def offer(self, name: str) -> Offer:
        """One of them; NotFound if it is served already, or not known."""
        for offer in self.offers():
            if offer.name == name:
                return offer
        raise NotFound(f"model {name[:100]} is served already, or not known; list the models")

    def start(self, name: str) -> None:
        """Begins to fetch and to load a model; once, however often it is asked for."""
        offer = self.offer(name)
        if name in self._tasks:
            return
        if self._tasks:
            raise RequestError(f"{next(iter(self._tasks))} is being fetched; wait", code="busy")
        # What a package brings has no signature beside it; only a file that is here can be signed.
        if not offer.is_stored and refuses_unsigned(self._config):
            raise NotAllowed(
                f"model {name}: unsigned, and this server refuses unsigned models; start it with "
                "--allow-unsigned",
                code="unsigned",
            )
        self._fetches[name] = Fetch()
        self._tasks[name] = asyncio.create_task(self._bring(offer), name=f"fetch-{name}")

    async def cancel(self, name: str) -> None:
        """Ends a model's fetch, or forgets that it failed; returns when nothing of it runs."""
        task = self._tasks.get(name)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._fetches.pop(name, None)

    async def stop(self) -> None:
        """Ends what is under way."""
        for name in list(self._tasks):
            await self.cancel(name)

    async def _bring(self, offer: Offer) -> None:
        """One attempt, from nothing to a model that is served."""
        name, fetch = offer.name, self._fetches[offer.name]
        try:
            await _download(offer, fetch)
            fetch.state = "loading"
            self._models.add(await self._load(offer))
            del self._fetches[name]
        except FetchFailed as failure:
            fetch.code, fetch.message = failure.code, str(failure)
        except RorqualError as error:
            fetch.code, fetch.message = "not_loaded", str(error)
        except Exception as error:  # the edge: the page must see an end
            self._log.line("failure", fetch=name, kind=type(error).__name__)
            fetch.code, fetch.message = "failed", INTERNAL
        finally:
            fetch.state = "failed" if fetch.code else fetch.state
            del self._tasks[name]

    async def _load(self, offer: Offer) -> Backend:
        """The model on an engine that is ready."""
        served = ServedModel.model_validate(
            {"name": offer.name, "title": offer.model.title, "path": str(offer.file)}
        )
        trusted = await asyncio.to_thread(trusted_keys, self._config)
        backend = await asyncio.to_thread(open_model, served, self._config, trusted)
        await backend.start()
        try:
            while (stats := backend.stats()).state != "ready":
                if stats.state != "loading":  # nobody waits for a second try of the same
                    raise FetchFailed("not_loaded", stats.last_error or "its engine ended")
                await asyncio.sleep(_LOOK_SECONDS)
        except BaseException:
            await backend.stop()
            raise
        return backend


async def _download(offer: Offer, fetch: Fetch) -> None:
    """Has the file brought, in a process that ends with us."""
    order = {"name": offer.name, "model": asdict(offer.model), "file": str(offer.file)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rorqual.checkpoint.fetch_worker", json.dumps(order),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    last: dict[str, Any] = {}
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            last = json.loads(line)
            fetch.received_bytes = max(fetch.received_bytes, last.get("received", 0))
    finally:
        await _end(process)
    if "failed" in last:
        raise FetchFailed(last["failed"]["code"], last["failed"]["message"])
    if "done" not in last:
        raise FetchFailed("failed", f"the download's process ended with {process.returncode}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Tell it to end, then make it end: pip, its child, is in the same group."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _END_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
