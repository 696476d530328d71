"""Interpolated Kneser-Ney n-grams over token ids: the baseline that a language model must beat.

Kneser & Ney 1995, in the interpolated form of Chen & Goodman 1998 (section 3) with one discount per
order, D = n1 / (n1 + 2 n2). The highest order uses counts, lower orders continuation counts (how
many different tokens precede an n-gram; 1 for one that only ever opens a document). N-grams never
cross a document's border.

n-grams are packed into 64-bit keys, so `order` times the bits of an id must not exceed 63.
"""

from collections.abc import Sequence

import numpy as np

from rorqual.errors import ConfigError, DataError


class KneserNey:
    """An n-gram model of order `order`, fitted on documents (int arrays [T] of ids)."""

    def __init__(self, documents: Sequence[np.ndarray], vocab_size: int, order: int):
        self.vocab_size, self.order = vocab_size, order
        self._bits = max(1, (vocab_size - 1).bit_length())
        if order < 1 or order * self._bits > 63:
            raise ConfigError(
                f"order={order} with vocab_size={vocab_size} does not fit 64-bit keys; "
                f"use an order from 1 to {63 // self._bits}"
            )
        if not any(len(document) for document in documents):
            raise DataError("no tokens to fit n-grams on; add text")
        keys, counts = np.unique(self._all_keys(documents, order), return_counts=True)
        self._levels = [_Level(keys, counts, self._bits)]
        for n in range(order - 1, 0, -1):
            tails = keys & ((1 << self._bits * n) - 1)  # one per distinct (n+1)-gram
            keys = np.unique(self._all_keys(documents, n))
            counts = np.bincount(np.searchsorted(keys, tails), minlength=len(keys))
            self._levels.insert(0, _Level(keys, np.maximum(counts, 1), self._bits))

    def _all_keys(self, documents: Sequence[np.ndarray], n: int) -> np.ndarray:
        return np.concatenate([self._keys(document, n) for document in documents])

    def _keys(self, document: np.ndarray, n: int) -> np.ndarray:
        """Keys of the n-grams of a document in order. [T] -> int64 [max(T-n+1, 0)]"""
        count = max(len(document) - n + 1, 0)
        keys = np.zeros(count, dtype=np.int64)
        for offset in range(n):
            window = document[offset : offset + count].astype(np.int64)
            keys |= window << (self._bits * (n - 1 - offset))
        return keys

    def log2_probabilities(self, document: np.ndarray) -> np.ndarray:
        """log2 p of each token after the first, given up to order-1 before it. [T] -> [T-1]"""
        probabilities = np.full(len(document), 1.0 / self.vocab_size)
        for n, level in enumerate(self._levels, start=1):
            keys = self._keys(document, n)
            if len(keys):
                probabilities[n - 1 :] = level.interpolate(keys, probabilities[n - 1 :])
        return np.log2(probabilities[1:])


class _Level:
    """The n-grams of one order: sorted keys [U] with counts [U], and sums over each context."""

    def __init__(self, keys: np.ndarray, counts: np.ndarray, bits: int):
        self.keys, self.counts, self.bits = keys, counts, bits
        self.contexts, starts, self.num_types = np.unique(
            keys >> bits, return_index=True, return_counts=True
        )
        self.totals = np.add.reduceat(counts, starts)
        ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
        self.discount = ones / (ones + 2 * twos) if ones and twos else 0.5

    def interpolate(self, keys: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """p(w | h) from this order and the lower order's p; unseen contexts keep the latter."""
        count = np.where(*self._found(self.keys, keys, self.counts), 0)
        seen, total = self._found(self.contexts, keys >> self.bits, self.totals)
        _, num_types = self._found(self.contexts, keys >> self.bits, self.num_types)
        direct = np.maximum(count - self.discount, 0) / total
        return np.where(seen, direct + self.discount * num_types / total * lower, lower)

    @staticmethod
    def _found(
        table: np.ndarray, wanted: np.ndarray, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether each key is in the sorted table, and its value (any value where it is not)."""
        index = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
        return table[index] == wanted, values[index]
