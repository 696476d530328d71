"""From a plan to the flat arrays of a step.

The block tables of running sequences stand in one matrix, a row per slot, and change only where a
sequence got a block; the other arrays are buffers that every step writes anew.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rorqual.engine.scheduler import Plan
from rorqual.engine.sequence import Sequence
from rorqual.kernels.step import StepBatch


class Piece(NamedTuple):
    """A prompt's tokens in a step: num_tokens of `sequence` from batch row first_row.

    logit_row: the row of the step's logits that belongs to its first wanted row, -1 if it wants
    none; a prompt whose logprobs are wanted has one for each fed token, any other only the last.
    """

    sequence: Sequence
    num_tokens: int
    first_row: int
    logit_row: int


class StepTables:
    """Builds a StepBatch out of a Plan."""

    def __init__(self, max_num_seqs: int, max_blocks: int, max_batch_tokens: int):
        self.tables = np.full((max_num_seqs, max_blocks), -1, dtype=np.int32)
        rows = max_batch_tokens + max_num_seqs
        self._token_ids = np.zeros(rows, dtype=np.int32)
        self._output_rows = np.zeros(rows, dtype=np.int32)
        self._counting = np.arange(rows + 1, dtype=np.int32)
        self._first_rows = np.zeros(max_num_seqs + 1, dtype=np.int32)

    def build(self, plan: Plan) -> tuple[StepBatch, list[Piece]]:
        """The arrays, valid until the next call, and where the prompts stand in them.

        Decoding sequences come first and want the logits of all their rows: the last token's and
        those of the drafts behind it.
        """
        decoding, reading = plan
        sequences = decoding + [sequence for sequence, _ in reading] if reading else decoding
        tables = self.of(sequences)
        num_cached = np.array([s.num_cached for s in sequences], dtype=np.int32)  # [S]
        first_rows = self._decoding_rows(decoding)
        num_rows = int(first_rows[-1])
        if reading:
            pieces, first_rows, num_rows, num_outputs = self._place(reading, first_rows)
            output_rows = self._output_rows[:num_outputs]
        else:
            pieces = []
            output_rows = self._counting[:num_rows]
        batch = StepBatch(
            token_ids=self._token_ids[:num_rows],
            first_rows=first_rows,
            num_cached=num_cached,
            block_tables=tables,
            output_rows=output_rows,
        )
        return batch, pieces

    def _decoding_rows(self, decoding: list[Sequence]) -> NDArray[np.int32]:
        """Write the tokens of decoding sequences; first_rows [S+1] of them."""
        num_decoding = len(decoding)
        if not any(sequence.drafts for sequence in decoding):
            self._token_ids[:num_decoding] = [sequence.last_token for sequence in decoding]
            return self._counting[: num_decoding + 1]
        row = 0
        for number, sequence in enumerate(decoding):
            self._first_rows[number] = row
            end = row + 1 + len(sequence.drafts)
            self._token_ids[row:end] = [sequence.last_token, *sequence.drafts]
            row = end
        self._first_rows[num_decoding] = row
        return self._first_rows[: num_decoding + 1]

    def _place(
        self, reading: list[tuple[Sequence, int]], decoding_rows: NDArray[np.int32]
    ) -> tuple[list[Piece], NDArray[np.int32], int, int]:
        """Prompts after the decoding rows: pieces, first_rows [S+1], rows and wanted rows."""
        num_decoding = len(decoding_rows) - 1
        self._first_rows[: num_decoding + 1] = decoding_rows
        row = outputs = int(decoding_rows[-1])
        self._output_rows[:row] = self._counting[:row]
        pieces: list[Piece] = []
        for number, (sequence, count) in enumerate(reading, start=num_decoding + 1):
            fed = sequence.tokens[sequence.num_cached : sequence.num_cached + count]
            self._token_ids[row : row + count] = fed
            first_wanted = row + count
            if sequence.prompt_logprobs is not None:
                first_wanted = row
            elif count == sequence.num_pending:
                first_wanted = row + count - 1
            wanted = row + count - first_wanted
            self._output_rows[outputs : outputs + wanted] = self._counting[
                first_wanted : row + count
            ]
            pieces.append(Piece(sequence, count, row, outputs if wanted else -1))
            outputs += wanted
            row += count
            self._first_rows[number] = row
        return pieces, self._first_rows[: num_decoding + len(reading) + 1], row, outputs

    def of(self, sequences: list[Sequence]) -> NDArray[np.int32]:
        """The block tables [S, B] of some running sequences."""
        width = 0
        for sequence in sequences:
            if sequence.tabled != len(sequence.blocks):
                self._write(sequence)
            width = max(width, len(sequence.blocks))
        return self.tables[[sequence.slot for sequence in sequences], :width]

    def _write(self, sequence: Sequence) -> None:
        """Write the blocks that the table does not have yet; a new sequence clears its row."""
        row, held = self.tables[sequence.slot], len(sequence.blocks)
        if not sequence.tabled:
            row[held:] = -1
        row[sequence.tabled : held] = sequence.blocks[sequence.tabled :]
        sequence.tabled = held

    def replace(self, sequence: Sequence, position: int, block: int) -> None:
        """A sequence now holds another block with the same content."""
        self.tables[sequence.slot, position] = block

    def shorten(self, sequence: Sequence) -> None:
        """A sequence has given back its last blocks."""
        held = len(sequence.blocks)
        self.tables[sequence.slot, held : sequence.tabled] = -1
        sequence.tabled = min(sequence.tabled, held)
