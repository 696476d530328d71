"""Token buckets: how much an address or an account may spend, at once and over time."""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

from rorqual.platform.errors import LimitState


@dataclass(slots=True)
class _Bucket:
    level: float
    updated_seconds: float


class TokenBuckets:
    """One bucket a name, in memory; a name that was not seen for long is full again.

    A cost above the burst is let through when the bucket is full, and leaves it in debt: a request
    larger than the burst is slow to repeat, not impossible. The oldest names are forgotten beyond
    max_tracked, so that a flood of addresses costs bounded memory.
    """

    def __init__(self, tokens_per_second: float, burst_tokens: float, max_tracked: int) -> None:
        self._rate = tokens_per_second
        self._burst = burst_tokens
        self._max_tracked = max_tracked
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def missing_seconds(self, name: str, tokens: float, now: float) -> float:
        """How long until `tokens` may be spent; 0.0 means at once."""
        missing = min(tokens, self._burst) - self._level(name, now)
        return max(0.0, missing / self._rate)

    def spend(self, name: str, tokens: float, now: float) -> None:
        """Takes tokens out; a negative number puts them back."""
        level = min(self._burst, self._level(name, now) - tokens)
        self._buckets[name] = _Bucket(level, now)
        self._buckets.move_to_end(name)
        while len(self._buckets) > self._max_tracked:
            self._buckets.popitem(last=False)

    def state(self, name: str, now: float) -> LimitState:
        """For the headers of an answer."""
        level = self._level(name, now)
        return LimitState(
            limit_tokens=int(self._burst),
            remaining_tokens=max(0, int(level)),
            reset_seconds=max(0.0, (self._burst - level) / self._rate),
        )

    def __len__(self) -> int:
        return len(self._buckets)

    def _level(self, name: str, now: float) -> float:
        bucket = self._buckets.get(name)
        if bucket is None:
            return self._burst
        elapsed = max(0.0, now - bucket.updated_seconds)
        return min(self._burst, bucket.level + elapsed * self._rate)


@lru_cache(maxsize=4096)  # asked several times a request
def address_group(address: str) -> str:
    """The name an address is counted under: itself, or its /64 if IPv6, which one customer holds.

    An IPv4 address in IPv6 clothes is the IPv4 address; what is no address (a Unix socket) is
    counted as itself.
    """
    try:
        parsed = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
