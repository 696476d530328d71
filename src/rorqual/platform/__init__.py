"""Accounts, keys, money, admission and conversations; knows no HTTP.

`Platform.open(config)` gives one object with a part for each concern. Every call is synchronous and
thread-safe; a call that writes returns once it is on disk. Refusals are the classes of
`rorqual.platform.errors`, each of which stands for one answer that a server gives.

A request's life: `keys.authenticate` -> `admission.enter` (wait for `ticket.started`) ->
`ledger.reserve` -> `meter.add` and `meter.flush` (send only what they return) -> `meter.close` ->
`admission.finish`.
"""

from rorqual.platform.accounts import Accounts, Login, User
from rorqual.platform.admission import Admission, AdmissionStats, Job, Place, Ticket
from rorqual.platform.conversations import Conversation, Conversations, Message, Run, RunEvent
from rorqual.platform.errors import (
    Busy,
    ConcurrencyLimited,
    DeadlineExceeded,
    DeadlineUnmeetable,
    InsufficientBalance,
    LimitState,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    QueueFull,
    RateLimited,
    Refused,
    RegistrationClosed,
    RequestClosed,
    ReservationExceeded,
    TooManyAttempts,
)
from rorqual.platform.gate import Demand, Proof
from rorqual.platform.keys import ApiKey, ApiKeys, Caller, NewKey
from rorqual.platform.ledger import Balance, Ledger
from rorqual.platform.ledger_operations import Entry, Reservation, Settlement
from rorqual.platform.meter import Meter
from rorqual.platform.overload import Level
from rorqual.platform.platform import Platform
from rorqual.platform.prices import Price, Prices, TokenCounts
from rorqual.platform.responses import Responses, StoredResponse
from rorqual.platform.usage import Usage, UsageRow

__all__ = [
    "Accounts",
    "Admission",
    "AdmissionStats",
    "ApiKey",
    "ApiKeys",
    "Balance",
    "Busy",
    "Caller",
    "ConcurrencyLimited",
    "Conversation",
    "Conversations",
    "DeadlineExceeded",
    "DeadlineUnmeetable",
    "Demand",
    "Entry",
    "InsufficientBalance",
    "Job",
    "Ledger",
    "Level",
    "LimitState",
    "Login",
    "Message",
    "Meter",
    "NewKey",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "Place",
    "Platform",
    "Price",
    "Prices",
    "Proof",
    "QueueFull",
    "RateLimited",
    "Refused",
    "RegistrationClosed",
    "RequestClosed",
    "Reservation",
    "ReservationExceeded",
    "Responses",
    "Run",
    "RunEvent",
    "Settlement",
    "StoredResponse",
    "Ticket",
    "TokenCounts",
    "TooManyAttempts",
    "Usage",
    "UsageRow",
    "User",
]
