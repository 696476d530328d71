"""Stop strings: the same cut however the text arrives, and nothing held back without need."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rorqual.engine.stops import StopChecker

TEXTS = st.text(alphabet="ab\n", max_size=24)
STOPS = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), max_size=4)


def naive(text: str, stops: list[str]) -> tuple[str, str | None, str]:
    """(text before the stop, stop, text behind it), character by character."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return text[: end - len(stop)], stop, text[end:]
    return text, None, ""


@given(text=TEXTS, stops=STOPS)
def test_at_every_split_point_the_stream_equals_the_whole(text: str, stops: list[str]):
    before, stop, behind = naive(text, stops)
    for cut in range(len(text) + 1):
        checker = StopChecker(stops)
        first, stopped = checker.feed(text[:cut])
        second, stopped_again = checker.feed(text[cut:])
        assert first + second + checker.finish() == before
        assert (stopped or stopped_again) == (stop is not None)
        assert checker.matched == stop
        unread = text[cut:] if stopped else ""
        assert checker.rest + unread == behind


@given(text=TEXTS, stops=STOPS)
def test_only_what_could_become_a_stop_is_held_back(text: str, stops: list[str]):
    checker = StopChecker(stops)
    shown = ""
    for position, character in enumerate(text, 1):
        safe, stopped = checker.feed(character)
        shown += safe
        if stopped:
            return
        seen = text[:position]
        starts = [i for i in range(position) if any(s.startswith(seen[i:]) for s in stops)]
        assert len(shown) == min(starts, default=position)


def test_the_longest_of_stops_that_end_together_counts():
    assert StopChecker(["b", "ab"]).feed("xab") == ("x", True)


def test_the_stop_that_is_complete_first_counts():
    checker = StopChecker(["abcd", "c"])
    assert [checker.feed(piece) for piece in "xabcd"][:4] == [
        ("x", False),
        ("", False),
        ("", False),
        ("ab", True),
    ]
    assert checker.matched == "c"


def test_the_stop_string_is_included_if_asked():
    checker = StopChecker(["\n\n"], include_stop=True)
    assert [checker.feed(piece) for piece in ("a\n", "\nb")] == [("a", False), ("\n\n", True)]


def test_nothing_comes_after_a_stop():
    checker = StopChecker(["."])
    assert checker.feed("a.b") == ("a", True)
    assert checker.feed("c") == ("", True)
    assert checker.finish() == ""


def test_an_empty_stop_string_is_our_own_bug():
    with pytest.raises(AssertionError, match="not empty"):
        StopChecker(["a", ""])
