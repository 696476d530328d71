"""Streams of events from one upstream, on aiohttp.

Whatever goes wrong on the way is an OSError, as with sockets: ConnectionError or TimeoutError.
What has come is read at once and cut into lines here, which is cheaper than a task a line. Proxies
of the environment and redirects are not followed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from rorqual.errors import ConfigError

_IDLE_SECONDS: Final = 4.0  # servers close idle connections, uvicorn after five
_MAX_LINE_BYTES: Final = 16 << 20
_END_SECONDS: Final = 1.0  # for the few bytes behind a stream's last event
_PREFIX: Final = b"data:"
_DONE: Final = b"[DONE]"


class Reply:
    """An answer whose status is known. OSError if it breaks off."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.is_done = False

    async def text(self) -> str:
        """The whole body."""
        with _as_os_errors():
            return (await self._response.read()).decode("utf-8", "replace")

    async def events(self) -> AsyncIterator[bytes]:
        """The data of each server-sent event, one line each, as OpenAI's streams are.

        `is_done` tells afterwards whether the stream said that it was whole.
        """
        rest = b""
        while True:
            with _as_os_errors():
                part = await self._response.content.readany()
            *lines, rest = (rest + part).split(b"\n")
            for line in lines if part else [rest]:
                if line.startswith(_PREFIX):
                    data = line[len(_PREFIX) :].strip()
                    if data == _DONE:
                        self.is_done = True
                        return
                    yield data
            if not part:
                return
            if len(rest) > _MAX_LINE_BYTES:
                raise ConnectionError("the upstream sent a line without an end")


class UpstreamClient:
    """Exchanges with one upstream, by its base URL (https or http)."""

    def __init__(
        self,
        base: str,
        headers: Mapping[str, str],
        *,
        connect_seconds: float,
        silence_seconds: float,
    ) -> None:
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ConfigError(f"upstream={base}: expected http(s)://HOST[:PORT]/PATH")
        self._base, self._headers = base.rstrip("/"), dict(headers)
        self._connect_seconds, self._silence_seconds = connect_seconds, silence_seconds
        self._opened: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def ask(
        self, method: str, path: str, body: Any = None, *, silence_seconds: float | None = None
    ) -> AsyncIterator[Reply]:
        """One exchange; the answer is read inside the block. OSError where there is none."""
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=self._connect_seconds,
            sock_read=self._silence_seconds if silence_seconds is None else silence_seconds,
        )
        url = self._base + path
        with _as_os_errors():
            response = await self._session().request(
                method, url, json=body, timeout=timeout, allow_redirects=False
            )
        try:
            reply = Reply(response)
            yield reply
            if reply.is_done and not response.content.is_eof():
                # What is left is the end: so its connection can be used again.
                with contextlib.suppress(OSError), _as_os_errors():
                    async with asyncio.timeout(_END_SECONDS):
                        await response.read()
        finally:
            response.close()  # an answer that was not read to its end need not go on

    def _session(self) -> aiohttp.ClientSession:
        """Opened at the first exchange: it belongs to the event loop that runs then."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                headers=self._headers,
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._opened

    async def close(self) -> None:
        """Ends the idle connections; the others end with their exchanges."""
        if self._opened is not None:
            await self._opened.close()


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    try:
        yield
    except aiohttp.ClientError as error:
        if isinstance(error, OSError):
            raise
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
