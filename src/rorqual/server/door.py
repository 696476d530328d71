"""The door: in a flood, what has no place anyway is told so before it costs anything.

A request for an answer that admission would refuse however small it is gets its refusal from the
connection itself, by its headers: no task, no routing, its body is not kept. What is not decided
here goes the usual way and is refused there if need be: other requests, bodies without a length,
accounts that this server has not seen yet, what the guard has something against. The bodies and
statuses are those of the usual way.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from rorqual.errors import RequestError
from rorqual.platform import Refused
from rorqual.server.errors import Dialect, error_body, error_headers, status_of
from rorqual.server.identity import key_in
from rorqual.server.replies import raw_headers
from rorqual.server.services import Services
from rorqual.server.source import dialect_of, source_of, text_headers
from rorqual.server.wire.answer import to_json

_REASONS: Final = {429: b"Too Many Requests", 503: b"Service Unavailable", 529: b"Overloaded"}
_PLAIN_HEADERS: Final = {"content-type": "application/json", "x-content-type-options": "nosniff"}
_LOG_SECONDS: Final = 1.0
RawHeaders = list[tuple[bytes, bytes]]


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
        self, url: bytes, raw: RawHeaders, client: str | None, extra: RawHeaders
    ) -> bytes | None:
        """The whole response to a POST with these headers, None if it may come in.

        extra: headers that the response carries, too.
        """
        path = url.partition(b"?")[0]
        dialect = self._dialects.get(path)
        if dialect is None or self._services.draining:
            return None
        headers = text_headers(raw)
        if not headers.get("content-length", "").isdigit() or "expect" in headers:
            return None
        account_id = self._account_of(headers)
        if account_id is None:
            return None
        address, _ = source_of(client, headers, self._proxies)
        try:
            self._check(path.decode(), "POST", headers)
        except RequestError:
            return None
        try:
            self._services.platform.admission.check(account_id, address)
        except Refused as refused:
            self._note(path, refused, status_of(refused, dialect), account_id)
            return _response(refused, dialect, extra)
        return None

    def _account_of(self, headers: dict[str, str]) -> str | None:
        services = self._services
        if services.is_local:
            return services.local_user.id
        key = key_in(headers)
        return None if key is None else services.known_keys.account_of(key)

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


def _response(refused: Refused, dialect: Dialect, extra: RawHeaders) -> bytes:
    status = status_of(refused, dialect)
    body = to_json(error_body(refused, dialect, status)).encode("utf-8", "replace")
    headers = {
        **_PLAIN_HEADERS,
        **error_headers(refused),
        "content-length": str(len(body)),
        "x-request-id": f"req-{secrets.token_hex(12)}",
    }
    lines = [name + b": " + value for name, value in [*extra, *raw_headers(headers)]]
    first = b"HTTP/1.1 %d %s" % (status, _REASONS.get(status, b""))
    return b"\r\n".join([first, *lines, b"", body])
