"""Which account a key belonged to when it was last seen: enough to refuse, never to let in.

In a flood most requests are refused. To know that an account has no place left is in memory; to
know the account costs a look into the database, which this spares. Whoever is not refused is looked
up as ever, so a revoked key is at most told "too much" where "unknown" would be right.
"""

import hashlib
from collections import OrderedDict
from typing import Final

_MAX_KEYS: Final = 65_536


class KnownKeys:
    """Bounded, and without the keys themselves. For one thread."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[bytes, str] = OrderedDict()

    def note(self, key: str, account_id: str) -> None:
        """A key was found to be this account's."""
        name = _digest(key)
        self._accounts[name] = account_id
        self._accounts.move_to_end(name)
        if len(self._accounts) > _MAX_KEYS:
            self._accounts.popitem(last=False)

    def account_of(self, key: str) -> str | None:
        """The account, if the key was seen lately."""
        return self._accounts.get(_digest(key))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
