"""Speculative decoding: the checkpoint's own MTP module guesses tokens, the model verifies them.

A decoding sequence feeds its last token and, behind it, the drafts; one step of the model then
gives the logits after each. Acceptance is *draw and compare*: at every position the token is drawn
from the model's logits exactly as without speculation (same adjustments, same uniform number of
that position), and the next row counts as long as the draw is the draft. So a seed gives the very
same tokens with and without drafts, whatever drafted, and every other promise (structures, stops,
budgets, log-probabilities, independence of neighbours) holds because nothing but true draws ever
reaches a sequence. Classical rejection sampling accepts up to sum(min(p, q)) but draws other
tokens; here the module's draw uses the position's own uniform number, which makes both agree
wherever their cumulated weights do, and costs nothing when greedy.

The module (V3 section 2.2) has a layer of the paged cache of its own in the same blocks. It reads
at position p the model's state there and the token that follows, so it lags behind by the token
that is not drawn yet; prompts are read in the same pieces as by the model. NOTE: the last cell of
a full block depends on the first token behind it. Sequences that share the block share whichever
was written; that may cost an accepted draft, never a token.

More than one draft per step: the first module again, on its own state, as engines do with the
published checkpoints, which hold only one.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rorqual.config.engine import EngineConfig
from rorqual.engine.batch import Piece, StepTables
from rorqual.engine.payoff import AlwaysDraft, Payoff
from rorqual.engine.picker import Picker
from rorqual.engine.requests import SequenceState
from rorqual.engine.runner import DraftingRunner, Runner
from rorqual.engine.scheduler import Plan, Scheduler
from rorqual.engine.sequence import Sequence
from rorqual.errors import ConfigError
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch, StepOutput

_LONGEST_BACKLOG = 64  # states that a sequence keeps for the module while drafting is off


class _Reading(NamedTuple):
    """Rows that the module reads of a sequence, from its position num_read on. states [rows, H]"""

    sequence: Sequence
    states: NDArray[np.float32]


def num_drafts(runner: Runner, config: EngineConfig) -> int:
    """How many tokens a step may draft; 0: this model or runner cannot, or shall not."""
    wanted = config.num_speculative_tokens
    if wanted == "off":
        return 0
    num_modules = getattr(runner.config, "num_nextn_predict_layers", 0)
    able = num_modules > 0 and isinstance(runner, DraftingRunner)
    if wanted == "auto":
        return int(able)
    if not able:
        lacking = "the torch path cannot draft" if num_modules else "the model has no MTP module"
        raise ConfigError(
            f"num_speculative_tokens={wanted}, but {lacking}; use auto or leave it out"
        )
    return wanted


class Speculation:
    """Drafts for the running sequences of one engine."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        tables: StepTables,
        picker: Picker,
        config: EngineConfig,
        clock: Callable[[], float] = time.monotonic,
    ):
        assert isinstance(runner, DraftingRunner)
        self._runner: DraftingRunner = runner
        self._scheduler, self._tables, self._picker = scheduler, tables, picker
        self._clock = clock
        self.num_drafts = num_drafts(runner, config)
        self._most_drafts = config.max_batch_tokens // 2  # prompts get on beside them
        self._most_rows = config.max_batch_tokens + config.max_num_seqs
        # Whatever was kept must fit into one call of the module, new rows included.
        self._longest_backlog = min(_LONGEST_BACKLOG, self._most_rows // 2)
        fixed = config.num_speculative_tokens != "auto"
        self.payoff = AlwaysDraft() if fixed else Payoff()

    def begin(self) -> None:
        """Before a step is planned: whether the module reads the prompts that start now."""
        self._scheduler.drafting = self.payoff.reads_prompts(len(self._scheduler.running))

    def wants_states(self, plan: Plan) -> bool:
        """Whether the module follows any sequence of the step."""
        return any(s.draftable for s in plan.decoding) or any(s.draftable for s, _ in plan.reading)

    def read_prompts(self, pieces: list[Piece], states: NDArray[np.float32]) -> None:
        """Let the module read the pieces that the model has just read. states [T, H]

        The row of a prompt's last token waits until the token behind it is drawn. NOTE: this comes
        before siblings part, so that a block that is copied for them is complete.
        """
        readings: list[_Reading] = []
        for sequence, count, row, _ in pieces:
            count -= sequence.num_cached + count == sequence.num_tokens
            if sequence.draftable and count:
                readings.append(_Reading(sequence, states[row : row + count]))
        if readings:
            started = self._clock()
            self._read(readings, np.zeros(0, np.int32))
            self.payoff.observe_prompts(self._clock() - started)

    def draft(
        self, sequences: list[Sequence], rows: list[int], states: NDArray[np.float32]
    ) -> bool:
        """New drafts for sequences that have just drawn; whether there are any.

        rows: where each one's newly computed rows begin in states [T, H].
        """
        open_ones = [
            (sequence, row)
            for sequence, row in zip(sequences, rows, strict=True)
            if sequence.draftable and sequence.state is SequenceState.RUNNING
        ]
        if not open_ones:
            return False
        drafts = self.payoff.drafts(len(sequences), len(open_ones))
        readings: list[_Reading] = []
        claimed: set[int] = set()
        num_rows = 0
        for sequence, row in open_ones:
            reading = _Reading(sequence, self._unread(sequence, row, states))
            num_rows += len(reading.states)
            if not drafts or num_rows > self._most_rows:
                self._keep(reading, len(sequences))
            elif self._may_write(sequence, claimed):
                readings.append(reading)
            else:
                sequence.num_read, sequence.backlog = sequence.num_cached, None
        if readings:
            self._draft(readings)
        return bool(readings)

    def _unread(
        self, sequence: Sequence, row: int, states: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The states [rows, H] that the module has not read: backlog and new ones."""
        count = sequence.num_cached - sequence.num_read
        backlog = sequence.backlog
        if backlog is None:
            return states[row : row + count]
        return np.concatenate([backlog, states[row : row + count - len(backlog)]])

    def _keep(self, reading: _Reading, num_sequences: int) -> None:
        """No drafts now: keep the states for later, for a while."""
        sequence, states = reading
        if len(states) < self._longest_backlog:
            sequence.backlog = states.copy()
        elif self.payoff.is_open(num_sequences):
            self._read([reading], np.zeros(0, np.int32))
        else:
            self._scheduler.stop_drafting(sequence)

    def _may_write(self, sequence: Sequence, claimed: set[int]) -> bool:
        """Whether no other sequence of this step writes the same cells; claims shared blocks."""
        references = self._scheduler.pool.references
        first = sequence.num_read // BLOCK_TOKENS
        last = (sequence.num_cached - 1) // BLOCK_TOKENS
        shared = [b for b in sequence.blocks[first : last + 1] if references[b] > 1]
        if not claimed.isdisjoint(shared):
            return False
        claimed.update(shared)
        return True

    def _draft(self, readings: list[_Reading]) -> None:
        """Read, and guess what follows."""
        last_rows = np.cumsum([len(one.states) for one in readings], dtype=np.int32) - np.int32(1)
        output = self._read(readings, last_rows)
        assert output.hidden is not None
        states = output.hidden[last_rows]  # [S, H]
        sequences = [one.sequence for one in readings]
        logits, left = output.logits, self._most_drafts
        for ahead in range(self.num_drafts):
            guesses = self._picker.guess(sequences, logits, ahead)
            going_on: list[int] = []
            for number, (sequence, guess) in enumerate(zip(sequences, guesses, strict=True)):
                room = sequence.max_tokens_total - 1 - sequence.num_tokens - ahead
                if guess < 0 or room <= 0 or not left:
                    continue
                sequence.drafts.append(guess)
                left -= 1
                if ahead + 1 < self.num_drafts and self._has_cell(sequence, ahead):
                    going_on.append(number)
            if not going_on:
                return
            sequences = [sequences[number] for number in going_on]
            output = self._read_drafts(sequences, states[going_on], ahead)
            assert output.hidden is not None
            logits, states = output.logits, output.hidden

    def _has_cell(self, sequence: Sequence, ahead: int) -> bool:
        """Whether the module can read its own draft; the mask of a structure reaches only one."""
        held = len(sequence.blocks) * BLOCK_TOKENS
        return sequence.adjuster is None and sequence.num_cached + ahead < held

    def _read_drafts(
        self, sequences: list[Sequence], states: NDArray[np.float32], ahead: int
    ) -> StepOutput:
        """One row a sequence: its last draft, behind the module's own state. states [S, H]

        What this writes lies behind num_read and is written again from the model's states.
        """
        counting = np.arange(len(sequences) + 1, dtype=np.int32)
        batch = StepBatch(
            np.array([sequence.drafts[-1] for sequence in sequences], dtype=np.int32),
            counting,
            np.array([sequence.num_cached + ahead for sequence in sequences], dtype=np.int32),
            self._tables.of(sequences),
            counting[:-1],
        )
        return self._runner.draft_step(batch, np.ascontiguousarray(states))

    def _read(self, readings: list[_Reading], wanted: NDArray[np.int32]) -> StepOutput:
        """Feed the module; logits of the wanted rows."""
        sequences = [one.sequence for one in readings]
        first_rows = np.zeros(len(readings) + 1, dtype=np.int32)
        np.cumsum([len(one.states) for one in readings], out=first_rows[1:])
        following: list[NDArray[np.int32]] = []
        for sequence, states in readings:
            begin = sequence.num_read + 1
            following.append(sequence.tokens[begin : begin + len(states)])
        batch = StepBatch(
            np.concatenate(following),
            first_rows,
            np.array([sequence.num_read for sequence in sequences], dtype=np.int32),
            self._tables.of(sequences),
            wanted,
        )
        output = self._runner.draft_step(batch, np.concatenate([one.states for one in readings]))
        for sequence, states in readings:
            sequence.num_read += len(states)
            sequence.backlog = None
        return output
