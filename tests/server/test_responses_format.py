"""OpenAI's /v1/responses, driven by its own client."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pydantic
import pytest
from openai.types.responses import Response
from sqlalchemy import func, select

from rorqual.platform import Busy
from rorqual.platform.tables import responses
from rorqual.tokenizer import Tokenizer
from tests.server.conftest import MODEL, Running, ServerFactory, scripted_backend
from tests.server.scripted import ScriptRunner
from tests.server.test_openai_format import CALL

SECOND = (
    "\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
    '```json\n{"city": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
ANSWERS = {
    "and then": "Yes, I remember.",
    "sunny": "It is sunny.",
    "both": "Let me see." + CALL.removesuffix("<｜tool▁calls▁end｜>") + SECOND,
    "weather": CALL,
    "think": "<think>\nSix sevens.\n</think>\n\nIt is 42.",
    "JSON": '{"city": "Paris", "days": 3}',
}
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
OFF: dict[str, Any] = {"reasoning": {"effort": "none"}}
UNIT = 10**9


@pytest.fixture(scope="module")
def server(start_server: ServerFactory) -> Running:
    return start_server(ANSWERS)


@pytest.fixture(scope="module")
def client(server: Running):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def create(client: openai.OpenAI, given: Any, **fields: Any) -> Response:
    """An answer, whole."""
    return client.responses.create(**({"model": MODEL, "input": given} | OFF | fields))


def events_of(client: openai.OpenAI, given: Any, **fields: Any) -> list[Any]:
    """The same answer's events."""
    body = {"model": MODEL, "input": given, "stream": True} | OFF | fields
    return list(client.responses.create(**body))


def comparable(response: Response) -> dict[str, Any]:
    """A response without what differs between two that are alike: ids, times, cache hits."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {"id", "call_id", "created_at", "completed_at", "cached_tokens"}
            return {name: plain(inner) for name, inner in value.items() if name not in kept}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    return plain(response.model_dump())


def test_text_is_answered(client: openai.OpenAI) -> None:
    answer = create(client, "Hi", instructions="Be brief.", metadata={"a": "b"})
    assert answer.output_text == "The whale sings." and answer.status == "completed"
    (message,) = answer.output
    assert message.type == "message" and message.status == "completed"
    assert (answer.model, answer.metadata, answer.instructions) == (MODEL, {"a": "b"}, "Be brief.")
    assert answer.id.startswith("resp_") and answer.completed_at and not answer.error
    usage = answer.usage
    assert usage is not None and usage.output_tokens > 3
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_a_whole_answer_has_every_field_of_the_published_object(server: Running) -> None:
    with server.http as http:
        body = {"model": MODEL, "input": "think: 6*7", "tools": [TOOL]}
        raw = http.post("/v1/responses", json=body).json()
    Response.model_validate(raw, strict=True)
    required = {name for name, field in Response.model_fields.items() if field.is_required()}
    assert required <= set(raw)


CASES: dict[str, dict[str, Any]] = {
    "text": {"input": "Hi"},
    "thinking": {"input": "think: 6*7", "reasoning": {"effort": "high"}},
    "call": {"input": "weather?", "tools": [TOOL]},
    "calls": {"input": "both?", "tools": [TOOL]},
    "cut": {"input": "Hi", "max_output_tokens": 2},
    "cut thinking": {"input": "think: 6*7", "reasoning": None, "max_output_tokens": 2},
    "cut call": {"input": "weather?", "tools": [TOOL], "max_output_tokens": 30},
    "form": {"input": "JSON", "text": {"format": {"type": "json_object"}}},
    "logprobs": {"input": "Hi", "include": ["message.output_text.logprobs"], "top_logprobs": 2},
}


@pytest.mark.parametrize("name", CASES)
def test_a_stream_ends_with_the_whole_answer(client: openai.OpenAI, name: str) -> None:
    whole = create(client, **{"given": CASES[name]["input"]} | without_input(CASES[name]))
    events = events_of(client, **{"given": CASES[name]["input"]} | without_input(CASES[name]))
    last = events[-1]
    assert last.type == f"response.{whole.status}"
    assert comparable(last.response) == comparable(whole)


def without_input(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "input"}


@pytest.mark.parametrize("name", CASES)
def test_events_are_numbered_and_put_the_answer_together(client: openai.OpenAI, name: str) -> None:
    fields = CASES[name]
    events = events_of(client, fields["input"], **without_input(fields))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    final = events[-1].response
    for index, item in enumerate(final.output):
        about = [event for event in events if getattr(event, "output_index", None) == index]
        kinds = [event.type.removeprefix("response.") for event in about]
        assert (kinds[0], kinds[-1]) == ("output_item.added", "output_item.done")
        assert about[0].item.status == "in_progress" and about[-1].item == item
        assert {event.item_id for event in about[1:-1]} == {item.id}
        kind = "function_call_arguments" if item.type == "function_call" else (
            "reasoning_text" if item.type == "reasoning" else "output_text"
        )  # fmt: skip
        text = item.arguments if item.type == "function_call" else item.content[0].text
        deltas = [event.delta for event in about if event.type == f"response.{kind}.delta"]
        assert "".join(deltas) == text
        done = next(event for event in about if event.type == f"response.{kind}.done")
        assert (done.arguments if item.type == "function_call" else done.text) == text
        inner = [kind for kind in kinds if not kind.endswith(".delta")][1:-1]
        if item.type == "function_call":
            assert inner == ["function_call_arguments.done"]
        else:
            assert inner == ["content_part.added", f"{kind}.done", "content_part.done"]


def test_the_clients_own_stream_reads_it(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="both?", tools=[TOOL], **OFF) as stream:
        final = stream.get_final_response()
    assert final.output_text == "Let me see."
    assert [item.type for item in final.output] == ["message", "function_call", "function_call"]


def test_thinking_is_an_item_of_its_own(client: openai.OpenAI) -> None:
    answer = create(client, "think: 6*7", reasoning={"effort": "high"})
    thinking, message = answer.output
    assert thinking.type == "reasoning" and thinking.content and thinking.summary == []
    assert thinking.content[0].text == "Six sevens." and answer.output_text == "It is 42."
    assert message.type == "message" and answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens > 0


def test_a_long_answer_is_incomplete_and_says_why(client: openai.OpenAI) -> None:
    answer = create(client, "Hi", max_output_tokens=2)
    assert answer.status == "incomplete" and answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    (message,) = answer.output
    assert message.type == "message" and message.status == "incomplete"
    assert client.responses.retrieve(answer.id).status == "incomplete"


def test_a_tools_result_goes_back_in_as_items(client: openai.OpenAI) -> None:
    first = create(client, "weather?", tools=[TOOL])
    (call,) = first.output
    assert call.type == "function_call" and json.loads(call.arguments) == {"city": "Paris"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    items: list[Any] = [{"role": "user", "content": "weather?"}, call.model_dump(), result]
    assert create(client, items, tools=[TOOL], store=False).output_text == "It is sunny."
    follows = create(client, [result], tools=[TOOL], previous_response_id=first.id)
    assert follows.output_text == "It is sunny." and follows.previous_response_id == first.id


def test_a_history_is_read_as_if_it_had_been_sent(client: openai.OpenAI, server: Running) -> None:
    first = create(client, "think: 6*7", reasoning={"effort": "high"}, instructions="Forget me.")
    second = create(client, "tell me more", previous_response_id=first.id)
    third = create(client, "and then?", previous_response_id=second.id)
    sent: list[Any] = [{"role": "user", "content": "think: 6*7"},
                       *[item.model_dump() for item in first.output],
                       {"role": "user", "content": "tell me more"},
                       *[item.model_dump() for item in second.output],
                       {"role": "user", "content": [{"type": "input_text", "text": "and then?"}]},
                       ]  # fmt: skip
    again = create(client, sent, store=False)
    assert third.output_text == again.output_text == "Yes, I remember."
    assert third.usage is not None and again.usage is not None
    assert third.usage.input_tokens == again.usage.input_tokens
    # The same conversation in chat completions is the same prompt.
    chat = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "think: 6*7"},
                  {"role": "assistant", "content": "It is 42.", "reasoning_content": "Six sevens."},
                  {"role": "user", "content": "tell me more"},
                  {"role": "assistant", "content": second.output_text},
                  {"role": "user", "content": "and then?"}],  # type: ignore[list-item]
        reasoning_effort="none",
    )  # fmt: skip
    assert chat.usage is not None and chat.usage.prompt_tokens == again.usage.input_tokens


def test_an_item_is_sent_by_its_id(client: openai.OpenAI) -> None:
    first = create(client, "weather?", tools=[TOOL])
    (call,) = first.output
    assert call.type == "function_call"
    items: list[Any] = [
        {"role": "user", "content": "weather?"},
        {"type": "item_reference", "id": call.id},
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    second = create(client, items, tools=[TOOL])
    assert second.output_text == "It is sunny."
    listed = client.responses.input_items.list(second.id, order="asc").data
    assert listed[1].model_dump(exclude_none=True) == call.model_dump(exclude_none=True)
    items[1]["id"] = call.id[:-1] + "7"
    with pytest.raises(openai.BadRequestError) as raised:
        create(client, items, tools=[TOOL])
    assert raised.value.param == "input[1].id"


def test_a_response_is_kept_as_it_was_answered(client: openai.OpenAI) -> None:
    answer = create(client, "both?", tools=[TOOL])
    assert client.responses.retrieve(answer.id) == answer
    streamed = events_of(client, "both?", tools=[TOOL])[-1].response
    assert client.responses.retrieve(streamed.id) == streamed


def test_what_was_sent_is_listed_in_pages(client: openai.OpenAI) -> None:
    words = [f"word {number}" for number in range(5)]
    answer = create(client, [{"role": "user", "content": word} for word in words])
    page = client.responses.input_items.list(answer.id, limit=2, order="asc")
    assert page.has_more and len(page.data) == 2
    shown = [item.content[0].text for item in page]  # type: ignore[union-attr]
    assert shown == words  # the client turns the pages
    newest = client.responses.input_items.list(answer.id, limit=1).data[0]
    assert newest.content[0].text == "word 4"  # type: ignore[union-attr]


def test_a_deleted_response_is_gone_from_what_follows_it(client: openai.OpenAI) -> None:
    first = create(client, "Hi")
    second = create(client, "more", previous_response_id=first.id)
    client.responses.delete(first.id)
    for reach in (
        lambda: client.responses.retrieve(first.id),
        lambda: client.responses.delete(first.id),
        lambda: client.responses.input_items.list(first.id),
        lambda: create(client, "more", previous_response_id=first.id),
        lambda: create(client, "more", previous_response_id=second.id),
    ):
        with pytest.raises(openai.NotFoundError) as raised:
            reach()
        assert first.id in str(raised.value)
    assert client.responses.retrieve(second.id).output_text == second.output_text


def test_what_is_not_to_be_stored_is_not(client: openai.OpenAI, server: Running) -> None:
    count = select(func.count()).select_from(responses)
    before = server.platform.database.read(lambda c: c.execute(count).scalar_one())
    answer = create(client, "Hi", store=False)
    events_of(client, "Hi", store=False)
    assert server.platform.database.read(lambda c: c.execute(count).scalar_one()) == before
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_only_what_runs_can_be_cancelled(client: openai.OpenAI) -> None:
    answer = create(client, "Hi")
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.cancel(answer.id)
    assert raised.value.code == "response_ended"


def test_a_named_function_is_called(client: openai.OpenAI) -> None:
    (call,) = create(
        client, "JSON please", tools=[TOOL], tool_choice={"type": "function", "name": TOOL["name"]},
        reasoning=None, max_output_tokens=200,
    ).output  # fmt: skip
    assert call.type == "function_call" and set(json.loads(call.arguments)) == {"city"}


def test_a_strict_function_gets_what_its_schema_says(client: openai.OpenAI) -> None:
    parameters = TOOL["parameters"] | {"properties": {"city": {"enum": ["Oslo"]}}}
    strict = {**TOOL, "strict": True, "parameters": parameters}
    fields: dict[str, Any] = {"tools": [strict], "parallel_tool_calls": False}
    (call,) = create(client, "weather?", **fields).output
    assert call.type == "function_call" and json.loads(call.arguments) == {"city": "Oslo"}
    streamed = events_of(client, "weather?", **fields)[-1].response.output
    assert json.loads(streamed[0].arguments) == {"city": "Oslo"}


def test_one_call_is_one_call(client: openai.OpenAI) -> None:
    answer = create(client, "both?", tools=[TOOL], parallel_tool_calls=False)
    assert [item.type for item in answer.output] == ["message", "function_call"]


def test_a_json_schema_is_kept_to(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo"]}, "days": {"enum": [3]}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "trip", "schema": schema, "strict": True}
    answer = create(client, "JSON please", text={"format": form})
    # The script would write of another city.
    assert json.loads(answer.output_text) == {"city": "Oslo", "days": 3}
    assert answer.text is not None and answer.text.format is not None
    assert answer.text.format.type == "json_schema" and answer.text.format.name == "trip"


class Trip(pydantic.BaseModel):
    """What the client's own parser reads an answer as."""

    city: str
    days: int


def test_the_clients_parser_gets_its_model(client: openai.OpenAI) -> None:
    answer = client.responses.parse(model=MODEL, input="JSON please", text_format=Trip, **OFF)
    assert answer.output_parsed == Trip(city="Paris", days=3)


def test_logprobs_come_with_the_text(client: openai.OpenAI) -> None:
    fields = without_input(CASES["logprobs"])
    (message,) = create(client, "Hi", **fields).output
    assert message.type == "message" and message.content[0].type == "output_text"
    entries = message.content[0].logprobs
    assert entries and all(len(entry.top_logprobs) == 2 for entry in entries)
    text = b"".join(bytes(entry.bytes) for entry in entries).decode()
    assert text.startswith("The whale sings.")
    deltas = [event for event in events_of(client, "Hi", **fields)
              if event.type == "response.output_text.delta"]  # fmt: skip
    streamed = [entry.token for event in deltas for entry in event.logprobs]
    *shown, end = [entry.token for entry in entries]
    assert streamed == shown and end == "<｜end▁of▁sentence｜>"


def test_what_has_no_effect_is_named(server: Running) -> None:
    body = {
        "input": "Hi",
        "max_output_tokens": 2,
        "safety_identifier": "x",
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "none", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    }
    with server.http as http:
        answer = http.post("/v1/responses", json=body)
    assert answer.status_code == 200
    assert (
        answer.headers["x-rorqual-ignored"]
        == "safety_identifier, reasoning.summary, text.verbosity, include"
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOL, {"type": "file_search"}]}, "tools[1].type"),
        ({"tools": [TOOL | {"name": "no spaces"}]}, "tools[0].name"),
        ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [TOOL | {"parameters": {"a": 1}, "strict": True}]}, "tools[0].parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "nobody"}}, "tool_choice"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"messages": []}, "messages"),
        ({"whatever": 1}, "whatever"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_object"}}}, "input"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "odd"}}}},
         "text.format.schema"),
        ({"metadata": {"a": "b" * 513}}, "metadata.a"),
        ({"metadata": {"a" * 2000: "b"}}, "metadata." + "a" * 64),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": ["x"]}, "input"),
        ({"tool_choice": 7}, "tool_choice"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": "x", "odd": 1}]}, "input[0].odd"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
         "input[0].content[0].type"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": ["message"], "role": "user", "content": "x"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f", "call_id": "c"}]},
         "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "id": "rs", "summary": [],
                     "encrypted_content": "x"}]}, "input[0].encrypted_content"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"role": "user", "content": "x"}] * 2049}, "input"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(server: Running, fields: dict[str, Any], param: str) -> None:
    with server.http as http:
        answer = http.post("/v1/responses", json={"model": MODEL, "input": "Hi"} | fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_what_does_not_exist_or_fit_is_told(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        create(client, "Hi", model="minnow")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        create(client, "whale " * 2000)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "input")
    for name in ("resp_" + "0" * 24, "resp_1", "x\x00y"):
        with pytest.raises(openai.NotFoundError) as previous:
            create(client, "Hi", previous_response_id=name)
        assert previous.value.param == "previous_response_id"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")


def account(server: Running, name: str) -> tuple[str, openai.OpenAI]:
    user = server.platform.accounts.create(name, None)
    server.platform.ledger.top_up(user.id, UNIT, f"first-{name}")
    key = server.platform.keys.create(user.id, "test").secret
    return user.id, openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def town(start_server: ServerFactory, request: pytest.FixtureRequest) -> Running:
    """A server with accounts, on either database."""
    if request.param == "sqlite":
        return start_server(ANSWERS, mode="platform")
    url = request.getfixturevalue("postgres").new_schema()
    return start_server(ANSWERS, mode="platform", database={"url": url})


def test_every_token_is_billed_once_streamed_or_whole(town: Running) -> None:
    user_id, client = account(town, f"payer {town.url}")
    with client:
        first = create(client, "think: 6*7", reasoning={"effort": "high"})
        events = events_of(client, "and then?", previous_response_id=first.id)
    spent = 0
    for usage in (first.usage, events[-1].response.usage):
        cached = usage.input_tokens_details.cached_tokens
        thought = usage.output_tokens_details.reasoning_tokens
        written = usage.output_tokens - thought
        spent += cached + 10 * (usage.input_tokens - cached) + 100 * written + 200 * thought
    # Prices of the tests are per million tokens, money is in nano-units.
    balance = town.platform.ledger.balance(user_id)
    assert balance.available_nano == UNIT - spent * 1000 and balance.reserved_nano == 0
    assert town.platform.usage.audit() == []


def test_nothing_of_another_account_is_there(town: Running) -> None:
    _, owner = account(town, f"owner {town.url}")
    _, stranger = account(town, f"stranger {town.url}")
    with owner, stranger:
        mine = create(owner, "Hi")
        (item,) = mine.output
        for reach in (
            lambda: stranger.responses.retrieve(mine.id),
            lambda: stranger.responses.delete(mine.id),
            lambda: stranger.responses.cancel(mine.id),
            lambda: stranger.responses.input_items.list(mine.id),
            lambda: create(stranger, "and then?", previous_response_id=mine.id),
        ):
            with pytest.raises(openai.NotFoundError):
                reach()
        reference: list[Any] = [{"type": "item_reference", "id": item.id}]
        with pytest.raises(openai.BadRequestError):
            create(stranger, reference)
        assert owner.responses.retrieve(mine.id) == mine


class Gate:
    """Holds every step of an engine until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.num_free = 0

    def pause(self) -> None:
        if self.num_free > 0:
            self.num_free -= 1
        else:
            self.opened.wait(20)


@contextlib.contextmanager
def gated(
    start_server: ServerFactory, tokenizer: Tokenizer, *, num_free: int, **sections: Any
) -> Iterator[tuple[Running, Gate]]:
    """A server whose engine stops after some steps."""
    gate = Gate()
    gate.num_free = num_free
    runner = ScriptRunner(tokenizer, ANSWERS, pause=gate.pause)
    backend = scripted_backend(tokenizer, runner)
    server = start_server(backends={MODEL: backend}, runner=runner, mode="platform", **sections)
    try:
        yield server, gate
    finally:
        gate.opened.set()


def post(server: Running, client: openai.OpenAI, **fields: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {client.api_key}"}
    with server.http as http:
        return http.post("/v1/responses", json={"model": MODEL} | OFF | fields, headers=headers)


def test_an_answer_whose_reader_left_is_billed_and_not_kept(
    start_server: ServerFactory, tokenizer: Tokenizer
) -> None:
    with gated(start_server, tokenizer, num_free=6, metering={"flush_tokens": 1}) as (server, gate):
        user_id, client = account(server, "leaver")
        with client, server.http as http:
            body = {"model": MODEL, "input": "Hi", "stream": True} | OFF
            headers = {"authorization": f"Bearer {client.api_key}"}
            with http.stream("POST", "/v1/responses", json=body, headers=headers) as stream:
                lines = (line for line in stream.iter_lines() if line.startswith("data: "))
                name = json.loads(next(lines)[6:])["response"]["id"]
                while "output_text.delta" not in next(lines):
                    pass
            gate.opened.set()
            balance = server.settled(user_id)
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(name)
        assert balance.reserved_nano == 0 and balance.available_nano < UNIT
        assert server.platform.usage.audit() == []


def test_a_stream_that_waits_is_kept_alive_then_answered(
    start_server: ServerFactory, tokenizer: Tokenizer
) -> None:
    limits = {"max_running": 1, "max_running_per_account": 2}
    with gated(
        start_server, tokenizer, num_free=0, admission=limits, http={"keep_alive_seconds": 0.1}
    ) as (server, gate):
        _, client = account(server, "waiting")
        with client, ThreadPoolExecutor(2) as pool:
            first = pool.submit(post, server, client, input="Hi")
            while not server.platform.admission.stats().num_running:
                time.sleep(0.01)
            second = pool.submit(post, server, client, input="Hi", stream=True)
            while not server.platform.admission.num_queued:
                time.sleep(0.01)
            time.sleep(1.0)
            gate.opened.set()
            assert first.result().json()["status"] == "completed"
            text = second.result().text
    assert text.startswith(": keep-alive\n\n") and "event: response.completed\n" in text


def test_a_database_that_fails_costs_the_keeping_not_the_answer(
    client: openai.OpenAI, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise Busy("the database is locked; try again")

    monkeypatch.setattr(server.platform.responses, "save", busy)
    whole = create(client, "Hi")
    streamed = events_of(client, "Hi")[-1].response
    for answer in (whole, streamed):
        assert answer.output_text == "The whale sings." and answer.store is False
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(answer.id)
