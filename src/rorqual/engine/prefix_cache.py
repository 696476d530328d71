"""Which full blocks hold which tokens: the prefix cache's index.

A full block is known by a chain: what precedes it (the number of the entry before it, or the
request's salt at the beginning) and its own tokens. The key holds the tokens themselves, so a hit
compares them; two prefixes are never taken for one another, whatever their hashes. A number is
never used twice, so entries whose predecessor was forgotten cannot be reached any more.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rorqual.kernels.step import BLOCK_TOKENS

Link = int | bytes
"""What precedes a block: an entry's number, or the salt of the request at its beginning."""

_Key = tuple[Link, bytes]


class Prefix(NamedTuple):
    """Cached blocks that a prompt begins with, and the link that the next block hangs on."""

    blocks: list[int]
    link: Link


class PrefixCache:
    """Full blocks by content. It holds no references: blocks.py keeps the free ones in order."""

    def __init__(self, *, enabled: bool = True):
        self.enabled = enabled
        self._entries: dict[_Key, tuple[int, int]] = {}  # key -> (block, number)
        self._key_of: dict[int, _Key] = {}  # block -> key
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._key_of)

    def __contains__(self, block: int) -> bool:
        return block in self._key_of

    def lookup(self, salt: bytes, tokens: NDArray[np.int32], limit: int) -> Prefix:
        """The longest cached chain of full blocks among the first `limit` tokens."""
        blocks: list[int] = []
        link: Link = salt
        for start in range(0, limit - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            found = self._entries.get((link, tokens[start : start + BLOCK_TOKENS].tobytes()))
            if found is None:
                break
            blocks.append(found[0])
            link = found[1]
        return Prefix(blocks, link)

    def register(self, link: Link, tokens: NDArray[np.int32], block: int) -> tuple[int, Link]:
        """Make a full block known.

        tokens [BLOCK_TOKENS]. Returns the block that holds this content, which is another one if
        it was known before, and the link for the next.
        """
        key = (link, tokens.tobytes())
        known = self._entries.get(key)
        if known is not None:
            return known
        self._next_number += 1
        self._entries[key] = (block, self._next_number)
        self._key_of[block] = key
        return block, self._next_number

    def forget(self, block: int) -> None:
        """The block is about to hold something else."""
        del self._entries[self._key_of.pop(block)]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._key_of.clear()
