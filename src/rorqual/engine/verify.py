"""Drawing along drafts: several tokens of one sequence out of one step's logits."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rorqual.engine.deltas import join_deltas
from rorqual.engine.picker import Pick, Picker
from rorqual.engine.requests import Delta
from rorqual.engine.sequence import Sequence


def draw_along_drafts(
    picker: Picker,
    drawing: list[Sequence],
    rows: list[int],
    logits: NDArray[np.float32],
    take: Callable[[Sequence, Pick], Delta],
    foretold: Callable[[Sequence, int], bool],
) -> dict[Sequence, Delta]:
    """Draw each sequence's next token, and the ones behind it as long as its drafts foretold them.

    rows: that of each one's next token in logits [L, V]; its drafts' rows follow. `take` adds a
    token to its sequence, `foretold` then says whether it had been fed, so that the next row
    counts. One delta for each sequence.
    """
    told: dict[Sequence, Delta] = {}
    open_ones = list(zip(drawing, rows, strict=True))
    while open_ones:
        # What a draw changes (penalties, structures, budgets) bears on the next one, which then
        # has to wait for it; all others are drawn at once, some of them in vain.
        spans = [1 if s.draws_depend else 1 + len(s.drafts) for s, _ in open_ones]
        sequences: list[Sequence] = []
        wanted: list[int] = []
        for (sequence, row), span in zip(open_ones, spans, strict=True):
            sequences += [sequence] * span
            wanted += range(row, row + span)
        picks = iter(picker.pick(sequences, logits, wanted))
        left: list[tuple[Sequence, int]] = []
        for (sequence, row), span in zip(open_ones, spans, strict=True):
            own = [next(picks) for _ in range(span)]
            for pick in own:
                delta = take(sequence, pick)
                told[sequence] = join_deltas(told[sequence], delta) if sequence in told else delta
                if not foretold(sequence, pick.token_id):
                    break
                if span == 1:
                    left.append((sequence, row + 1))
        open_ones = left
    return told
