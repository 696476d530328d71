"""Anthropic's format, driven by its own client."""

import anthropic
import pytest

from tests.server.conftest import MODEL, Running, ServerFactory

CALL = (
    "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
    '```json\n{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
TOOL = {
    "name": "get_weather",
    "description": "Weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
ANSWERS = {"sunny": "It is sunny.", "weather": CALL,
           "think": "<think>\nSix sevens.\n</think>\n\nIt is 42."}  # fmt: skip
THINKING = {"type": "enabled", "budget_tokens": 1024}


@pytest.fixture(scope="module")
def server(start_server: ServerFactory) -> Running:
    return start_server(ANSWERS)


@pytest.fixture(scope="module")
def client(server: Running):
    with anthropic.Anthropic(
        base_url=f"{server.url}/anthropic", api_key="any", max_retries=0
    ) as made:
        yield made


def ask(text: str) -> list:
    return [{"role": "user", "content": text}]


def test_a_message_is_answered(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model=MODEL, max_tokens=50, messages=ask("Hi"), system="Be brief."
    )
    (block,) = message.content
    assert block.type == "text" and block.text == "The whale sings."
    assert message.stop_reason == "end_turn" and message.usage.output_tokens > 3


def test_a_stream_has_the_same_blocks(client: anthropic.Anthropic) -> None:
    fields = {"model": MODEL, "max_tokens": 60, "messages": ask("think"), "thinking": THINKING}
    whole = client.messages.create(**fields)  # type: ignore[call-overload]
    with client.messages.stream(**fields) as stream:  # type: ignore[arg-type]
        streamed = stream.get_final_message()
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert whole.content[0].thinking == "Six sevens." and whole.content[1].text == "It is 42."
    shown = [block.model_dump(include={"type", "text", "thinking"}) for block in whole.content]
    again = [block.model_dump(include={"type", "text", "thinking"}) for block in streamed.content]
    assert shown == again and streamed.stop_reason == "end_turn"
    assert streamed.usage.output_tokens == whole.usage.output_tokens


def test_tools_are_called_and_their_results_read(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model=MODEL, max_tokens=80, messages=ask("weather?"), tools=[TOOL]
    ) as stream:
        message = stream.get_final_message()
    text, call = message.content
    assert text.type == "text" and text.text == "Let me see."
    assert call.type == "tool_use" and call.input == {"city": "Paris"}
    assert message.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    answer = client.messages.create(
        model=MODEL,
        max_tokens=50,
        tools=[TOOL],
        messages=[
            *ask("weather?"),
            {"role": "assistant", "content": [block.model_dump() for block in message.content]},
            {"role": "user", "content": [result]},
        ],
    )
    assert answer.content[0].text == "It is sunny."


def test_length_and_stop_sequences_are_told_apart(client: anthropic.Anthropic) -> None:
    short = client.messages.create(model=MODEL, max_tokens=2, messages=ask("Hi"))
    assert short.stop_reason == "max_tokens"
    stopped = client.messages.create(
        model=MODEL, max_tokens=50, messages=ask("Hi"), stop_sequences=[" sings"]
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " sings")


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=ask("Hi"))
    message = client.messages.create(model=MODEL, max_tokens=1, messages=ask("Hi"))
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ([{"type": "image", "source": {}}], "messages.0.content.0"),
        ([{"type": "tool_result", "content": "x"}], "tool_use_id"),
        (7, "messages.0.content"),
    ],
)
def test_what_is_not_read_is_named(
    client: anthropic.Anthropic, content: object, where: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as raised:
        client.messages.create(
            model=MODEL,
            max_tokens=5,
            messages=[{"role": "user", "content": content}],  # type: ignore[typeddict-item]
        )
    assert where in str(raised.value)


def test_errors_have_their_shape(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as raised:
        client.messages.create(model="minnow", max_tokens=5, messages=ask("Hi"))
    assert raised.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
