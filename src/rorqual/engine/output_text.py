"""What a sequence says, from its ids: thinking and answer apart, ended by stop strings.

Stop strings are looked for in the answer alone: one that occurs while the model thinks must not
leave the user without an answer.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rorqual.engine.reasoning import ReasoningSplitter
from rorqual.engine.stops import StopChecker


class TextDelta(NamedTuple):
    """New text, how many of the fed tokens were used, and whether a stop string ended it."""

    text: str
    reasoning: str
    num_tokens: int
    stopped: bool


class OutputText:
    """Detokenizer, reasoning splitter and stop checker of one sequence in a row."""

    def __init__(
        self, splitter: ReasoningSplitter, stops: Sequence[str] = (), *, include_stop: bool = False
    ):
        self.splitter = splitter
        self._stops = StopChecker(stops, include_stop=include_stop)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text, None if none has."""
        return self._stops.matched

    def feed(self, token_ids: Iterable[int]) -> TextDelta:
        """Text of the next tokens, up to and with the one that completes a stop string."""
        texts: list[str] = []
        reasonings: list[str] = []
        num_tokens = 0
        stopped = self._stops.matched is not None
        for token_id in token_ids:
            if stopped:
                break
            _, reasoning, content = self.splitter.split(token_id)
            num_tokens += 1
            reasonings.append(reasoning)
            if content:
                safe, stopped = self._stops.feed(content)
                texts.append(safe)
        return TextDelta("".join(texts), "".join(reasonings), num_tokens, stopped)

    def finish(self) -> TextDelta:
        """What was held back, when the sequence ends; nothing after a stop string."""
        if self._stops.matched is not None:
            return TextDelta("", "", 0, True)
        _, reasoning, content = self.splitter.finish()
        safe, stopped = self._stops.feed(content)
        return TextDelta(safe + self._stops.finish(), reasoning, 0, stopped)
