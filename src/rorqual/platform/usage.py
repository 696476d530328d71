"""What was used, by day, key and model, and whether the books add up. All derived, nothing kept."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, case, func, select

from rorqual.platform.database import Database
from rorqual.platform.prices import TokenCounts
from rorqual.platform.tables import api_keys, generations, ledger, users


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The settled requests of one UTC day, key (None: the app) and model."""

    day: str
    key_id: str | None
    model: str
    num_requests: int
    counts: TokenCounts
    charge_nano: int


class Usage:
    """Reads the generation log and the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_day(self, user_id: str, first_day: str, last_day: str) -> list[UsageRow]:
        """A user's usage from 'YYYY-MM-DD' to 'YYYY-MM-DD', both included."""
        settled = and_(ledger.c.request_id == generations.c.id, ledger.c.kind == "settle")
        group = (generations.c.day, generations.c.key_id, generations.c.model)
        query = (
            select(
                *group,
                func.count(),
                func.sum(generations.c.cache_hit_tokens),
                func.sum(generations.c.input_tokens),
                func.sum(generations.c.output_tokens),
                func.sum(generations.c.reasoning_tokens),
                -func.sum(ledger.c.amount_nano),
            )
            .join(ledger, settled)
            .where(
                generations.c.user_id == user_id,
                generations.c.day >= first_day,
                generations.c.day <= last_day,
            )
            .group_by(*group)
            .order_by(*group)
        )
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [
            UsageRow(day, key_id, model, count, TokenCounts(*map(int, tokens)), int(charge_nano))
            for day, key_id, model, count, *tokens, charge_nano in rows
        ]

    def audit(self) -> list[str]:
        """Every way in which the books do not add up, in words; empty when they do."""
        return self._database.read(_audit)


def _audit(connection: Connection) -> list[str]:
    total = func.coalesce(func.sum(ledger.c.amount_nano), 0)
    problems: list[str] = []
    balances = (
        select(users.c.id, users.c.balance_nano, total)
        .outerjoin(ledger, ledger.c.user_id == users.c.id)
        .group_by(users.c.id, users.c.balance_nano)
    )
    for user_id, balance_nano, sum_nano in connection.execute(balances):
        if balance_nano != sum_nano or balance_nano < 0:
            problems.append(f"user {user_id}: balance {balance_nano}, ledger {sum_nano}")
    spent = (
        select(api_keys.c.id, api_keys.c.spent_nano, total)
        .outerjoin(ledger, ledger.c.key_id == api_keys.c.id)
        .group_by(api_keys.c.id, api_keys.c.spent_nano)
    )
    for key_id, spent_nano, sum_nano in connection.execute(spent):
        if spent_nano != -sum_nano:
            problems.append(f"key {key_id}: spent {spent_nano}, ledger {-sum_nano}")

    def number(kind: str) -> ColumnElement[int]:
        return func.sum(case((ledger.c.kind == kind, 1), else_=0))

    def amount(kind: str) -> ColumnElement[int]:
        return func.sum(case((ledger.c.kind == kind, ledger.c.amount_nano), else_=0))

    requests = (
        select(
            generations.c.id,
            generations.c.state,
            generations.c.reserved_nano,
            number("reserve"),
            number("release"),
            number("settle"),
            amount("reserve"),
            amount("release"),
        )
        .outerjoin(ledger, ledger.c.request_id == generations.c.id)
        .group_by(generations.c.id, generations.c.state, generations.c.reserved_nano)
    )
    for row in connection.execute(requests):
        request_id, state, held_nano, reserves, releases, settles, out_nano, back_nano = row
        closed = 1 if state == "settled" else 0
        counted = (reserves, releases, settles) == (1, closed, closed)
        if not counted or out_nano != -held_nano or back_nano != held_nano * closed:
            problems.append(
                f"request {request_id} ({state}): {reserves} reserve, {releases} release, "
                f"{settles} settle; held {held_nano}, out {out_nano}, back {back_nano}"
            )
    return problems
