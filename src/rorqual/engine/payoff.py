"""Whether speculation pays, measured at each load while the engine serves.

Steps that only decode are timed: some phases with drafts, some without, in turn, so that both see
the same requests and the same machine. What writes a token sooner is kept for a long while; then it
is measured again. Loads are told apart by their number of sequences, in powers of two: drafts cost
least where few sequences share a step. None of this changes what is written, only how soon.
"""

from statistics import median
from typing import Final

PHASE_STEPS: Final = 8  # the first of each phase is not counted: it ends the phase before
TRIAL_STEPS: Final = 8 * PHASE_STEPS
SETTLED_STEPS: Final = 32 * TRIAL_STEPS
_FEWEST_SAMPLES: Final = 8
_LEAST_GAIN: Final = 1.02  # below, the noise of the measurement decides
_DRAFTABLE_SHARE: Final = 0.75  # of the sequences, below which a step says little about drafting


class _Samples:
    """Timed steps of one kind."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens = self.sequences = 0

    def add(self, num_sequences: int, num_tokens: int, seconds: float) -> None:
        self.seconds.append(seconds)
        self.tokens += num_tokens
        self.sequences += num_sequences

    def seconds_per_token(self) -> float:
        """Of one sequence; the median keeps what else the machine did out of it."""
        return median(self.seconds) * self.sequences / self.tokens


class _Load:
    """What is known of steps with about so many sequences."""

    def __init__(self) -> None:
        self.num_steps = 0  # of the trial, or since it ended
        self.pays: bool | None = None  # None: a trial is under way
        self.gain: float | None = None
        self.start_trial()

    def start_trial(self) -> None:
        self.num_steps, self.pays = 0, None
        self.drafted, self.plain = _Samples(), _Samples()


class Payoff:
    """Decides step by step whether to draft."""

    def __init__(self) -> None:
        self._loads: dict[int, _Load] = {}
        # Reading prompts with the module is paid for by the tokens that are written later.
        self._prompt_seconds = self._num_written = 0.0
        self.gain: float | None = None

    def reads_prompts(self, num_sequences: int) -> bool:
        """Whether the module should follow the sequences that start now."""
        return self._load(max(num_sequences, 1)).pays is not False

    def is_open(self, num_sequences: int) -> bool:
        """Whether a trial is under way at this load."""
        return self._load(num_sequences).pays is None

    def drafts(self, num_sequences: int, num_draftable: int) -> bool:
        """Whether to draft at the end of this step."""
        load = self._load(num_sequences)
        if load.pays is not None:
            return load.pays
        if num_draftable < _DRAFTABLE_SHARE * num_sequences:
            return False
        return load.num_steps // PHASE_STEPS % 2 == 0

    def observe_prompts(self, seconds: float) -> None:
        """The module took so long to read prompts."""
        self._prompt_seconds += seconds

    def observe(
        self, num_sequences: int, num_tokens: int, seconds: float, *, verified: bool, drafted: bool
    ) -> None:
        """A step that only decoded; `verified`: it fed drafts, `drafted`: it made new ones."""
        self._num_written += num_tokens
        load = self._load(num_sequences)
        load.num_steps += 1
        if load.pays is not None:
            if load.num_steps >= SETTLED_STEPS:
                load.start_trial()
            return
        if verified == drafted:
            samples = load.drafted if drafted else load.plain
            samples.add(num_sequences, num_tokens, seconds)
        if load.num_steps >= TRIAL_STEPS:
            self._decide(load)

    def _decide(self, load: _Load) -> None:
        if min(len(load.drafted.seconds), len(load.plain.seconds)) < _FEWEST_SAMPLES:
            load.start_trial()
            return
        prompts = self._prompt_seconds / max(self._num_written, 1.0)
        load.gain = load.plain.seconds_per_token() / (load.drafted.seconds_per_token() + prompts)
        load.pays = load.gain >= _LEAST_GAIN
        load.num_steps = 0
        self.gain = load.gain
        self._prompt_seconds /= 2
        self._num_written /= 2

    def _load(self, num_sequences: int) -> _Load:
        return self._loads.setdefault(num_sequences.bit_length(), _Load())


class AlwaysDraft(Payoff):
    """For a fixed number of drafts: nothing is measured."""

    def reads_prompts(self, num_sequences: int) -> bool:
        return True

    def is_open(self, num_sequences: int) -> bool:
        return False

    def drafts(self, num_sequences: int, num_draftable: int) -> bool:
        return True

    def observe(
        self, num_sequences: int, num_tokens: int, seconds: float, *, verified: bool, drafted: bool
    ) -> None:
        pass
