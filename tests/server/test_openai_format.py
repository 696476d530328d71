"""OpenAI's format, driven by its own client."""

import json

import openai
import pytest

from tests.server.conftest import MODEL, Running, ServerFactory

CALL = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
    '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
ANSWERS = {
    "weather": CALL,
    "think": "<think>\nSix sevens.\n</think>\n\nIt is 42.",
    "JSON": '{"city": "Paris", "days": 3}',
    "Once": " upon a time",
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
OFF = {"thinking": {"type": "disabled"}}


@pytest.fixture(scope="module")
def server(start_server: ServerFactory) -> Running:
    return start_server(ANSWERS)


@pytest.fixture(scope="module")
def client(server: Running):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def ask(text: str) -> list:
    return [{"role": "user", "content": text}]


def test_chat_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ask("Hi"), extra_body=OFF)
    choice = answer.choices[0]
    assert choice.message.content == "The whale sings." and choice.finish_reason == "stop"
    assert answer.usage is not None and answer.usage.completion_tokens > 3
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == MODEL


def test_a_stream_is_the_same_text_and_reports_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=ask("Hi"), extra_body=OFF)
    text, usage, finish = "", None, None
    for chunk in client.chat.completions.create(
        model=MODEL,
        messages=ask("Hi"),
        stream=True,
        stream_options={"include_usage": True},
        extra_body=OFF,
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert text == whole.choices[0].message.content and finish == "stop"
    assert usage is not None and whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_thinking_comes_apart_from_the_answer(client: openai.OpenAI) -> None:
    message = client.chat.completions.create(model=MODEL, messages=ask("think: 6*7")).choices[0]
    assert message.message.content == "It is 42."
    assert message.message.reasoning_content == "Six sevens."  # type: ignore[attr-defined]
    reasoning, content = "", ""
    usage = None
    for chunk in client.chat.completions.create(
        model=MODEL, messages=ask("think: 6*7"), stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            content += choice.delta.content or ""
    assert (reasoning, content) == ("Six sevens.", "It is 42.")
    assert usage is not None and usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens


def test_tool_calls_stream_as_they_are_whole(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model=MODEL, messages=ask("weather?"), tools=[TOOL], extra_body=OFF
    ).choices[0]
    assert whole.finish_reason == "tool_calls" and whole.message.tool_calls
    call = whole.message.tool_calls[0].function
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    name, arguments = "", ""
    for chunk in client.chat.completions.create(
        model=MODEL, messages=ask("weather?"), tools=[TOOL], stream=True, extra_body=OFF
    ):
        for delta in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            assert delta.function is not None
            name += delta.function.name or ""
            arguments += delta.function.arguments or ""
    assert (name, arguments) == (call.name, call.arguments)


def test_a_tool_result_goes_back_in(client: openai.OpenAI) -> None:
    messages = [
        *ask("weather?"),
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function",
             "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]  # fmt: skip
    answer = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[TOOL], extra_body=OFF
    )
    assert answer.choices[0].finish_reason in ("stop", "tool_calls")


def test_a_named_tool_is_called_with_valid_arguments(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(
        model=MODEL,
        messages=ask("JSON please"),
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        max_tokens=200,
    ).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls
    assert set(json.loads(choice.message.tool_calls[0].function.arguments)) == {"city"}


def test_a_strict_function_gets_what_its_schema_says(client: openai.OpenAI) -> None:
    strict = {**TOOL["function"], "strict": True}
    # The script would write {"city": "Paris"}; the schema knows only one other city.
    strict["parameters"] = {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    fields = {"model": MODEL, "messages": ask("weather?"), "extra_body": OFF,
              "tools": [{"type": "function", "function": strict}]}  # fmt: skip
    answer = client.chat.completions.create(**fields)  # type: ignore[call-overload]
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and len(choice.message.tool_calls) == 1
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
    arguments, usage = "", None
    for chunk in client.chat.completions.create(  # type: ignore[call-overload]
        **fields, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for delta in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            arguments += delta.function.arguments or ""
    assert json.loads(arguments) == {"city": "Oslo"}
    assert usage.completion_tokens == answer.usage.completion_tokens


def test_a_json_schema_is_kept_to(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer",
                                                                             "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }  # fmt: skip
    answer = client.chat.completions.create(
        model=MODEL,
        messages=ask("JSON please"),
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        extra_body=OFF,
    )
    assert json.loads(answer.choices[0].message.content or "") == {"city": "Paris", "days": 3}


def test_logprobs_name_the_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=ask("Hi"), logprobs=True, top_logprobs=2, extra_body=OFF
    ).choices[0]
    assert answer.logprobs is not None and answer.logprobs.content is not None
    entries = answer.logprobs.content
    text = b"".join(bytes(entry.bytes or []) for entry in entries).decode()
    assert text.startswith("The whale sings.")
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in entries)


def test_several_answers_have_their_own_index(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ask("Hi"), n=3, extra_body=OFF)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 1
    single = client.chat.completions.create(model=MODEL, messages=ask("Hi"), extra_body=OFF)
    assert answer.usage is not None and single.usage is not None
    assert answer.usage.prompt_tokens == single.usage.prompt_tokens
    assert answer.usage.completion_tokens == 3 * single.usage.completion_tokens


def test_length_and_stop_end_an_answer(client: openai.OpenAI) -> None:
    short = client.chat.completions.create(
        model=MODEL, messages=ask("Hi"), max_tokens=2, extra_body=OFF
    ).choices[0]
    assert short.finish_reason == "length"
    stopped = client.chat.completions.create(
        model=MODEL, messages=ask("Hi"), stop=" sings", extra_body=OFF
    ).choices[0]
    assert stopped.message.content == "The whale" and stopped.finish_reason == "stop"


def test_completions_echo_with_logprobs(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="The ocean", echo=True, logprobs=1, max_tokens=0
    ).choices[0]
    assert answer.text == "The ocean" and answer.logprobs is not None
    tokens, values = answer.logprobs.tokens, answer.logprobs.token_logprobs
    assert tokens is not None and values is not None
    assert values[0] is None and all(value < 0 for value in values[1:] if value is not None)
    assert "".join(tokens).endswith("The ocean")


def test_completions_take_several_prompts_and_ids(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=["Hi", "Ho"], n=2, max_tokens=4)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    by_ids = client.completions.create(model=MODEL, prompt=[0, 40, 41], max_tokens=4)
    assert by_ids.usage is not None and by_ids.usage.prompt_tokens == 3


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("minnow")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"n": 100}, "n"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"best_of": 2}, "best_of"),
        ({"whatever": 1}, "whatever"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_object"}}, "messages"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"chat_template_kwargs": {"evil": 1}}, "chat_template_kwargs.evil"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop_token_ids": [10**9]}, "stop_token_ids"),
    ],
)
def test_a_wrong_field_is_named(client: openai.OpenAI, fields: dict, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=MODEL, messages=ask("Hi"), extra_body=fields)
    assert raised.value.param == param


def test_an_unknown_model_is_404_and_a_long_prompt_400(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="minnow", messages=ask("Hi"))
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(model=MODEL, messages=ask("whale " * 2000))
    assert too_long.value.code == "context_length_exceeded"


def test_fields_without_effect_are_named(server: Running) -> None:
    with server.http as http:
        answer = http.post(
            "/v1/chat/completions",
            json={"messages": ask("Hi"), "store": True, "metadata": {"a": "b"}, "max_tokens": 2},
        )
    assert answer.status_code == 200
    assert answer.headers["x-rorqual-ignored"] == "metadata, store"


def test_an_alias_is_the_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="alias", messages=ask("Hi"), max_tokens=2)
    assert answer.model == MODEL
