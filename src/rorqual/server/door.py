"""The door: in a flood, what has no place anyway is told so before it costs anything.

A request for an answer that admission would refuse however small it is gets its refusal from the
connection itself, by its headers: no task, no routing, its body is not kept. What is not decided
here goes the usual way and is refused there if need be: other requests, bodies without a length,
accounts that this server has not seen yet, what the guard has something against, and everything
while nobody was refused lately. The bodies and statuses are those of the usual way.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from rorqual.errors import RequestError
from rorqual.platform import Refused
from rorqual.server.errors import Dialect, dialect_of
from rorqual.server.identity import ROOM_FOR, known_account
from rorqual.server.replies import RawHeaders, common_headers, error_reply, new_request_id
from rorqual.server.services import Services
from rorqual.server.source import source_of, text_headers

_LOG_SECONDS: Final = 1.0


class Door:
    """Decides by path and headers. paths: those that generate; check: raises what the guard has
    against a request. For the event loop's thread."""

    def __init__(
        self,
        services: Services,
        paths: Iterable[str],
        check: Callable[[str, str, Mapping[str, str]], None],
    ) -> None:
        self._services = services
        self._check = check
        self._dialects: dict[bytes, Dialect] = {path.encode(): dialect_of(path) for path in paths}
        self._proxies = frozenset(services.config.http.trusted_proxies)
        self._turned_away: Counter[str] = Counter()
        self._accounts: set[str] = set()

    def refusal(
        self,
        url: bytes,
        raw: RawHeaders,
        client: str | None,
        extra: RawHeaders,
        notes: MutableMapping[str, Any],
    ) -> bytes | None:
        """The whole response to a POST with these headers, None if it may come in.

        extra: headers that the response carries, too; notes: where it is written that admission
        was asked, so that nobody asks again.
        """
        admission = self._services.platform.admission
        if admission.is_calm or self._services.draining:
            return None
        path = url.partition(b"?")[0]
        dialect = self._dialects.get(path)
        if dialect is None:
            return None
        headers = text_headers(raw)
        if not headers.get("content-length", "").isdigit() or "expect" in headers:
            return None
        account_id = known_account(self._services, headers)
        if account_id is None:
            return None
        address, _ = source_of(client, headers, self._proxies)
        try:
            self._check(path.decode(), "POST", headers)
        except RequestError:
            return None
        try:
            admission.check(account_id, address)
        except Refused as refused:
            reply = error_reply(refused, dialect)
            self._note(path, refused, reply.status_code, account_id)
            return _on_the_wire(reply, extra)
        notes[ROOM_FOR] = account_id
        return None

    def _note(self, path: bytes, refused: Refused, status: int, account_id: str) -> None:
        """Counted one by one, logged together: a flood must not fill the log."""
        metrics = self._services.metrics
        metrics.requests.labels(f"POST {path.decode()}", str(status)).inc()
        metrics.refused.labels(refused.code).inc()
        if not self._turned_away:
            asyncio.get_running_loop().call_later(_LOG_SECONDS, self._log)
        self._turned_away[refused.code] += 1
        self._accounts.add(account_id)

    def _log(self) -> None:
        codes, num_accounts = dict(self._turned_away), len(self._accounts)
        self._turned_away.clear()
        self._accounts.clear()
        self._services.log.line("refused", codes=codes, num_accounts=num_accounts)


def _on_the_wire(reply: Response, extra: RawHeaders) -> bytes:
    headers = [*extra, *reply.raw_headers, *common_headers(new_request_id())]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"%s%s\r\n%s" % (STATUS_LINE[reply.status_code], lines, reply.body)
