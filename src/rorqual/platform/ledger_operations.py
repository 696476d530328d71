"""The ledger's transactions: functions of a connection, each whole or not at all.

Locks are taken in one order (request, user, key), so that PostgreSQL finds no cycle.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, bindparam, insert, or_, select, update

from rorqual.errors import RequestError
from rorqual.platform.accounts import account_locked
from rorqual.platform.errors import (
    InsufficientBalance,
    NotAllowed,
    NotFound,
    RequestClosed,
    ReservationExceeded,
)
from rorqual.platform.keys import bad_key
from rorqual.platform.prices import Price, TokenCounts, price_at, price_of
from rorqual.platform.statements import Statement, insert_if_absent
from rorqual.platform.tables import api_keys, generations, ledger, prices, users
from rorqual.units import format_nano

EntryKind = Literal["topup", "reserve", "settle", "release", "adjust"]


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money set aside for a request."""

    request_id: str
    reserved_nano: int
    price: Price | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a request ended: what it cost, and what came back."""

    request_id: str
    counts: TokenCounts
    charge_nano: int
    released_nano: int
    outcome: str
    repeated: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger; negative amounts leave the balance."""

    id: int
    user_id: str
    key_id: str | None
    request_id: str
    kind: EntryKind
    amount_nano: int
    created_seconds: float
    note: str


_DEBIT_USER = Statement(
    update(users)
    .where(
        users.c.id == bindparam("of_user"),
        users.c.balance_nano >= bindparam("worst"),
        users.c.locked_ms.is_(None),
    )
    .values(balance_nano=users.c.balance_nano - bindparam("worst"))
)
_DEBIT_KEY = Statement(
    update(api_keys)
    .where(
        api_keys.c.id == bindparam("of_key"),
        api_keys.c.user_id == bindparam("of_user"),
        api_keys.c.revoked_ms.is_(None),
        or_(
            api_keys.c.cap_nano.is_(None),
            api_keys.c.spent_nano + bindparam("worst") <= api_keys.c.cap_nano,
        ),
    )
    .values(spent_nano=api_keys.c.spent_nano + bindparam("worst"))
)
_CREDIT_USER = Statement(
    update(users)
    .where(users.c.id == bindparam("of_user"), users.c.balance_nano + bindparam("amount") >= 0)
    .values(balance_nano=users.c.balance_nano + bindparam("amount"))
)
_CREDIT_KEY = Statement(
    update(api_keys)
    .where(api_keys.c.id == bindparam("of_key"))
    .values(spent_nano=api_keys.c.spent_nano - bindparam("amount"))
)
_OPEN = and_(generations.c.id == bindparam("of_request"), generations.c.state == "open")
_WITHIN = and_(  # counts that do not shrink, and no more of them than was reserved
    _OPEN,
    generations.c.cache_hit_tokens <= bindparam("hit"),
    generations.c.input_tokens <= bindparam("input"),
    generations.c.output_tokens <= bindparam("output"),
    generations.c.reasoning_tokens <= bindparam("reasoning"),
    generations.c.prompt_tokens >= bindparam("prompt"),
    generations.c.max_output_tokens >= bindparam("generated"),
)
_COUNTS = {
    "cache_hit_tokens": bindparam("hit"),
    "input_tokens": bindparam("input"),
    "output_tokens": bindparam("output"),
    "reasoning_tokens": bindparam("reasoning"),
    "logged_ms": bindparam("now_ms"),
}
_CLOSED = {
    "state": "settled",
    "outcome": bindparam("how"),
    "closed_ms": bindparam("now_ms"),
    "day": bindparam("on_day"),
}
_LOG = Statement(update(generations).where(_WITHIN).values(_COUNTS))
_CLOSE = Statement(update(generations).where(_OPEN).values(_CLOSED).returning(*generations.c))
_LOG_AND_CLOSE = Statement(
    update(generations).where(_WITHIN).values(_COUNTS | _CLOSED).returning(*generations.c)
)
_ONE_GENERATION = select(generations).where(generations.c.id == bindparam("of_request"))
_GENERATION = Statement(_ONE_GENERATION)
_GENERATION_LOCKED = Statement(_ONE_GENERATION.with_for_update())
_PRICE = Statement(select(prices).where(prices.c.id == bindparam("of_price")))


def _enter_of(*kinds: EntryKind) -> Statement:
    """Enters one line a kind, with the amount that is named after it."""
    shared = (ledger.c.user_id, ledger.c.key_id, ledger.c.request_id, ledger.c.created_ms)
    line = {column.key: bindparam(column.key, type_=column.type) for column in shared}
    amount_type = ledger.c.amount_nano.type
    lines = [
        line | {"kind": kind, "amount_nano": bindparam(kind, type_=amount_type)} for kind in kinds
    ]
    return Statement(insert(ledger).inline().values(lines))


_ENTER_RESERVE = _enter_of("reserve")
_ENTER_SETTLE = _enter_of("release", "settle")


def reserve(
    connection: Connection,
    *,
    request_id: str,
    user_id: str,
    key_id: str | None,
    model: str,
    prompt_tokens: int,
    max_output_tokens: int,
    instance_id: str,
    allow_unpriced: bool,
    now_ms: int,
    expires_ms: int,
) -> Reservation:
    """Debits the worst cost if balance and cap cover it, and opens the generation log."""
    price = price_at(connection, model, now_ms)
    if price is None and not allow_unpriced:
        raise NotAllowed(
            f"model={model} has no price; add one under [[prices]]", code="no_price", param="model"
        )
    worst_nano = 0 if price is None else price.worst_nano(prompt_tokens, max_output_tokens)
    row = {
        "id": request_id,
        "user_id": user_id,
        "key_id": key_id,
        "model": model,
        "price_id": None if price is None else price.id,
        "instance_id": instance_id,
        "state": "open",
        "reserved_nano": worst_nano,
        "prompt_tokens": prompt_tokens,
        "max_output_tokens": max_output_tokens,
        "created_ms": now_ms,
        "expires_ms": expires_ms,
    }
    if not insert_if_absent(connection, generations, row):
        return _reserved_before(connection, row, price)
    _debit(connection, user_id, key_id, worst_nano)
    entry = {"user_id": user_id, "key_id": key_id, "request_id": request_id, "created_ms": now_ms}
    _ENTER_RESERVE.count(connection, entry | {"reserve": -worst_nano})
    return Reservation(request_id, worst_nano, price)


def log_counts(
    connection: Connection, *, request_id: str, counts: TokenCounts, now_ms: int
) -> None:
    """Raises the logged counts to these totals, within what was reserved."""
    values = _values_of(request_id, counts, now_ms)
    if _LOG.count(connection, values):
        return
    row = _generation(connection, request_id)
    if row.state != "open":
        raise RequestClosed(f"request {request_id} was settled ({row.outcome}); deliver no more")
    raise ReservationExceeded(
        f"request {request_id}: {counts} is below {_counts_of(row)} logged before or above "
        f"{row.prompt_tokens} prompt and {row.max_output_tokens} output tokens reserved"
    )


def settle(
    connection: Connection,
    *,
    request_id: str,
    counts: TokenCounts | None,
    outcome: str,
    now_ms: int,
) -> Settlement:
    """Closes the request: its reservation returns, the logged tokens are charged."""
    day = datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()
    closing = {"of_request": request_id, "how": outcome, "now_ms": now_ms, "on_day": day}
    if counts is None:
        row = _CLOSE.one(connection, closing)
    else:
        row = _LOG_AND_CLOSE.one(connection, closing | _values_of(request_id, counts, now_ms))
    repeated = row is None
    if row is None:  # closed before, or counts that cannot be logged
        row = _generation(connection, request_id, lock=True)
        if row.state == "open" and counts is not None:
            log_counts(connection, request_id=request_id, counts=counts, now_ms=now_ms)
    logged = _counts_of(row)
    charge_nano = _charge_nano(connection, row, logged)
    back_nano = row.reserved_nano - charge_nano
    if repeated:
        return Settlement(request_id, logged, charge_nano, back_nano, row.outcome, repeated=True)
    if back_nano:
        _CREDIT_USER.count(connection, {"of_user": row.user_id, "amount": back_nano})
        if row.key_id is not None:
            _CREDIT_KEY.count(connection, {"of_key": row.key_id, "amount": back_nano})
    entries = {
        "user_id": row.user_id,
        "key_id": row.key_id,
        "request_id": request_id,
        "created_ms": now_ms,
        "release": row.reserved_nano,
        "settle": -charge_nano,
    }
    _ENTER_SETTLE.count(connection, entries)
    return Settlement(request_id, logged, charge_nano, back_nano, outcome, repeated=False)


def release_unlogged(
    connection: Connection, *, request_id: str, outcome: str, now_ms: int
) -> Settlement:
    """Settles a request whose log is empty, at no charge."""
    row = _generation(connection, request_id, lock=True)
    logged_tokens = _counts_of(row).total_tokens
    if row.state == "open" and logged_tokens > 0:
        raise RequestError(
            f"request {request_id} has logged {logged_tokens} tokens, which may have been "
            "delivered; settle it instead",
            code="tokens_logged",
        )
    return settle(connection, request_id=request_id, counts=None, outcome=outcome, now_ms=now_ms)


def credit(
    connection: Connection,
    *,
    user_id: str,
    amount_nano: int,
    reference: str,
    kind: EntryKind,
    note: str,
    now_ms: int,
) -> int:
    """Adds an amount (or takes one, down to zero) once per reference; returns the balance."""
    row = {
        "user_id": user_id,
        "request_id": reference,
        "kind": kind,
        "amount_nano": amount_nano,
        "created_ms": now_ms,
        "note": note[:200],
    }
    _require_user(connection, user_id)
    if insert_if_absent(connection, ledger, row):
        if not _CREDIT_USER.count(connection, {"of_user": user_id, "amount": amount_nano}):
            raise InsufficientBalance(
                f"{format_nano(-amount_nano)} cannot be taken from user {user_id}: more than the "
                "balance"
            )
    else:
        _require_same_credit(connection, row)
    balance = select(users.c.balance_nano).where(users.c.id == user_id)
    return connection.execute(balance).scalar_one()


def entry_of(row: Row[Any]) -> Entry:
    """A row of `ledger`."""
    return Entry(
        id=row.id,
        user_id=row.user_id,
        key_id=row.key_id,
        request_id=row.request_id,
        kind=row.kind,
        amount_nano=row.amount_nano,
        created_seconds=row.created_ms / 1000,
        note=row.note,
    )


def _debit(connection: Connection, user_id: str, key_id: str | None, worst_nano: int) -> None:
    if not _DEBIT_USER.count(connection, {"of_user": user_id, "worst": worst_nano}):
        if key_id is not None:  # before anything is told of the account
            _require_key(connection, key_id, user_id)
        user = _require_user(connection, user_id)
        if user.locked_ms is not None:
            raise account_locked()
        raise InsufficientBalance(
            f"the request may cost {format_nano(worst_nano)} and the balance is "
            f"{format_nano(user.balance_nano)}; top up or lower max_tokens"
        )
    if key_id is None:
        return
    if _DEBIT_KEY.count(connection, {"of_key": key_id, "of_user": user_id, "worst": worst_nano}):
        return
    key = _require_key(connection, key_id, user_id)
    raise InsufficientBalance(
        f"the request may cost {format_nano(worst_nano)} and the key has "
        f"{format_nano(key.cap_nano - key.spent_nano)} of its cap left; raise the cap",
        code="key_cap_reached",
    )


def _reserved_before(
    connection: Connection, wanted: dict[str, Any], price: Price | None
) -> Reservation:
    """A repeated reserve returns the first one; another request under its id is an error."""
    row = _generation(connection, wanted["id"])
    if row.state != "open":
        raise RequestClosed(f"request {row.id} was settled ({row.outcome}); use a new id")
    same = ("user_id", "key_id", "model", "prompt_tokens", "max_output_tokens")
    if any(getattr(row, name) != wanted[name] for name in same):
        raise RequestError(
            f"request {row.id} was reserved before with other values; use a new id",
            code="request_exists",
        )
    return Reservation(row.id, row.reserved_nano, price)


def _require_user(connection: Connection, user_id: str) -> Row[Any]:
    row = connection.execute(select(users).where(users.c.id == user_id)).one_or_none()
    if row is None:
        raise NotFound(f"user {user_id} does not exist; list the users")
    return row


def _require_key(connection: Connection, key_id: str, user_id: str) -> Row[Any]:
    row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
    if row is None or row.user_id != user_id or row.revoked_ms is not None:
        raise bad_key()
    return row


def _require_same_credit(connection: Connection, wanted: dict[str, Any]) -> None:
    same = (ledger.c.request_id == wanted["request_id"], ledger.c.kind == wanted["kind"])
    row = connection.execute(select(ledger).where(*same)).one()
    if row.user_id != wanted["user_id"] or row.amount_nano != wanted["amount_nano"]:
        raise RequestError(
            f"reference={wanted['request_id']} was entered before for another user or amount; "
            "use a new one",
            code="reference_exists",
            param="reference",
        )


def _generation(connection: Connection, request_id: str, *, lock: bool = False) -> Any:
    query = _GENERATION_LOCKED if lock else _GENERATION
    row = query.one(connection, {"of_request": request_id})
    if row is None:
        raise NotFound(f"request {request_id} does not exist; reserve it first")
    return row


def _charge_nano(connection: Connection, row: Any, counts: TokenCounts) -> int:
    if row.price_id is None:
        return 0
    known = connection.info.setdefault(_PRICE, {})  # of this connection to this database
    price = known.get(row.price_id)
    if price is None:  # prices are never edited
        price = known[row.price_id] = price_of(_PRICE.one(connection, {"of_price": row.price_id}))
    return price.charge_nano(counts)


def _values_of(request_id: str, counts: TokenCounts, now_ms: int) -> dict[str, Any]:
    return {
        "of_request": request_id,
        "hit": counts.cache_hit_tokens,
        "input": counts.input_tokens,
        "output": counts.output_tokens,
        "reasoning": counts.reasoning_tokens,
        "prompt": counts.cache_hit_tokens + counts.input_tokens,
        "generated": counts.output_tokens + counts.reasoning_tokens,
        "now_ms": now_ms,
    }


def _counts_of(row: Any) -> TokenCounts:
    return TokenCounts(
        row.cache_hit_tokens, row.input_tokens, row.output_tokens, row.reasoning_tokens
    )
