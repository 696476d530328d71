"""Money: reserve the worst case, log tokens before they are sent, settle what was logged.

A request goes through `reserve` (its worst cost leaves the balance, or it is refused), any number
of `log` (the counts so far are on disk before the tokens they count are delivered) and one `settle`
(the reservation comes back, the logged tokens are charged). Each is one transaction and may be
repeated without harm. A reservation is not synced by itself: the first log or settlement syncs all
that was committed before it, and until then there is nothing to bill. A server that dies between
them leaves an open request, which `sweep` settles from its log: so delivered <= billed <= delivered
+ one flush.

Balances cannot go below zero: the debit is conditional (`... WHERE balance_nano >= :worst`), a log
beyond the reservation is refused, and the schema checks it once more.
"""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from sqlalchemy import Connection, func, select

from rorqual.config.server import MeteringConfig
from rorqual.errors import RequestError
from rorqual.platform.database import Database
from rorqual.platform.ledger_operations import (
    Entry,
    EntryKind,
    Reservation,
    Settlement,
    credit,
    entry_of,
    log_counts,
    release_unlogged,
    reserve,
    settle,
)
from rorqual.platform.prices import TokenCounts
from rorqual.platform.tables import generations, ledger, users

_MAX_ID_CHARACTERS: Final = 64
Outcome = Literal["finished", "expired", "cancelled", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account can spend, and what its open requests hold."""

    available_nano: int
    reserved_nano: int
    currency: str


class Ledger:
    """Debits and credits of every account. `submit_*` are for callers that must not block."""

    def __init__(
        self,
        database: Database,
        config: MeteringConfig,
        *,
        instance_id: str,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._config = config
        self._instance_id = instance_id
        self._clock = clock

    def reserve(
        self,
        request_id: str,
        user_id: str,
        model: str,
        *,
        prompt_tokens: int,
        max_output_tokens: int,
        key_id: str | None = None,
        expires_in_seconds: float = 3600.0,
    ) -> Reservation:
        """Takes the worst cost out of the balance and the key's cap, or raises
        InsufficientBalance. A request that is still open after expires_in_seconds is settled.

        A power cut may take it back as long as nothing was logged: then nothing was delivered.
        """
        operation = self._reserve_operation(
            request_id,
            user_id,
            model,
            prompt_tokens=prompt_tokens,
            max_output_tokens=max_output_tokens,
            key_id=key_id,
            expires_in_seconds=expires_in_seconds,
        )
        return self._database.write(operation, synced=False)

    def submit_reserve(
        self,
        request_id: str,
        user_id: str,
        model: str,
        *,
        prompt_tokens: int,
        max_output_tokens: int,
        key_id: str | None = None,
        expires_in_seconds: float = 3600.0,
    ) -> "Future[Reservation]":
        """`reserve`, as a future."""
        operation = self._reserve_operation(
            request_id,
            user_id,
            model,
            prompt_tokens=prompt_tokens,
            max_output_tokens=max_output_tokens,
            key_id=key_id,
            expires_in_seconds=expires_in_seconds,
        )
        return self._database.submit_small(operation, synced=False)

    def log(self, request_id: str, counts: TokenCounts) -> None:
        """Commits the request's counts so far (totals, not increments). Deliver afterwards.

        Raises RequestClosed if the request was settled meanwhile: then deliver nothing more.
        """
        self._database.write(self._log_operation(request_id, counts))

    def submit_log(self, request_id: str, counts: TokenCounts) -> "Future[None]":
        """`log`, as a future."""
        return self._database.submit(self._log_operation(request_id, counts))

    def settle(
        self,
        request_id: str,
        counts: TokenCounts | None = None,
        *,
        outcome: Outcome = "finished",
    ) -> Settlement:
        """Charges what was logged (after logging `counts`, if given) and returns the rest."""
        return self.submit_settle(request_id, counts, outcome=outcome).result()

    def submit_settle(
        self,
        request_id: str,
        counts: TokenCounts | None = None,
        *,
        outcome: Outcome = "finished",
    ) -> "Future[Settlement]":
        """`settle`, as a future."""
        return self._database.submit_small(self._settle_operation(request_id, counts, outcome))

    def release(self, request_id: str, *, outcome: Outcome = "cancelled") -> Settlement:
        """Closes a request that delivered nothing, free of charge; RequestError if it did."""
        return self._database.write(
            partial(release_unlogged, request_id=request_id, outcome=outcome, now_ms=self._now_ms())
        )

    def top_up(self, user_id: str, amount_nano: int, reference: str, *, note: str = "") -> int:
        """Adds money once per reference (a payment's id); returns the balance."""
        if amount_nano <= 0:
            raise RequestError(f"amount_nano={amount_nano}: expected more than 0", param="amount")
        return self._credit(user_id, amount_nano, reference, "topup", note)

    def adjust(self, user_id: str, amount_nano: int, reference: str, *, note: str) -> int:
        """Corrects a balance by hand, up or down to zero, once per reference."""
        return self._credit(user_id, amount_nano, reference, "adjust", note)

    def balance(self, user_id: str) -> Balance:
        """What the account can spend now, and what is reserved."""
        open_nano = (
            select(func.coalesce(func.sum(generations.c.reserved_nano), 0))
            .where(generations.c.user_id == user_id, generations.c.state == "open")
            .scalar_subquery()
        )
        query = select(users.c.balance_nano, open_nano).where(users.c.id == user_id)
        available_nano, reserved_nano = self._database.read(
            lambda connection: connection.execute(query).one()
        )
        return Balance(available_nano, int(reserved_nano), self._config.currency)

    def entries(
        self, user_id: str, *, limit: int = 100, before_id: int | None = None
    ) -> list[Entry]:
        """The account's entries, newest first; before_id continues a listing."""
        query = select(ledger).where(ledger.c.user_id == user_id)
        if before_id is not None:
            query = query.where(ledger.c.id < before_id)
        query = query.order_by(ledger.c.id.desc()).limit(limit)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [entry_of(row) for row in rows]

    def _credit(
        self, user_id: str, amount_nano: int, reference: str, kind: EntryKind, note: str
    ) -> int:
        return self._database.write(
            partial(
                credit,
                user_id=user_id,
                amount_nano=amount_nano,
                reference=reference,
                kind=kind,
                note=note,
                now_ms=self._now_ms(),
            )
        )

    def _reserve_operation(
        self,
        request_id: str,
        user_id: str,
        model: str,
        *,
        prompt_tokens: int,
        max_output_tokens: int,
        key_id: str | None,
        expires_in_seconds: float,
    ) -> Callable[[Connection], Reservation]:
        if prompt_tokens < 0 or max_output_tokens < 0:
            raise RequestError(
                f"prompt_tokens={prompt_tokens}, max_output_tokens={max_output_tokens}: expected "
                "counts of 0 or more"
            )
        if not 1 <= len(request_id) <= _MAX_ID_CHARACTERS:
            raise RequestError(
                f"request_id of {len(request_id)} characters: expected 1 to {_MAX_ID_CHARACTERS}"
            )
        now_ms = self._now_ms()
        return partial(
            reserve,
            request_id=request_id,
            user_id=user_id,
            key_id=key_id,
            model=model,
            prompt_tokens=prompt_tokens,
            max_output_tokens=max_output_tokens,
            instance_id=self._instance_id,
            allow_unpriced=self._config.unpriced == "free",
            now_ms=now_ms,
            expires_ms=now_ms + round(expires_in_seconds * 1000),
        )

    def _log_operation(self, request_id: str, counts: TokenCounts) -> Callable[[Connection], None]:
        return partial(log_counts, request_id=request_id, counts=counts, now_ms=self._now_ms())

    def _settle_operation(
        self, request_id: str, counts: TokenCounts | None, outcome: Outcome
    ) -> Callable[[Connection], Settlement]:
        return partial(
            settle, request_id=request_id, counts=counts, outcome=outcome, now_ms=self._now_ms()
        )

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)
