"""An engine in its own process: started, watched, restarted; requests in flight fail cleanly.

The two speak frames over a socket pair. The child ends by itself when its end of the socket closes,
so that a killed server leaves no engine behind. A child that dies or falls silent is replaced, with
pauses that double; its requests end with an error at once.
"""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from rorqual.config.http import WatchConfig
from rorqual.engine import EngineStats, Request
from rorqual.server.backends.base import BackendState
from rorqual.server.backends.engine_link import Listeners, OnDeltas
from rorqual.server.backends.frames import FrameReader, delta_from_json, pack, request_to_json

_LONGEST_PAUSE_SECONDS: Final = 60.0
_CALM_SECONDS: Final = 60.0  # an engine that lived so long is restarted without a pause again
_END_SECONDS: Final = 5.0
_READ_BYTES: Final = 1 << 18


class ProcessLink:
    """Keeps one engine process running. `settings` is the first frame that it gets."""

    def __init__(
        self,
        settings: dict[str, Any],
        watch: WatchConfig,
        *,
        command: Sequence[str] = (sys.executable, "-m", "rorqual.server.backends.worker"),
    ) -> None:
        self.state: BackendState = "loading"
        self.stats: EngineStats | None = None
        self.num_restarts = 0
        self.last_error: str | None = None
        self._settings = settings
        self._watch = watch
        self._command = list(command)
        self._listeners = Listeners()
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard_seconds = 0.0

    @property
    def pid(self) -> int | None:
        """The engine's process, while there is one."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        self._task = asyncio.create_task(self._keep_running(), name="engine-process")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.state = "down"
        self._listeners.fail_all("the server is shutting down")

    def submit(self, request: Request, on_deltas: OnDeltas) -> None:
        self._listeners.add(request.id, on_deltas)
        writer = self._open_writer
        if writer is None or self.state != "ready":
            state = "restarting" if self.state == "ready" else self.state
            reason = f"the engine is {state}; try again shortly"
            asyncio.get_running_loop().call_soon(self._listeners.fail_one, request.id, reason)
            return
        writer.write(pack({"do": "submit", "request": request_to_json(request)}))

    def cancel(self, request_id: str) -> None:
        if self._open_writer is not None:
            self._open_writer.write(pack({"do": "cancel", "id": request_id}))

    @property
    def _open_writer(self) -> asyncio.StreamWriter | None:
        """None also in the moment between the process's death and our noticing it."""
        return None if self._writer is None or self._writer.is_closing() else self._writer

    def forget(self, request_id: str) -> None:
        self._listeners.remove(request_id)

    async def _keep_running(self) -> None:
        pause = self._watch.restart_seconds
        while True:
            started = time.monotonic()
            try:
                await self._run_once()
            except (OSError, ValueError, RuntimeError) as error:
                self.last_error = f"{type(error).__name__}: {error}"
            self.state = "restarting"
            if time.monotonic() - started > _CALM_SECONDS:
                pause = self._watch.restart_seconds
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self.num_restarts += 1

    async def _run_once(self) -> None:
        """One life of the engine's process."""
        reader, self._writer = await self._spawn()
        try:
            self._writer.write(pack(self._settings))
            self._heard_seconds = time.monotonic()
            await _first_to_end(self._listen(reader), self._watch_over())
        except _EngineGone as gone:
            self.last_error = str(gone)
        finally:
            self.state, self.stats = "restarting", None
            self._writer.close()
            self._writer = None
            self._listeners.fail_all(f"the engine failed ({self.last_error}); it is restarted")
            if self._process is not None:
                await _end(self._process)
            self._process = None

    async def _spawn(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new process, and our end of its socket."""
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else None,
                env=os.environ | {"OMP_WAIT_POLICY": "passive"},
            )
            return await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()  # the process ends when it sees that
            raise
        finally:
            theirs.close()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        frames = FrameReader()
        while data := await reader.read(_READ_BYTES):
            self._heard_seconds = time.monotonic()
            for message in frames.feed(data):
                self._take(message)
        raise _EngineGone(self.last_error or "its process ended")

    def _take(self, message: dict[str, Any]) -> None:
        if "failed" in message:
            self.last_error = message["failed"]
            return
        if "stats" in message:
            self.stats = EngineStats(**message["stats"])
        if "ready" in message:
            self.state = "ready"
            self.last_error = None
        self._listeners.tell([delta_from_json(raw) for raw in message.get("deltas", ())])

    async def _watch_over(self) -> None:
        """Raises when the process has been silent for too long."""
        while True:
            is_up = self.state == "ready"
            limit = self._watch.silence_seconds if is_up else self._watch.start_seconds
            left = self._heard_seconds + limit - time.monotonic()
            if left <= 0:
                raise _EngineGone(f"it said nothing for {limit:g} seconds")
            await asyncio.sleep(min(left, 1.0))


class _EngineGone(Exception):
    """This life of the engine is over."""


async def _first_to_end(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run them together until one ends or raises; the others are cancelled."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Give the process a moment to end by itself, then kill it."""
    try:
        await asyncio.wait_for(process.wait(), _END_SECONDS if process.returncode is None else None)
    except TimeoutError:
        process.kill()
        await process.wait()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise


def _has_descriptor(stream: Any) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    return True


def engine_settings(model: str, engine: dict[str, Any]) -> dict[str, Any]:
    """The first frame: which model, and EngineConfig's fields."""
    return json.loads(json.dumps({"model": model, "engine": engine}))
