"""What tokens cost: integer nano-units per million, per model and date. Prices are never edited.

A request is billed at the price of the moment it was reserved at, so a change of price never
reaches a request under way. Charges round up to the next nano-unit.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from rorqual.config.server import PriceConfig
from rorqual.errors import ConfigError
from rorqual.platform.database import Database
from rorqual.platform.statements import Statement, insert_if_absent
from rorqual.platform.tables import prices
from rorqual.units import format_nano, parse_nano

_MILLION = 10**6


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of one request, each in exactly one class: prompts are hit or input, answers are
    reasoning or output."""

    cache_hit_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return (
            self.cache_hit_tokens + self.input_tokens + self.output_tokens + self.reasoning_tokens
        )


@dataclass(frozen=True, slots=True)
class Price:
    """One model's prices from a date on, in nano-units per million tokens."""

    id: int
    model: str
    effective_seconds: float
    cache_hit_nano: int
    input_nano: int
    output_nano: int
    reasoning_nano: int

    def charge_nano(self, counts: TokenCounts) -> int:
        """What these tokens cost, rounded up."""
        total = (
            counts.cache_hit_tokens * self.cache_hit_nano
            + counts.input_tokens * self.input_nano
            + counts.output_tokens * self.output_nano
            + counts.reasoning_tokens * self.reasoning_nano
        )
        return -(-total // _MILLION)

    def worst_nano(self, prompt_tokens: int, max_output_tokens: int) -> int:
        """The most that a request of this size can cost: what is reserved."""
        total = prompt_tokens * max(self.cache_hit_nano, self.input_nano)
        total += max_output_tokens * max(self.output_nano, self.reasoning_nano)
        return -(-total // _MILLION)


class Prices:
    """The price list."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def add(self, price: PriceConfig) -> None:
        """Adds a price; the same one again does nothing, another for the date is an error."""
        try:
            row = {
                "model": price.model,
                "effective_ms": round(price.effective.timestamp() * 1000),
                "cache_hit_nano": parse_nano(price.cache_hit),
                "input_nano": parse_nano(price.input),
                "output_nano": parse_nano(price.output),
                "reasoning_nano": parse_nano(
                    price.output if price.reasoning is None else price.reasoning
                ),
            }
        except ValueError as error:
            raise ConfigError(f"price of {price.model}: {error}") from None

        def add_one(connection: Connection) -> Row[Any]:
            insert_if_absent(connection, prices, row)
            same = (prices.c.model == row["model"], prices.c.effective_ms == row["effective_ms"])
            return connection.execute(select(prices).where(*same)).one()

        kept = self._database.write(add_one)
        if any(getattr(kept, name) != value for name, value in row.items()):
            raise ConfigError(
                f"price of {price.model} from {price.effective.isoformat()} is already "
                f"{format_nano(kept.input_nano)} in, {format_nano(kept.output_nano)} out; prices "
                "are never edited: add one with a later date"
            )

    def add_all(self, configured: Iterable[PriceConfig]) -> None:
        """Adds each price of a configuration."""
        for price in configured:
            self.add(price)

    def current(self, model: str) -> Price | None:
        """The price that a request for this model is billed at now."""
        now_ms = round(self._clock() * 1000)
        return self._database.read(lambda connection: price_at(connection, model, now_ms))

    def history(self) -> list[Price]:
        """Every price that was ever set, by model and date."""
        query = select(prices).order_by(prices.c.model, prices.c.effective_ms)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [price_of(row) for row in rows]


_AT = Statement(
    select(prices)
    .where(prices.c.model == bindparam("model"), prices.c.effective_ms <= bindparam("now_ms"))
    .order_by(prices.c.effective_ms.desc())
    .limit(1)
)


def price_at(connection: Connection, model: str, now_ms: int) -> Price | None:
    """The model's price at a moment, inside a transaction."""
    row = _AT.one(connection, {"model": model, "now_ms": now_ms})
    return None if row is None else price_of(row)


def price_of(row: Any) -> Price:
    """A row of `prices`."""
    return Price(
        id=row.id,
        model=row.model,
        effective_seconds=row.effective_ms / 1000,
        cache_hit_nano=row.cache_hit_nano,
        input_nano=row.input_nano,
        output_nano=row.output_nano,
        reasoning_nano=row.reasoning_nano,
    )
