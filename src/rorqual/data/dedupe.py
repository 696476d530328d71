"""Drops documents that repeat an earlier one, exactly or nearly.

Exact: the hash of the text with case and white space folded. Near: a bottom-k sketch (Cohen and
Kaplan 2007), the k smallest hashes of all 32-byte windows; the share of equal values among the k
smallest of two sketches' union estimates the Jaccard similarity. Sketches that could be similar
are found by their few smallest values, which near-duplicates nearly always share.

Feed held-out documents first: then what is dropped is the training copy.
"""

import hashlib
from collections import Counter

import numpy as np

_WINDOW_DOUBLINGS = 5  # windows of 2**5 bytes
_SKETCH_VALUES = 48
_INDEXED_VALUES = 4
_SHARED_VALUES = 2  # of the indexed ones, before two sketches are compared
_LONGEST_BUCKET = 16
_MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def sketch(text: str) -> np.ndarray:
    """The smallest window hashes of a text, ascending; empty for less than one window."""
    data = np.frombuffer(text.encode(), np.uint8)
    if len(data) < 1 << _WINDOW_DOUBLINGS:
        return np.empty(0, np.uint64)
    hashes = data.astype(np.uint64) + np.uint64(1)  # [bytes] uint64
    power = _MULTIPLIER
    for doubling in range(_WINDOW_DOUBLINGS):  # a window of 2w is two windows of w
        step = 1 << doubling
        hashes = hashes[:-step] * np.uint64(power) + hashes[step:]
        power = power * power & _MASK
    hashes ^= hashes >> np.uint64(29)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(32)
    if len(hashes) > 4 * _SKETCH_VALUES:  # repeated windows may crowd out some; take a margin
        hashes = np.partition(hashes, 4 * _SKETCH_VALUES - 1)[: 4 * _SKETCH_VALUES]
    return np.unique(hashes)[:_SKETCH_VALUES]


def similarity(left: np.ndarray, right: np.ndarray) -> float:
    """Estimated Jaccard similarity of the window sets behind two sketches."""
    union = np.union1d(left, right)[:_SKETCH_VALUES]
    both = np.intersect1d(left, right, assume_unique=True)
    return float(np.isin(union, both, assume_unique=True).sum() / max(len(union), 1))


class Deduplicator:
    """Remembers the documents it has let through."""

    def __init__(self, threshold: float = 0.8) -> None:
        self.threshold = threshold
        self.exact = 0
        self.near = 0
        self._hashes: set[bytes] = set()
        self._sketches: list[np.ndarray] = []
        self._buckets: dict[int, list[int]] = {}

    def is_new_exactly(self, text: str) -> bool:
        """Whether this very text has not come before; for chats, whose templates are alike."""
        digest = hashlib.blake2b(text.encode(), digest_size=16, salt=b"exact").digest()
        if digest in self._hashes:
            self.exact += 1
            return False
        self._hashes.add(digest)
        return True

    def is_new(self, text: str) -> bool:
        """Whether nothing like this text came before; a new text is remembered."""
        folded = " ".join(text.lower().split())
        digest = hashlib.blake2b(folded.encode(), digest_size=16).digest()
        if digest in self._hashes:
            self.exact += 1
            return False
        self._hashes.add(digest)
        values = sketch(folded)
        keys = values[:_INDEXED_VALUES].tolist()
        shared = Counter(index for key in keys for index in self._buckets.get(key, ()))
        enough = min(_SHARED_VALUES, len(keys))
        candidates = (index for index, count in shared.items() if count >= enough)
        if any(similarity(values, self._sketches[i]) >= self.threshold for i in candidates):
            self.near += 1
            return False
        self._sketches.append(values)
        for key in keys:
            bucket = self._buckets.setdefault(key, [])
            if len(bucket) < _LONGEST_BUCKET:
                bucket.append(len(self._sketches) - 1)
        return True
