"""Whose key it was when it was last seen: enough to refuse by, and to come as far as the ledger.

A look into the database is spared twice. In a flood most requests are refused, and to know that an
account has no place left is in memory. And a request for an answer asks the database anyway, when
it reserves: that fails for a key that was revoked or an account that was locked meanwhile, and the
key is forgotten here. It is looked up again after some seconds in any case, because requests can
also fail before they reserve. Everything else looks its key up.
"""

import hashlib
import time
from collections import OrderedDict
from typing import Final

from rorqual.platform import Caller

_MAX_KEYS: Final = 65_536
_FRESH_SECONDS: Final = 10.0


class KnownKeys:
    """Bounded, and without the keys themselves. For one thread."""

    def __init__(self) -> None:
        self._callers: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()
        self._digests: dict[str, bytes] = {}

    def note(self, key: str, caller: Caller) -> None:
        """A key was found to be this caller's."""
        name = _digest(key)
        self._callers[name] = caller, time.monotonic()
        self._callers.move_to_end(name)
        self._digests[caller.key.id] = name
        if len(self._callers) > _MAX_KEYS:
            _, (oldest, _) = self._callers.popitem(last=False)
            del self._digests[oldest.key.id]

    def account_of(self, key: str) -> str | None:
        """Whose it was when it was last looked up, to refuse by."""
        found = self._callers.get(_digest(key))
        return None if found is None else found[0].user.id

    def caller_of(self, key: str) -> Caller | None:
        """Whose it was some seconds ago, if it was looked up then."""
        caller, seconds = self._callers.get(_digest(key), (None, 0.0))
        return caller if time.monotonic() - seconds < _FRESH_SECONDS else None

    def forget(self, key_id: str) -> None:
        """What was known of this key may not hold any more."""
        name = self._digests.pop(key_id, None)
        if name is not None:
            del self._callers[name]


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).digest()
