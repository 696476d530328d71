"""Errors as each wire format says them: a status, a body in its shape, headers of limits."""

import math
from typing import Any, Final, Literal

from rorqual.errors import CapacityError, EngineError, RequestError, RorqualError
from rorqual.platform import (
    ConcurrencyLimited,
    InsufficientBalance,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    RateLimited,
    Refused,
    RequestClosed,
    TooManyAttempts,
)

Dialect = Literal["openai", "deepseek", "anthropic", "app"]

_STATUS_OF_CODE: Final = {
    "model_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_too_large": 413,
    "unsupported_media_type": 415,
    "misdirected_request": 421,
    "foreign_origin": 403,
    "name_taken": 409,
}
_FORMAT_CODES: Final = frozenset({"invalid_json", "invalid_messages", "model_not_found"})
_OPENAI_TYPES: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
INTERNAL: Final = "something failed on our side; the request was not carried out, try again"


def dialect_of(path: str) -> Dialect:
    """The format that a path's answers, errors too, are in."""
    if path.startswith("/anthropic"):
        return "anthropic"
    if path.startswith("/v1"):
        return "openai"
    if path.startswith(("/chat", "/beta", "/completions", "/models", "/user")):
        return "deepseek"
    return "app"


def status_of(error: BaseException, dialect: Dialect) -> int:
    """The HTTP status of an error."""
    if isinstance(error, NotAuthenticated):
        return 401
    if isinstance(error, InsufficientBalance):
        return 402
    if isinstance(error, NotAllowed):
        return 403
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, RequestClosed):
        return 409
    if isinstance(error, RateLimited | ConcurrencyLimited | TooManyAttempts):
        return 429
    if isinstance(error, RequestError):
        status = _STATUS_OF_CODE.get(error.code, 400)
        if dialect == "deepseek":
            return 400 if error.code in _FORMAT_CODES else 422 if status == 400 else status
        return status
    if isinstance(error, CapacityError):
        return 529 if dialect == "anthropic" else 503
    return 500


def error_body(error: BaseException, dialect: Dialect, status: int) -> dict[str, Any]:
    """The error object; what is our own fault says nothing about the inside."""
    known = isinstance(error, RorqualError) and not (
        status == 500 and not isinstance(error, EngineError)
    )
    message = str(error) if known else INTERNAL
    code, param = getattr(error, "code", None), getattr(error, "param", None)
    if dialect == "app":
        return {"error": {"code": code or "internal", "message": message, "param": param}}
    if dialect == "anthropic":
        kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}}
    kind = _OPENAI_TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_headers(error: BaseException) -> dict[str, str]:
    """When to come back, and what is left of the limits."""
    if not isinstance(error, CapacityError):
        return {}
    if not isinstance(error, Refused):
        return {"retry-after": "1"}
    headers = {"retry-after": str(max(1, math.ceil(error.retry_after_seconds)))}
    if error.limit is not None:
        headers |= {
            "x-ratelimit-limit-tokens": str(error.limit.limit_tokens),
            "x-ratelimit-remaining-tokens": str(error.limit.remaining_tokens),
            "x-ratelimit-reset-tokens": f"{error.limit.reset_seconds:.1f}s",
        }
    return headers
