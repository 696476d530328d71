"""Runs: answers that are written into a log, whoever reads along.

A run belongs to the server that started it, not to a connection. Its events are committed together
with its token counts, then readers are woken. When the server goes, what was written stays; a
sweeper ends the run as interrupted.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rorqual.errors import RorqualError
from rorqual.platform import RequestClosed, Run, TokenCounts
from rorqual.server.backends import Chunk
from rorqual.server.generation import Generation
from rorqual.server.services import Services

_QUEUE_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 20.0
Event = tuple[str, Mapping[str, Any]]


class RunKeeper:
    """The runs of this process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping: set[str] = set()
        self._generations: dict[str, Generation] = {}
        self._changed: dict[str, asyncio.Event] = {}

    def start(self, run: Run, generation: Generation) -> None:
        """Begins to write a run's answer; the generation is the keeper's from now on."""
        task = asyncio.create_task(self._keep(run, generation), name=f"run-{run.id}")
        self._tasks[run.id] = task
        self._generations[run.id] = generation
        task.add_done_callback(lambda _: self._forget(run.id))

    async def stop(self, run_id: str) -> None:
        """Ends a run of this process; returns when the engine has stopped. Else does nothing."""
        task = self._tasks.get(run_id)
        if task is None:
            return
        self._stopping.add(run_id)
        generation = self._generations.get(run_id)
        if generation is not None:
            generation.cancel()
        await asyncio.wait({task}, timeout=_STOP_SECONDS)

    async def wait_changed(self, run_id: str, seconds: float) -> None:
        """Returns when the run has new events, or after a while."""
        changed = self._changed.setdefault(run_id, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), seconds)

    def is_mine(self, run_id: str) -> bool:
        """Whether this process writes the run."""
        return run_id in self._tasks

    async def drain(self, seconds: float) -> None:
        """Waits for runs to end, then ends them as interrupted, their text kept."""
        tasks = set(self._tasks.values())
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=seconds)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _keep(self, run: Run, generation: Generation) -> None:
        """One run from its first event to its last."""
        state, details = "interrupted", {"error": "the server stopped"}
        try:
            state, details = await self._write(run, generation)
        except asyncio.CancelledError:
            await self._end(run.id, state, details)
            raise
        except _StoppedEarly:
            state, details = "stopped", {"finish_reason": "cancelled"}
        except RequestClosed:
            return  # deleted with its conversation, or ended by somebody else
        except RorqualError as error:
            state, details = "failed", {"error": str(error)}
        except Exception as error:  # the edge: the reader must see an end
            self._services.log.line("failure", run_id=run.id, kind=type(error).__name__)
            state, details = "failed", {"error": "something failed on our side"}
        await self._end(run.id, state, details)

    async def _write(self, run: Run, generation: Generation) -> tuple[str, dict[str, Any]]:
        async with generation:
            await self._queue(run, generation)
            await self._append(run.id, [("start", {"model": generation.model})])
            thinking = _ThinkingClock()

            async def commit(chunks: list[Chunk], counts: TokenCounts | None) -> None:
                events = events_of(chunks)
                if events or counts is not None:
                    await self._append(run.id, events, counts)

            generation.commit = commit
            finish = "stop"
            async for chunks in generation.chunks():
                thinking.see(chunks)
                finish = next((chunk.finish for chunk in chunks if chunk.finish), finish)
            usage = generation.usage
        first = generation.first_token_seconds
        settled = generation.settlement
        details = {
            "model": generation.model,
            "finish_reason": finish,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "cached_tokens": usage.cached_tokens,
                "completion_tokens": usage.completion_tokens,
                "reasoning_tokens": usage.reasoning_tokens,
                "thinking_seconds": thinking.seconds,
                # Both from the request on: the app takes one from the other for the speed.
                "seconds": round(time.monotonic() - generation.opened_seconds, 3),
                "first_token_seconds": None
                if first is None
                else round(first - generation.opened_seconds, 3),
                "cost": None if settled is None else settled.charge_nano,
                "currency": self._services.config.metering.currency,
            },
        }
        return "stopped" if finish == "cancelled" else "finished", details

    async def _queue(self, run: Run, generation: Generation) -> None:
        """Waits for its turn and says where it stands whenever that changes."""
        shown = None
        while not await generation.wait_started(_QUEUE_SECONDS):
            if run.id in self._stopping:
                raise _StoppedEarly
            place = generation.place
            if place.position and place.position != shown:
                shown = place.position
                found = {"position": shown, "seconds": round(place.wait_seconds, 1)}
                await self._append(run.id, [("queue", found)])
        if run.id in self._stopping:
            generation.cancel()

    async def _append(
        self, run_id: str, events: Sequence[Event], counts: TokenCounts | None = None
    ) -> None:
        run = await self._services.call(
            self._services.platform.conversations.append, run_id, events, counts=counts
        )
        if run.stop_requested:
            generation = self._generations.get(run_id)
            if generation is not None:
                generation.cancel()
        self._wake(run_id)

    async def _end(self, run_id: str, state: str, details: Mapping[str, Any]) -> None:
        finish = self._services.platform.conversations.finish
        reason = json.dumps(dict(details), ensure_ascii=False)
        await self._services.call(finish, run_id, state, reason=reason)  # pyright: ignore
        self._wake(run_id)

    def _wake(self, run_id: str) -> None:
        changed = self._changed.pop(run_id, None)
        if changed is not None:
            changed.set()

    def _forget(self, run_id: str) -> None:
        self._tasks.pop(run_id, None)
        self._generations.pop(run_id, None)
        self._stopping.discard(run_id)
        self._wake(run_id)


class _ThinkingClock:
    """How long a model thought: from its first word to the first of its answer, or to the end."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._ended: float | None = None

    def see(self, chunks: Sequence[Chunk]) -> None:
        """Takes chunks as they come."""
        now = time.monotonic()
        if self._began is None and any(chunk.reasoning for chunk in chunks):
            self._began = now
        if self._ended is None and any(chunk.content for chunk in chunks):
            self._ended = now

    @property
    def seconds(self) -> float | None:
        """None where there was no thinking."""
        if self._began is None:
            return None
        return round((self._ended or time.monotonic()) - self._began, 3)


class _StoppedEarly(Exception):
    """The reader stopped the run before its turn came."""


def events_of(chunks: Sequence[Chunk]) -> list[Event]:
    """Chunks as events; neighbours of one kind are one."""
    events: list[Event] = []
    for chunk in chunks:
        for kind, text in (("reasoning", chunk.reasoning), ("content", chunk.content)):
            if not text:
                continue
            if events and events[-1][0] == kind:
                events[-1] = (kind, {"text": events[-1][1]["text"] + text})
            else:
                events.append((kind, {"text": text}))
    return events
