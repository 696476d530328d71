"""One row of a plan: a value with its formula and source, beside what was published."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rorqual.config.plan import PublishedFigure
from rorqual.units import format_bytes, format_count, format_flops, format_usd

Unit = Literal["count", "flops", "bytes", "hours", "days", "usd", "share", "tokens/s", "gpus"]

_FORMATS: dict[Unit, Callable[[float], str]] = {
    "count": format_count,
    "flops": format_flops,
    "bytes": format_bytes,
    "hours": lambda hours: f"{hours / 1000:,.1f}K h" if hours >= 1000 else f"{hours:,.1f} h",
    "days": lambda days: f"{days:,.2f} days",
    "usd": format_usd,
    "share": lambda share: f"{100 * share:.2f} %",
    "tokens/s": lambda rate: f"{rate:,.0f} tok/s" if rate >= 10 else f"{rate:.2f} tok/s",
    "gpus": lambda gpus: f"{gpus:,.0f}",
}


@dataclass(frozen=True)
class Figure:
    """A computed quantity; `published` is what somebody else printed for it, if anybody did."""

    section: str
    key: str
    label: str
    value: float
    unit: Unit
    formula: str
    source: str
    published: PublishedFigure | None = None

    @property
    def text(self) -> str:
        """The value as people read it."""
        return format_value(self.value, self.unit)

    @property
    def published_text(self) -> str:
        """The published value in the same unit; empty without one."""
        return "" if self.published is None else format_value(self.published.value, self.unit)

    @property
    def error_percent(self) -> float | None:
        """How far the computed value is above the published one."""
        if self.published is None:
            return None
        return 100 * (self.value / self.published.value - 1)


def format_value(value: float, unit: Unit) -> str:
    """`value` in the notation of `unit`."""
    return _FORMATS[unit](value)
