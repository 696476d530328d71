"""The chat template: golden cases, V3's published template beside it, messages it refuses."""

from collections.abc import Callable
from typing import Any

import pytest

from rorqual.errors import RequestError
from rorqual.tokenizer import Tokenizer

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "Weather in 北京?"}
ANSWER = {"role": "assistant", "content": "Sunny."}
THANK = {"role": "user", "content": "Thanks"}


def call(name: str, arguments: Any = '{"city": "北京"}') -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(content: str) -> dict[str, Any]:
    return {"role": "tool", "content": content}


TWO_CALLS = calling(call("weather"), call("time"))
CALL_HEAD = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>"
CALL_TAIL = '\n```json\n{"city": "北京"}\n```<｜tool▁call▁end｜>'
WEATHER, TIME = f"{CALL_HEAD}weather{CALL_TAIL}", f"{CALL_HEAD}time{CALL_TAIL}"
QUESTION = "<｜User｜>Weather in 北京?"
OUTPUT = "<｜tool▁output▁begin｜>{}<｜tool▁output▁end｜>"


@pytest.mark.parametrize(
    ("messages", "prompt", "thinking", "expected"),
    [
        ([ASK], False, None, f"{BOS}{QUESTION}"),
        ([ASK], True, None, f"{BOS}{QUESTION}<｜Assistant｜>"),
        ([ASK], True, False, f"{BOS}{QUESTION}<｜Assistant｜>"),
        ([ASK], True, True, f"{BOS}{QUESTION}<｜Assistant｜><think>\n"),
        (
            [SYSTEM, ASK, ANSWER, THANK],
            True,
            None,
            f"{BOS}Be brief.{QUESTION}<｜Assistant｜>Sunny.{EOS}<｜User｜>Thanks<｜Assistant｜>",
        ),
        (
            [SYSTEM, SYSTEM, ASK],
            False,
            None,
            f"{BOS}Be brief.\n\nBe brief.{QUESTION}",
        ),
        (
            [ASK, TWO_CALLS, result("sun"), result("noon"), ANSWER],
            False,
            None,
            f"{BOS}{QUESTION}<｜Assistant｜><｜tool▁calls▁begin｜>{WEATHER}\n{TIME}"
            f"<｜tool▁calls▁end｜>{EOS}<｜tool▁outputs▁begin｜>{OUTPUT.format('sun')}\n"
            f"{OUTPUT.format('noon')}<｜tool▁outputs▁end｜>Sunny.{EOS}",
        ),
        (
            [ASK, TWO_CALLS, result("sun"), result("noon")],
            True,
            True,
            f"{BOS}{QUESTION}<｜Assistant｜><｜tool▁calls▁begin｜>{WEATHER}\n{TIME}"
            f"<｜tool▁calls▁end｜>{EOS}<｜tool▁outputs▁begin｜>{OUTPUT.format('sun')}"
            f"{OUTPUT.format('noon')}<｜tool▁outputs▁end｜>",
        ),
        (
            [ASK, calling(call("weather"), content="Let me look."), result("sun")],
            True,
            True,
            f"{BOS}{QUESTION}<｜Assistant｜>Let me look.<｜tool▁calls▁begin｜>{WEATHER}"
            f"<｜tool▁calls▁end｜>{EOS}<｜tool▁outputs▁begin｜>{OUTPUT.format('sun')}"
            "<｜tool▁outputs▁end｜>",
        ),
    ],
)
def test_golden_conversations(
    ours: Tokenizer, messages: list, prompt: bool, thinking: bool | None, expected: str
):
    rendered = ours.render(messages, add_generation_prompt=prompt, thinking=thinking)
    assert rendered == expected


def test_earlier_turns_keep_only_text_after_their_reasoning(ours: Tokenizer):
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nSunny."}
    expected = f"<｜Assistant｜>\n\nSunny.{EOS}<｜User｜>Thanks<｜Assistant｜><think>\n"
    rendered = ours.render([ASK, thought, THANK], add_generation_prompt=True, thinking=True)
    assert rendered == f"{BOS}{QUESTION}{expected}"
    # A prompt that ended in <think> leaves a completion without the opening marker.
    unopened = {"role": "assistant", "content": "hm\n</think>\n\nSunny."}
    again = ours.render([ASK, unopened, THANK], add_generation_prompt=True, thinking=True)
    assert again == rendered


def test_separate_reasoning_is_dropped_from_earlier_turns_and_kept_in_the_last(ours: Tokenizer):
    thought = {**ANSWER, "reasoning_content": "hm"}
    kept = ours.render([ASK, thought])
    assert kept.endswith(f"<｜Assistant｜><think>\nhm\n</think>\n\nSunny.{EOS}")
    assert ours.render([ASK, thought, THANK]) == ours.render([ASK, ANSWER, THANK])


def test_reasoning_between_tool_calls_is_kept_until_the_next_question(ours: Tokenizer):
    step = {**calling(call("weather")), "reasoning_content": "hm"}
    assert "<think>\nhm\n</think>" in ours.render([ASK, step, result("sun")])
    assert "hm" not in ours.render([ASK, step, result("sun"), ANSWER, THANK])


def test_arguments_may_be_an_object(ours: Tokenizer):
    as_text = ours.render([ASK, calling(call("weather"))])
    assert ours.render([ASK, calling(call("weather", {"city": "北京"}))]) == as_text


def test_content_may_be_text_parts(ours: Tokenizer):
    parts = [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "北京?"}]
    assert ours.render([{"role": "user", "content": parts}]) == ours.render([ASK])


def test_tools_are_described_in_the_system_text(ours: Tokenizer):
    tool = {"type": "function", "function": {"name": "weather", "description": "看天气"}}
    rendered = ours.render([SYSTEM, ASK], tools=[tool])
    system, question = rendered.split("<｜User｜>")
    assert system.startswith(f"{BOS}Be brief.\n\n## Functions\n\n")
    assert '{"name": "weather", "description": "看天气"}\n' in system
    assert (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n" in system
    )
    assert question == ASK["content"]
    assert ours.render([ASK], tools=[]) == ours.render([ASK])


@pytest.mark.parametrize(
    "messages",
    [
        [ASK],
        [SYSTEM, ASK, ANSWER],
        [SYSTEM, ASK, ANSWER, THANK],
        [ASK, SYSTEM, SYSTEM, ANSWER],
        [ANSWER, ANSWER, ASK, THANK],
        [ASK, TWO_CALLS],
        [ASK, TWO_CALLS, result("sun")],
        [ASK, TWO_CALLS, result("sun"), result("noon")],
        [ASK, TWO_CALLS, result("sun"), result("noon"), ANSWER],
        [SYSTEM, ASK, TWO_CALLS, result("sun"), result("noon"), ANSWER, THANK],
    ],
)
@pytest.mark.parametrize("prompt", [False, True])
def test_renders_what_v3s_published_template_renders(
    ours: Tokenizer, published: Callable[[str], Tokenizer], messages: list, prompt: bool
):
    v3 = published("deepseek_v3")
    theirs = v3.render(messages, add_generation_prompt=prompt)
    assert ours.render(messages, add_generation_prompt=prompt) == theirs


def test_departs_from_v3s_published_template_only_where_that_is_malformed(
    ours: Tokenizer, published: Callable[[str], Tokenizer]
):
    v3 = published("deepseek_v3")
    # One call: V3's closes the group only after a second one. R1's closes it, and so do we.
    one = [ASK, calling(call("weather"))]
    assert ours.render(one) == v3.render(one) + f"<｜tool▁calls▁end｜>{EOS}"
    # A second round: V3's never opens another group of calls.
    rounds = [ASK, TWO_CALLS, result("sun"), result("noon"), ANSWER, THANK, TWO_CALLS]
    assert v3.render(rounds).count("<｜tool▁calls▁begin｜>") == 1
    assert ours.render(rounds).count("<｜tool▁calls▁begin｜>") == 2
    # Text beside calls: V3's drops the calls. R1's keeps both, and so do we.
    both = [ASK, calling(call("weather"), content="Let me look.")]
    assert "weather" not in v3.render(both)
    assert f"Let me look.<｜tool▁calls▁begin｜>{WEATHER}" in ours.render(both)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        (["hi"], "messages[0]"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([ASK, {"content": "x"}], "messages[1].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content"),
        ([{"role": "assistant", "content": None}], "messages[0].content"),
        ([{**ANSWER, "reasoning_content": 1}], "messages[0].reasoning_content"),
        ([{**ANSWER, "tool_calls": {"a": 1}}], "messages[0].tool_calls"),
        ([calling({"function": {"name": "f"}})], "messages[0].tool_calls[0]"),
        ([calling({**call("f"), "type": "code"})], "messages[0].tool_calls[0].type"),
    ],
)
def test_messages_that_are_malformed_are_named(ours: Tokenizer, messages: list, param: str):
    for encode in (ours.render, ours.encode_messages, ours.encode_conversation):
        with pytest.raises(RequestError) as caught:
            encode(messages)
        assert (caught.value.code, caught.value.param) == ("invalid_messages", param)


def test_tools_that_are_malformed_are_named(ours: Tokenizer):
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"properties": [deep]}
    for tools in (["weather"], [call("f"), deep]):
        for encode in (ours.render, ours.encode_messages):
            with pytest.raises(RequestError) as caught:
                encode([ASK], tools=tools)
            assert caught.value.param == f"tools[{len(tools) - 1}]"


def test_options_a_template_does_not_read_are_refused(published: Callable[[str], Tokenizer]):
    v3 = published("deepseek_v3")
    for options in ({"tools": [call("f")]}, {"thinking": True}):
        with pytest.raises(RequestError, match="does not read it") as caught:
            v3.render([ASK], **options)
        assert caught.value.param == next(iter(options))


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no') }}",
        "{{ range(1000000000) | list }}",
        "{{ messages[0]['content'] + none }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(ours: Tokenizer, tmp_path, template: str):
    ours.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(RequestError, match="cannot render these messages"):
        Tokenizer.load(tmp_path).render([ASK])
