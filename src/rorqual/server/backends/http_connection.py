"""One HTTP/1.1 connection to an upstream: requests one after another, events as they arrive.

What comes is handed on by the callback that reads it, all events of a packet at once: a task that
is woken for each token would cost more than the token's own work. httptools parses. Whatever goes
wrong on the way is an OSError, as with sockets: ConnectionError or TimeoutError.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httptools

_END_SECONDS: Final = 1.0  # for the few bytes behind a stream's last event
_MAX_BODY_BYTES: Final = 16 << 20  # of one event, or of an answer that is not a stream
_MAX_HEADER_BYTES: Final = 1 << 16
_PREFIX: Final = b"data:"
_DONE: Final = b"[DONE]"
_INTERIM: Final = range(100, 200)  # "go on", "early hints": the answer comes behind them

OnEvents = Callable[[list[bytes], bool], None]
"""The data of server-sent events, one line each as in OpenAI's streams, and whether the stream
has said that it is whole."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that has come to its end. body: of what was not handed out as events."""

    status: int
    body: bytes
    is_done: bool

    @property
    def text(self) -> str:
        """The body, read as UTF-8."""
        return self.body.decode("utf-8", "replace")


class UpstreamConnection(asyncio.Protocol):
    """One request at a time.

    on_free is called with it when an answer has come whole and another request may follow, on_lost
    when none can any more. A free one hangs up by itself after idle_seconds.
    """

    def __init__(
        self,
        *,
        idle_seconds: float,
        on_free: Callable[["UpstreamConnection"], None],
        on_lost: Callable[["UpstreamConnection"], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_seconds, self._on_free, self._on_lost = idle_seconds, on_free, on_lost
        self._parser = httptools.HttpResponseParser(self)
        self._closed = False
        self._asked = False  # an answer is due, or its end
        self._reply: asyncio.Future[Reply] | None = None  # until it is there
        self._on_events: OnEvents | None = None
        self._timer: asyncio.TimerHandle | None = None  # until the end of the patience, or sooner
        self._end_timer: asyncio.TimerHandle | None = None
        self._patience_seconds = self._heard_seconds = 0.0
        self._header_bytes = 0
        self._forget()

    def _forget(self) -> None:
        """What the answer before was."""
        self._status = 0
        self._is_framed = self._stays_open = self._is_whole = self._is_done = False
        self._has_lines = False
        self._body = bytearray()  # what of it has not been handed out

    # Asking

    async def ask(
        self, request: bytes, on_events: OnEvents | None, silence_seconds: float
    ) -> Reply:
        """Sends it; the answer. Events of an answer with status 200 are handed out as they come.

        Raises an OSError where there is no answer, or one that breaks off, and what on_events
        raises. Who is cancelled hangs up.
        """
        assert not self._asked, "one request at a time"
        if self._closed:
            raise ConnectionError("the upstream has hung up")
        self._forget()
        self._asked, self._on_events = True, on_events
        self._header_bytes = 0
        reply = self._reply = self._loop.create_future()
        self._watch(silence_seconds)
        self._transport.write(request)
        try:
            return await reply
        except BaseException:
            if self._reply is reply:  # else the next request is under way on it already
                self.close()
            raise
        finally:
            if self._reply is reply:
                self._reply = None

    def close(self) -> None:
        """Hangs up. Who waits for an answer gets a ConnectionError."""
        self._fail(ConnectionError("the connection was closed"))

    # Reading

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard_seconds = time.monotonic()
        if not self._asked:
            self.close()
        if self._closed:
            return
        try:
            self._parser.feed_data(data)
            self._check_head(len(data))
            self._read_body()
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            reason = error.__context__ or error  # what a callback raised is kept there
            self._fail(ConnectionError(f"the upstream's HTTP is not right: {reason}"))
        except Exception as error:  # of on_events: who asked is told
            self._fail(error)

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise ValueError("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._is_framed = True
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise ValueError(f"content-encoding {value[:40]!r}, which was not asked for")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        self._stays_open = self._parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        self._body += part
        self._has_lines = self._has_lines or b"\n" in part

    def on_message_complete(self) -> None:
        if self._status in _INTERIM:
            self._forget()
        else:
            self._is_whole = True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closed:
            return
        if exc is None and self._asked and self._status and not self._is_framed:
            # Its end is the body's.
            self._is_whole = True
            try:
                self._read_body()
            except Exception as error:  # of on_events, again
                self._fail(error)
        self._fail(ConnectionError(f"the upstream has hung up: {exc or 'in the middle'}"))

    def _check_head(self, num_bytes: int) -> None:
        """Of all that comes before the headers of the answer itself are complete."""
        if not self._status:
            self._header_bytes += num_bytes
            if self._header_bytes > _MAX_HEADER_BYTES:
                raise ConnectionError("the upstream sent headers without an end")

    def _read_body(self) -> None:
        """Hands out the events that are there, and the answer when it is whole."""
        was_done = self._is_done
        if self._on_events is not None and self._status == 200 and not was_done:
            self._read_events(self._on_events)
        if len(self._body) > _MAX_BODY_BYTES:
            raise ConnectionError("the upstream sent a line without an end")
        if self._is_whole or self._is_done:
            self._answer()
        if self._is_whole:
            self._set_free()
        elif self._is_done:  # what is left is the end: then the connection can be used again
            self._body.clear()
            if not was_done:
                self._end_timer = self._loop.call_later(_END_SECONDS, self.close)

    def _read_events(self, on_events: OnEvents) -> None:
        if not (self._has_lines or self._is_whole):
            return
        *lines, rest = bytes(self._body).split(b"\n")
        if self._is_whole:
            lines, rest = [*lines, rest], b""
        self._body, self._has_lines = bytearray(rest), False
        events = [line[len(_PREFIX) :].strip() for line in lines if line.startswith(_PREFIX)]
        if _DONE in events:
            self._is_done = True
            del events[events.index(_DONE) :]
        if events or self._is_done:
            on_events(events, self._is_done)

    # Ending

    def _answer(self) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(Reply(self._status, bytes(self._body), self._is_done))

    def _set_free(self) -> None:
        self._asked, self._on_events = False, None
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        if not self._stays_open:
            self.close()
            return
        self._watch(self._idle_seconds)
        self._on_free(self)

    def _fail(self, error: BaseException) -> None:
        """Hangs up; who waits is told why."""
        if self._closed:
            return
        self._closed = True
        self._on_events = None
        for timer in (self._timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        self._transport.abort()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
        self._on_lost(self)

    def _watch(self, patience_seconds: float) -> None:
        """Hangs up when nothing was heard for so long, from now on.

        The timer runs on from one request to the next: to set one for each costs more than to look
        every idle_seconds (a patience shorter than that may be noticed that much later).
        """
        self._heard_seconds = time.monotonic()
        self._patience_seconds = patience_seconds
        if self._timer is None:
            self._look_in(patience_seconds)

    def _look_in(self, seconds: float) -> None:
        self._timer = self._loop.call_later(min(seconds, self._idle_seconds), self._look)

    def _look(self) -> None:
        left = self._heard_seconds + self._patience_seconds - time.monotonic()
        if left > 0:
            self._look_in(left)
        else:
            self._fail(TimeoutError(f"the upstream was silent for {self._patience_seconds:g} s"))
