"""Best-fit packing: documents into rows of a fixed number of tokens, without losing any.

Documents longer than a row are cut into full rows and a rest. Then, row by row, the longest piece
that is left opens a row and the longest that still fits is put in until nothing fits (Ding et
al. 2024, arXiv 2404.10830, "Fewer Truncations"). Where peers crop a document to fill the gap and
drop what is cut off, the longest piece left is cut and its rest goes back: no token is dropped.
A gap of less than 1/128 of a row is padded instead; a handful of tokens without their document
teaches nothing. Conversations are packed whole: an answer without its question teaches nothing
either.
"""

from dataclasses import dataclass

import numpy as np

_PADDED_GAP_DIVISOR = 128


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows as pieces of documents; row i is pieces offsets[i] to offsets[i + 1]."""

    documents: np.ndarray  # [pieces] int64, position in the lengths that were packed
    starts: np.ndarray  # [pieces] int64, first token inside the document
    lengths: np.ndarray  # [pieces] int64
    offsets: np.ndarray  # [rows + 1] int64

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        return len(self.offsets) - 1


Piece = tuple[int, int, int]  # document, start, length


def pack_rows(lengths: np.ndarray, row_tokens: int) -> PackedRows:
    """Packs documents of these lengths, [documents] int64, into rows of `row_tokens`."""
    rows: list[list[Piece]] = []
    left = _Pieces()
    for document in range(len(lengths) - 1, -1, -1):  # the last put in is the first taken out
        length = int(lengths[document])
        full = length // row_tokens
        rows.extend([(document, row * row_tokens, row_tokens)] for row in range(full))
        if length % row_tokens:
            left.put((document, full * row_tokens, length % row_tokens))
    while left:
        rows.append(_fill_row(left, row_tokens))
    pieces = np.array([piece for row in rows for piece in row], np.int64).reshape(-1, 3)
    offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    return PackedRows(pieces[:, 0], pieces[:, 1], pieces[:, 2], offsets)


def pack_whole(lengths: np.ndarray, row_tokens: int) -> list[list[int]]:
    """Positions in `lengths` [documents] int64 by row; none is cut, none may exceed a row."""
    left = _Pieces()
    for document in range(len(lengths) - 1, -1, -1):
        left.put((document, 0, int(lengths[document])))
    rows: list[list[int]] = []
    while left:
        row, gap = list[int](), row_tokens
        while left.has_at_most(gap):
            document, _, length = left.take_longest(gap)
            row.append(document)
            gap -= length
        assert row, f"a document of more than {row_tokens} tokens"
        rows.append(row)
    return rows


def _fill_row(left: "_Pieces", row_tokens: int) -> list[Piece]:
    row = [left.take_longest(row_tokens)]
    gap = row_tokens - row[0][2]
    while gap and left:
        if left.has_at_most(gap):
            row.append(left.take_longest(gap))
            gap -= row[-1][2]
        elif gap > row_tokens // _PADDED_GAP_DIVISOR:
            document, start, length = left.take_longest(row_tokens)
            row.append((document, start, gap))
            left.put((document, start + gap, length - gap))
            gap = 0
        else:
            break
    row.sort(key=lambda piece: piece[1] != 0)  # a row starts at a document's beginning if it can
    return row


class _Pieces:
    """Pieces by length. The set bits of one big integer say which lengths there are."""

    def __init__(self) -> None:
        self._by_length: dict[int, list[Piece]] = {}
        self._present = 0

    def __bool__(self) -> bool:
        return self._present != 0

    def put(self, piece: Piece) -> None:
        self._by_length.setdefault(piece[2], []).append(piece)
        self._present |= 1 << piece[2]

    def has_at_most(self, length: int) -> bool:
        return self._present & ((2 << length) - 1) != 0

    def take_longest(self, limit: int) -> Piece:
        """The longest piece of at most `limit` tokens; there must be one."""
        length = (self._present & ((2 << limit) - 1)).bit_length() - 1
        pieces = self._by_length[length]
        piece = pieces.pop()
        if not pieces:
            self._present ^= 1 << length
        return piece
