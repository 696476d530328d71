"""The step's draws: sampling parameters of the running sequences, gathered and applied."""

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rorqual.engine.requests import PolicyStats, SamplingParams, TokenLogprobs
from rorqual.engine.sampler import Draws, draw_tokens, likeliest, log_normalizers
from rorqual.engine.sequence import Sequence
from rorqual.errors import EngineError
from rorqual.kernels.library import Library
from rorqual.kernels.sampling import SamplingRows


class Pick(NamedTuple):
    """A drawn token with the figures that its request asked for."""

    token_id: int
    logprobs: TokenLogprobs | None
    policy: PolicyStats | None


class Picker:
    """Draws one token for each of some sequences; library None: on the numpy twin.

    draw_seconds: how long drawing took so far, in all.
    """

    def __init__(
        self, max_num_seqs: int, vocab_size: int, library: Library | None, max_rows: int = 0
    ):
        self.draw_seconds = 0.0
        self._library = library
        # The adjusters have taken out what a structure forbids: no masks are left to apply.
        self._no_masks = np.zeros((0, (vocab_size + 31) // 32), dtype=np.uint32)
        self._unmasked = np.full(max(max_rows, max_num_seqs), -1, dtype=np.int32)
        self._temperature = np.ones(max_num_seqs, dtype=np.float32)
        self._top_k = np.zeros(max_num_seqs, dtype=np.int32)
        self._top_p = np.ones(max_num_seqs, dtype=np.float32)
        self._min_p = np.zeros(max_num_seqs, dtype=np.float32)
        self._params: list[SamplingParams | None] = [None] * max_num_seqs

    def pick(
        self, sequences: list[Sequence], logits: NDArray[np.float32], rows: list[int] | None
    ) -> list[Pick]:
        """One token per sequence from logits[rows] (None: row i is sequence i's).

        A sequence that stands there several times in a row draws so many tokens one after another;
        it must not have an adjuster, nor a thinking budget.
        """
        if rows is not None:
            logits = logits[rows]  # [S, V]
        own, changed, asked, stats = logits, False, False, False
        ahead: list[int] = []
        for row, sequence in enumerate(sequences):
            params = sequence.group.request.params
            again = row > 0 and sequences[row - 1] is sequence
            ahead.append(ahead[-1] + 1 if again else 0)
            changed |= sequence.adjuster is not None
            asked |= params.logprobs is not None
            stats |= params.policy_stats
        logprobs: list[TokenLogprobs | None] = [None] * len(sequences)
        normalizers = log_normalizers(own) if asked else None
        if changed:
            logits = _adjusted(sequences, own)
        settings = self._settings(sequences, ahead)
        drawn = self._draw(logits, settings, policy_stats=stats)
        picked: list[int] = drawn.token_ids.tolist()
        for row, sequence in enumerate(sequences):
            forced = _forced(sequence)
            if forced is not None:
                picked[row] = forced
                if drawn.logprobs is not None:
                    drawn.logprobs[row] = np.nan
        if min(picked) < 0 or not np.isfinite(own[np.arange(len(picked)), picked]).all():
            raise EngineError(
                "the model gave logits that are no numbers; its weights are damaged or the "
                "precision is too low for them"
            )
        if normalizers is not None:
            logprobs = _reported(sequences, own, normalizers, picked)
        policies: list[PolicyStats | None] = [None] * len(sequences)
        if drawn.logprobs is not None and drawn.entropies is not None:
            pairs = zip(drawn.logprobs.tolist(), drawn.entropies.tolist(), strict=True)
            for row, (logprob, entropy) in enumerate(pairs):
                if sequences[row].group.request.params.policy_stats:
                    policies[row] = PolicyStats(logprob, entropy)
        return [Pick(*fields) for fields in zip(picked, logprobs, policies, strict=True)]

    def guess(
        self, sequences: list[Sequence], logits: NDArray[np.float32], ahead: int
    ) -> list[int]:
        """Drafts from an MTP module's logits [S, V] for the token `ahead` of the next; -1: none.

        Drawn as the token itself will be, with its own number: where the module's distribution is
        the model's, so is the pick.
        """
        if not ahead and any(sequence.adjuster is not None for sequence in sequences):
            logits = _adjusted(sequences, logits)
        settings = self._settings(sequences, [ahead] * len(sequences))
        guessed: list[int] = self._draw(logits, settings).token_ids.tolist()
        if not ahead:
            for row, sequence in enumerate(sequences):
                forced = _forced(sequence)
                guessed[row] = guessed[row] if forced is None else forced
        return guessed

    def _draw(
        self, logits: NDArray[np.float32], settings: SamplingRows, *, policy_stats: bool = False
    ) -> Draws:
        started = time.perf_counter()
        drawn = draw_tokens(self._library, logits, settings, policy_stats=policy_stats)
        self.draw_seconds += time.perf_counter() - started
        return drawn

    def _settings(self, sequences: list[Sequence], ahead: list[int]) -> SamplingRows:
        """How each row is drawn: the token `ahead` of its sequence's next."""
        slots: list[int] = []
        uniform: list[float] = []
        for sequence, number in zip(sequences, ahead, strict=True):
            params = sequence.group.request.params
            slot = sequence.slot
            slots.append(slot)
            if self._params[slot] is not params:
                self._load(slot, params)
            uniforms = sequence.uniforms
            uniform.append(0.0 if uniforms is None else uniforms.at(sequence.num_written + number))
        return SamplingRows(
            self._temperature[slots],
            self._top_k[slots],
            self._top_p[slots],
            self._min_p[slots],
            np.array(uniform),
            self._no_masks,
            self._unmasked[: len(slots)],
        )

    def _load(self, slot: int, params: SamplingParams) -> None:
        self._params[slot] = params
        self._temperature[slot] = params.temperature
        self._top_k[slot], self._top_p[slot] = params.top_k, params.top_p
        self._min_p[slot] = params.min_p


def _adjusted(sequences: list[Sequence], logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of the logits [S, V] with each sequence's own changes."""
    logits = logits.copy()
    for row, sequence in enumerate(sequences):
        if sequence.adjuster is not None:
            sequence.adjuster.apply(logits[row])
    return logits


def _forced(sequence: Sequence) -> int | None:
    """What the thinking budget makes the next token, None if it is free."""
    if sequence.group.request.params.thinking_budget is None or sequence.output is None:
        return None
    splitter = sequence.output.splitter
    return splitter.forced_token(splitter.num_reasoning_tokens)


def _reported(
    sequences: list[Sequence],
    logits: NDArray[np.float32],
    normalizers: NDArray[np.float64],
    picked: list[int],
) -> list[TokenLogprobs | None]:
    """Log-probabilities of the picks for those that asked."""
    found: list[TokenLogprobs | None] = []
    for row, sequence in enumerate(sequences):
        count = sequence.group.request.params.logprobs
        found.append(
            None
            if count is None
            else token_logprobs(logits[row], normalizers[row], picked[row], count)
        )
    return found


def token_logprobs(
    logits: NDArray[np.float32], normalizer: float, token_id: int, count: int
) -> TokenLogprobs:
    """A token of a row [V] and the likeliest others."""
    logprob = float(logits[token_id] - normalizer)
    return TokenLogprobs(token_id, logprob, likeliest(logits, normalizer, count))


def score_prompt(sequence: Sequence, num_fed: int, logits: NDArray[np.float32]) -> None:
    """Note the log-probabilities of the prompt tokens that follow those fed.

    num_fed tokens from position num_cached on gave logits [>= num_fed, V].
    """
    found, count = sequence.prompt_logprobs, sequence.group.request.params.prompt_logprobs
    assert found is not None and count is not None
    first = sequence.num_cached + 1
    last = min(first + num_fed, sequence.num_prompt)
    if first >= last:
        return
    logits = logits[: last - first]
    normalizers = log_normalizers(logits)
    for row, position in enumerate(range(first, last)):
        token = int(sequence.tokens[position])
        found[position] = token_logprobs(logits[row], float(normalizers[row]), token, count)
