"""One request, answered: queue, keep-alives, stream or whole, disconnects, slow readers.

A plain ASGI application made for one request. It answers with a proper status for as long as
nothing was sent; a stream that has begun ends with an error event instead. When the client goes
away the generation is cancelled, and what was generated is billed.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from starlette.types import Message, Receive, Scope, Send

from rorqual.engine import Usage
from rorqual.errors import RorqualError
from rorqual.platform import DeadlineExceeded
from rorqual.server.errors import error_body, status_of
from rorqual.server.generation import Generation
from rorqual.server.replies import limit_headers, raw_headers
from rorqual.server.services import Services
from rorqual.server.wire.answer import AnswerWriter, to_json

_READ_SECONDS: Final = 60.0  # beyond the deadline, for a reader who takes little at a time
_QUIET_SECONDS: Final = 0.5  # a queue shorter than this passes without a word


READER: Final = "rorqual.reader"  # in a scope: the connection, as far as it concerns an answer


class Reader(Protocol):
    """Whoever an answer is for."""

    @property
    def is_gone(self) -> bool:
        """Whether what is sent to it vanishes."""
        ...

    def call_when_gone(self, callback: Callable[[], object] | None) -> None:
        """What to do when it leaves, perhaps more than once; None: nothing any more."""
        ...


class _ReaderGone(Exception):
    """The client has left, or takes nothing."""


class Answering:
    """Sends one generation's answer. `headers` are those that are known before it starts.

    before_end: what is done with an answer that is complete before its reader hears so.
    """

    def __init__(
        self,
        services: Services,
        generation: Generation,
        writer: AnswerWriter,
        *,
        stream: bool,
        headers: dict[str, str],
        before_end: Callable[[Usage], Awaitable[None]] | None = None,
    ) -> None:
        self._services = services
        self._generation = generation
        self._writer = writer
        self._stream = stream
        self._headers = headers
        self._before_end = before_end
        self._begun = False
        self._reader: Reader | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._generation:
            reader: Reader | None = scope.get(READER)
            self._reader = reader
            most = self._generation.deadline_seconds + _READ_SECONDS
            deadline = asyncio.timeout(most)
            try:
                async with deadline:
                    if reader is not None:
                        reader.call_when_gone(partial(_end_now, deadline))
                    await self._answer(scope, send)
            except TimeoutError:
                if not deadline.expired():
                    raise
            finally:
                if reader is not None:
                    reader.call_when_gone(None)

    async def _answer(self, scope: Scope, send: Send) -> None:
        scope["rorqual.generation"] = self._generation
        try:
            if self._stream:
                await self._answer_stream(send)
            else:
                await self._answer_whole(send)
            if self._generation.was_cut_off:
                scope["rorqual.failed"] = DeadlineExceeded.code
        except _ReaderGone:
            return
        except RorqualError as error:
            if not self._begun:
                raise
            scope["rorqual.failed"] = getattr(error, "code", "engine_error")
            await self._fail(send, error)

    async def _answer_stream(self, send: Send) -> None:
        generation, writer = self._generation, self._writer
        seconds = _QUIET_SECONDS
        while not await generation.wait_started(seconds):
            await self._send(send, writer.keep_alive())
            seconds = self._services.config.http.keep_alive_seconds
        first, last = True, b""
        async for found in generation.chunks(self._services.config.http.keep_alive_seconds):
            if not found:
                await self._send(send, writer.keep_alive())
                continue
            usage = generation.usage if generation.has_ended else None
            body = (writer.begin() if first else b"") + writer.write(found, usage)
            first = False
            if generation.is_complete:  # goes with what ends it, in one piece
                last = body
            else:
                await self._send(send, body)
        if self._before_end is not None:
            await self._before_end(generation.usage)
        last = writer.begin() if first else last
        await self._send(send, last + writer.end(generation.usage), is_last=True)

    async def _answer_whole(self, send: Send) -> None:
        generation = self._generation
        generation.is_whole = True
        while not await generation.wait_started(self._services.config.http.keep_alive_seconds):
            if self._writer.dialect == "deepseek":
                await self._send(send, b"\n")  # as the original does; JSON may begin with space
        async for found in generation.chunks():
            self._writer.add(found)
        if self._before_end is not None:
            await self._before_end(generation.usage)
        body = to_json(self._writer.whole(generation.usage)).encode("utf-8", "replace")
        if not self._begun:
            self._headers["content-length"] = str(len(body))
        await self._send(send, body, is_last=True)

    async def _fail(self, send: Send, error: RorqualError) -> None:
        dialect = self._writer.dialect
        body = error_body(error, dialect, status_of(error, dialect))
        with contextlib.suppress(_ReaderGone):
            await self._send(
                send,
                self._writer.fail(body) if self._stream else to_json(body).encode(),
                is_last=True,
            )

    async def _send(self, send: Send, body: bytes, *, is_last: bool = False) -> None:
        if not self._begun:
            self._begun = True
            kind = "text/event-stream; charset=utf-8" if self._stream else "application/json"
            extra = {"cache-control": "no-store", "x-accel-buffering": "no"} if self._stream else {}
            headers = {
                "content-type": kind,
                **extra,
                **self._headers,
                **limit_headers(self._services, self._generation),
            }
            start: Message = {
                "type": "http.response.start",
                "status": 200,
                "headers": raw_headers(headers),
            }
            await send(start)
        if body or is_last:
            message = {"type": "http.response.body", "body": body, "more_body": not is_last}
            await self._bounded(send, message)
        if is_last and self._generation.has_ended:  # else its place is still taken
            self._generation.leave()

    async def _bounded(self, send: Send, message: Message) -> None:
        """Waits for a slow reader; one that takes nothing is cut off by its connection.

        What is sent to a connection that has closed vanishes without a word, and the word that it
        has closed may come some batches later: they would be billed and never arrive.
        """
        if self._reader is not None and self._reader.is_gone:
            raise _ReaderGone
        await send(message)


def _end_now(deadline: asyncio.Timeout) -> None:
    """What ends an answer early ends it as a deadline does that passes now."""
    with contextlib.suppress(RuntimeError):  # it has just passed
        deadline.reschedule(asyncio.get_running_loop().time())
