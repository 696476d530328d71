"""Stop strings in text that arrives in pieces.

The string that is complete first ends the text; of several complete at the same character the
longest counts, so the text is cut where it begins. This depends on the characters alone, not on
how they were cut into tokens. Text is held back only while it could still become a stop string.
"""

from collections.abc import Sequence


class StopChecker:
    """Passes text on until one of `stops` occurs in it.

    After a stop, `matched` is that string and `rest` the text of the same piece behind it.
    `include_stop` passes the stop string on as well.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False):
        assert all(stops), "stop strings are not empty"
        self._stops = tuple(stops)
        self._include_stop = include_stop
        self._first_characters = frozenset(stop[0] for stop in stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.matched: str | None = None
        self.rest = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Text that is safe to show, and whether a stop string ended it; nothing more after it."""
        if self.matched is not None:
            return "", True
        if not self._stops:
            return text, False
        text = self._held + text
        found = self._first_match(text)
        if found is None:
            kept = len(text) - self._num_pending(text)
            self._held = text[kept:]
            return text[:kept], False
        end, stop = found
        self._held, self.matched, self.rest = "", stop, text[end:]
        return text[: end if self._include_stop else end - len(stop)], True

    def finish(self) -> str:
        """What was held back, when the text ends without a stop."""
        held, self._held = self._held, ""
        return held

    def _first_match(self, text: str) -> tuple[int, str] | None:
        """(end, stop string) of the match that is complete first, the longest of equal ends."""
        found: tuple[int, str] | None = None
        for stop in self._stops:
            limit = len(text) if found is None else found[0]
            start = text.find(stop, 0, limit)
            if start < 0:
                continue
            end = start + len(stop)
            if found is None or end < found[0] or len(stop) > len(found[1]):
                found = end, stop
        return found

    def _num_pending(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start] in self._first_characters:
                tail = text[start:]
                if any(stop.startswith(tail) for stop in self._stops):
                    return len(tail)
        return 0
