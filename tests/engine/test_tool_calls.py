"""Tool calls: streamed equals unstreamed, rendered parses back, and nothing malformed is lost."""

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.engine.tool_calls import (
    ContentText,
    ToolCall,
    ToolCallArguments,
    ToolCallParser,
    ToolCallStart,
    collect,
    new_call_id,
    parse_tool_calls,
)
from tests.engine.tokenizers import published, small_tokenizer

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, CALL_END, SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
WEATHER = f'{CALL}function{SEP}weather\n```json\n{{"city": "北京"}}\n```{CALL_END}'
TURN_END = "<｜end▁of▁sentence｜>"


def ids() -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: f"call_{next(numbers)}"


def parse(text: str) -> tuple[str, list[tuple[str, str]]]:
    content, calls = parse_tool_calls(text, ids())
    return content, [(call.name, call.arguments) for call in calls]


def assert_streams_alike(text: str) -> None:
    """Whole, cut once anywhere, and character by character."""
    whole = parse_tool_calls(text, ids())
    for cut in range(len(text) + 1):
        parser = ToolCallParser(ids())
        events = parser.feed(text[:cut]) + parser.feed(text[cut:]) + parser.finish()
        assert collect(events) == whole, cut
    parser = ToolCallParser(ids())
    events = [event for character in text for event in parser.feed(character)]
    assert collect(events + parser.finish()) == whole


MARKUP = (BEGIN, END, CALL, CALL_END, SEP, "```", "\n```", "```json\n", '"', "\\", "{", "}", "\n")
TEXTS = st.lists(
    st.one_of(st.sampled_from(MARKUP), st.sampled_from(["北京", "🐋", "a", " "])), max_size=3
).map("".join)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 999), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=3,
)
NAMES = st.sampled_from(["weather", "get_time-2", "查询天气", "a.b:c", "x" * 64])
CALLS = st.lists(
    st.tuples(NAMES, st.dictionaries(TEXTS, VALUES, max_size=2)), min_size=1, max_size=2
)
CONTENTS = st.sampled_from(["", "Let me look.", "北京\n", "```json\n{}\n```", "<｜tool", "<", "{"])


def messages(calls: list[tuple[str, Any]], content: str | None) -> list[dict[str, Any]]:
    described = [
        {"type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in calls
    ]
    ask = {"role": "user", "content": "?"}
    return [ask, {"role": "assistant", "content": content, "tool_calls": described}]


@settings(deadline=None, max_examples=20)
@given(calls=CALLS, content=CONTENTS, indent=st.sampled_from([None, 2]))
def test_what_our_template_renders_parses_back_at_every_split_point(
    calls: list[tuple[str, Any]], content: str, indent: int | None
):
    written = [(name, json.dumps(a, ensure_ascii=False, indent=indent)) for name, a in calls]
    rendered = small_tokenizer().render(messages(written, content))
    text = rendered.rpartition("<｜Assistant｜>")[2].removesuffix(TURN_END)
    assert parse(text) == (content, written)
    assert_streams_alike(text)


@settings(deadline=None, max_examples=20)
@given(calls=CALLS, content=CONTENTS)
def test_v31_calls_parse_at_every_split_point(calls: list[tuple[str, Any]], content: str):
    written = [(name, json.dumps(a, ensure_ascii=False)) for name, a in calls]
    body = "".join(f"{CALL}{name}{SEP}{arguments}{CALL_END}" for name, arguments in written)
    text = f"{content}{BEGIN}{body}{END}"
    assert parse(text) == (content, written)
    assert_streams_alike(text)


@pytest.mark.parametrize("num_calls", [1, 2])
def test_what_v3s_published_template_renders_parses_back(num_calls: int):
    calls = [(name, '{"city": "北京"}') for name in ("weather", "time")[:num_calls]]
    rendered = published("deepseek_v3").render(messages(calls, None))
    # It closes the calls and the turn only behind a second call.
    text = rendered.rpartition("<｜Assistant｜>")[2].removesuffix(TURN_END)
    assert parse(text) == ("", calls)


PIECES = (*MARKUP, "function", "weather", "北京", "Q", " ", WEATHER, f"{CALL}function{SEP}")


@settings(deadline=None, max_examples=100)
@given(text=st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_any_markup_streams_as_it_parses_whole_and_loses_no_text(text: str):
    assert_streams_alike(text)
    content, calls = parse(text)
    if not calls:
        assert content == text
    shown = content + "".join(name + arguments for name, arguments in calls)
    for word in ("北京", "Q"):
        assert text.count(word) == shown.count(word)


@pytest.mark.parametrize(
    "text",
    [
        BEGIN,
        f"{BEGIN}{END}",
        f"{BEGIN} no call",
        f"{BEGIN}{CALL}function{SEP}two words\n```json\n{{}}\n```{CALL_END}{END}",
        f"{BEGIN}{CALL}function{SEP}{'n' * 300}\n```json\n{{}}\n```{CALL_END}{END}",
        f"{BEGIN}{CALL}function{SEP}weather\nno fence{CALL_END}{END}",
        f"{BEGIN}{CALL}function weather{CALL_END}{END}",
        f"{BEGIN}{CALL}function{SEP}weath",
        f"{BEGIN}{' ' * 65}{WEATHER}",
        f"Outside of calls: {WEATHER}",
        "half a marker: <｜tool▁calls▁be",
    ],
)
def test_a_head_that_is_no_head_is_content(text: str):
    assert parse(text) == (text, [])
    assert_streams_alike(text)


def test_a_real_call_behind_a_false_one_is_found():
    false = f"{BEGIN}no call "
    assert parse(f"{false}{BEGIN}{WEATHER}{END}") == (false, [("weather", '{"city": "北京"}')])


def test_text_behind_the_calls_is_content():
    assert parse(f"a{BEGIN}{WEATHER}{END}b")[0] == "ab"
    assert parse(f"a{BEGIN}{WEATHER}\nb")[0] == "a\nb"


def test_an_end_without_calls_and_spaces_before_it_is_no_content():
    assert parse(f"{BEGIN}{WEATHER}\n{END}")[0] == ""
    assert parse(f"{BEGIN}{WEATHER}\n")[0] == ""


@pytest.mark.parametrize(
    ("arguments", "parsed"),
    [
        ('{"a": "line\nbreak```"}', '{"a": "line\nbreak```"}'),
        ('{"a": "unclosed}', '{"a": "unclosed}'),
        ('{"a": [1, 2', '{"a": [1, 2'),
        ("{}} }", "{}} }"),
        ('no "json" {at all', 'no "json" {at all'),
        ("", ""),
        ("{}  ", "{}  "),
    ],
)
def test_arguments_that_are_no_json_end_at_the_next_marker(arguments: str, parsed: str):
    text = f"{BEGIN}{CALL}function{SEP}f\n```json\n{arguments}\n```{CALL_END}\n{WEATHER}{END}"
    assert parse(text) == ("", [("f", parsed), ("weather", '{"city": "北京"}')])
    assert_streams_alike(text)


@pytest.mark.parametrize("fence", ["\n```", "```", ""])
def test_a_fence_may_be_missing(fence: str):
    text = f"{BEGIN}{CALL}function{SEP}f\n```json\n{{}}{fence}{CALL_END}{END}"
    assert parse(text) == ("", [("f", "{}")])


def test_a_call_that_is_cut_short_keeps_what_was_written():
    text = f'{BEGIN}{CALL}function{SEP}f\n```json\n{{"a": "b`'
    assert parse(text) == ("", [("f", '{"a": "b`')])


def test_events_come_as_soon_as_they_can():
    parser = ToolCallParser(ids())
    assert parser.feed("Let me look.") == [ContentText("Let me look.")]
    assert parser.feed(BEGIN + CALL + "function" + SEP + "wea") == []
    assert parser.feed("ther\n```json\n") == [ToolCallStart(0, "call_0", "weather")]
    assert parser.feed('{"city"') == [ToolCallArguments(0, '{"city"')]
    assert parser.feed(": 1}") == [ToolCallArguments(0, ": 1}")]
    assert parser.feed("\n``") == []
    assert parser.feed(f"`{CALL_END}{END}") == []
    assert parser.finish() == []
    assert parser.num_calls == 1


def test_calls_have_ids_of_their_own():
    _, calls = parse_tool_calls(f"{BEGIN}{WEATHER}\n{WEATHER}{END}")
    assert len({call.id for call in calls}) == 2
    assert all(call.id.startswith("call_") for call in calls)
    assert calls[0] == ToolCall(calls[0].id, "weather", '{"city": "北京"}')
    assert new_call_id() != new_call_id()


def test_a_long_answer_takes_time_in_proportion_to_its_length():
    text = f"{BEGIN}{WEATHER * 10_000}{END}" + "x" * 200_000
    start = time.thread_time()
    content, calls = parse(text)
    assert (len(content), len(calls)) == (200_000, 10_000)
    assert time.thread_time() - start < 5, "copying the rest for every call takes minutes"
