"""Small answers: JSON, errors, headers."""

import secrets
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from rorqual.server.errors import Dialect, error_body, error_headers, status_of
from rorqual.server.generation import Generation
from rorqual.server.services import Services
from rorqual.server.wire.answer import to_json

RawHeaders = list[tuple[bytes, bytes]]


def new_request_id() -> str:
    """What names a request in its answer, the log and the ledger."""
    return f"req-{secrets.token_hex(12)}"


def common_headers(request_id: str) -> RawHeaders:
    """What every answer carries."""
    return [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]


def raw_headers(headers: Mapping[str, str]) -> RawHeaders:
    """Headers as ASGI has them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in headers.items()]  # fmt: skip


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    body = to_json(value).encode("utf-8", "replace")
    return Response(body, status, dict(headers or {}), "application/json")


def error_reply(error: BaseException, dialect: Dialect) -> Response:
    """An error in its format's shape."""
    status = status_of(error, dialect)
    return json_reply(error_body(error, dialect, status), status, error_headers(error))


def limit_headers(services: Services, generation: Generation) -> dict[str, str]:
    """What is left of the account's token bucket; nobody counts in local mode."""
    if services.is_local:
        return {}
    state = services.platform.admission.limit(generation.account_id)
    return {
        "x-ratelimit-limit-tokens": str(state.limit_tokens),
        "x-ratelimit-remaining-tokens": str(state.remaining_tokens),
        "x-ratelimit-reset-tokens": f"{state.reset_seconds:.1f}s",
    }
