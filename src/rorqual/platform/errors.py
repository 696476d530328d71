"""What the platform refuses, by name: each class is one answer that a server gives.

RequestError                     400 unless said otherwise
+-- NotAuthenticated             401  unknown, expired or revoked key, session or password
+-- NotAllowed                   403  known, but not for this: model, role, locked account
+-- NotFound                     404  absent, or another account's: the two are not told apart
+-- InsufficientBalance          402  the balance or the key's cap cannot cover the worst case
+-- RequestClosed                409  settled already, by its server or by the sweeper
+-- ReservationExceeded          our own bug: more tokens than were reserved
CapacityError
+-- Refused                      carries retry_after_seconds
    +-- RateLimited              429  a token bucket is empty
    +-- ConcurrencyLimited       429  too many requests of one account
    +-- TooManyAttempts          429  logins or registrations of one address
    +-- QueueFull                503
    +-- DeadlineUnmeetable       503  it would not start in time at the measured rate
    +-- DeadlineExceeded         503  it was queued and did not start in time
    +-- RegistrationClosed       503  by configuration or by the overload ladder
    +-- Busy                     503  the database or the password hasher has no room
"""

from dataclasses import dataclass

from rorqual.errors import CapacityError, RequestError


class NotAuthenticated(RequestError):
    """Who is asking is not known; the message never says which part was wrong."""

    def __init__(self, message: str, code: str = "invalid_credentials"):
        super().__init__(message, code=code)


class NotAllowed(RequestError):
    """Who is asking is known and may not."""

    def __init__(self, message: str, code: str = "not_allowed", param: str | None = None):
        super().__init__(message, code=code, param=param)


class NotFound(RequestError):
    """There is no such thing, or it belongs to somebody else."""

    def __init__(self, message: str, param: str | None = None):
        super().__init__(message, code="not_found", param=param)


class InsufficientBalance(RequestError):
    """The worst case of the request costs more than there is; `code` says which purse."""

    def __init__(self, message: str, code: str = "insufficient_balance"):
        super().__init__(message, code=code)


class RequestClosed(RequestError):
    """The request is settled: nothing may be delivered under it any more."""

    def __init__(self, message: str):
        super().__init__(message, code="request_closed")


class ReservationExceeded(RequestError):
    """More tokens than the reservation covers, or fewer than were logged before."""

    def __init__(self, message: str):
        super().__init__(message, code="reservation_exceeded")


@dataclass(frozen=True, slots=True)
class LimitState:
    """What the rate-limit headers of an answer say."""

    limit_tokens: int
    remaining_tokens: int
    reset_seconds: float


class Refused(CapacityError):
    """There is no room now; there may be after retry_after_seconds."""

    code = "overloaded"

    def __init__(
        self, message: str, retry_after_seconds: float = 1.0, limit: LimitState | None = None
    ):
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.limit = limit


class RateLimited(Refused):
    """A token bucket of the account or of the address is empty."""

    code = "rate_limited"


class ConcurrencyLimited(Refused):
    """The account has too many requests waiting or running."""

    code = "concurrency_limited"


class TooManyAttempts(Refused):
    """Too many logins or registrations from one address."""

    code = "too_many_attempts"


class QueueFull(Refused):
    """The queue has no room for this request."""

    code = "queue_full"


class DeadlineUnmeetable(Refused):
    """At the measured rate the request would not start before its deadline."""

    code = "deadline_unmeetable"


class DeadlineExceeded(Refused):
    """The request waited until its deadline and did not start."""

    code = "deadline_exceeded"


class RegistrationClosed(Refused):
    """No new accounts: by configuration, or while the server is overloaded."""

    code = "registration_closed"


class Busy(Refused):
    """The database or the password hasher has no room."""

    code = "busy"
