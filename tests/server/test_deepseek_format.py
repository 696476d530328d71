"""DeepSeek's format: its switches, its statuses, its extras."""

import json

import openai
import pytest

from tests.server.conftest import MODEL, Running, ServerFactory

ANSWERS = {
    "think": "<think>\nSix sevens.\n</think>\n\nIt is 42.",
    "tell me": "The whale swims in the wide ocean.",
    "def add": "    return a",
    "json": '{"city": "Paris"}',
}


@pytest.fixture(scope="module")
def server(start_server: ServerFactory) -> Running:
    return start_server(ANSWERS)


def chat(server: Running, path: str = "/chat/completions", **fields: object):
    body = {"model": MODEL, "messages": [{"role": "user", "content": "think"}]} | fields
    with server.http as http:
        return http.post(path, json=body)


def test_thinking_is_on_unless_switched_off(server: Running) -> None:
    on = chat(server).json()["choices"][0]["message"]
    assert (on["reasoning_content"], on["content"]) == ("Six sevens.", "It is 42.")
    off = chat(server, thinking={"type": "disabled"}, messages=[{"role": "user", "content": "Hi"}])
    assert "reasoning_content" not in off.json()["choices"][0]["message"]


def test_usage_names_cache_hits_and_misses(server: Running) -> None:
    question = [{"role": "user", "content": "think about the whale in the ocean " * 4}]
    chat(server, messages=question)
    usage = chat(server, messages=question).json()["usage"]
    hit, miss = usage["prompt_cache_hit_tokens"], usage["prompt_cache_miss_tokens"]
    assert hit > 0 and hit + miss == usage["prompt_tokens"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] > 0


def test_user_ids_do_not_share_the_cache(server: Running) -> None:
    question = [{"role": "user", "content": "think of a very long question about whales " * 4}]
    chat(server, messages=question, user_id="a")
    usage = chat(server, messages=question, user_id="b").json()["usage"]
    assert usage["prompt_cache_hit_tokens"] == 0


def test_an_answer_is_continued_from_its_prefix(server: Running) -> None:
    messages = [
        {"role": "user", "content": "tell me"},
        {"role": "assistant", "content": "The whale", "prefix": True},
    ]
    answer = chat(
        server, "/beta/chat/completions", messages=messages, thinking={"type": "disabled"}
    )
    assert answer.json()["choices"][0]["message"]["content"] == " swims in the wide ocean."


def test_a_gap_is_filled(server: Running) -> None:
    with openai.OpenAI(base_url=f"{server.url}/beta", api_key="any", max_retries=0) as client:
        answer = client.completions.create(
            model=MODEL, prompt="def add(a, b):\n", suffix=" + b\n", max_tokens=20
        )
    assert answer.choices[0].text == "    return a"


def test_json_is_json(server: Running) -> None:
    answer = chat(
        server,
        messages=[{"role": "user", "content": "json please"}],
        response_format={"type": "json_object"},
        thinking={"type": "disabled"},
    )
    assert json.loads(answer.json()["choices"][0]["message"]["content"]) == {"city": "Paris"}


def test_a_stream_ends_with_usage_on_the_finish_chunk(server: Running) -> None:
    lines = [line for line in chat(server, stream=True).text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert events[0]["choices"][0]["delta"]["reasoning_content"] == ""
    last = events[-1]
    assert last["choices"][0]["finish_reason"] == "stop" and last["usage"]["total_tokens"] > 0


def test_settings_without_effect_are_named(server: Running) -> None:
    answer = chat(server, temperature=1.5, frequency_penalty=1, presence_penalty=1)
    named = answer.headers["x-rorqual-ignored"]
    assert named == "frequency_penalty, presence_penalty, temperature"


def test_wrong_parameters_are_422_and_wrong_bodies_400(server: Running) -> None:
    assert chat(server, temperature=3).status_code == 422
    assert chat(server, messages=[{"role": "wizard", "content": "x"}]).status_code == 400
    assert chat(server, model="minnow").status_code == 400
    with server.http as http:
        broken = http.post("/chat/completions", content=b'{"model": NaN}')
    assert broken.status_code == 400 and broken.json()["error"]["code"] == "invalid_json"


def test_a_forced_call_while_thinking_is_refused(server: Running) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    answer = chat(server, tools=[tool], tool_choice="required", thinking={"type": "enabled"})
    assert answer.status_code == 422 and answer.json()["error"]["param"] == "tool_choice"


def test_a_strict_tool_must_be_complete(server: Running) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": []}
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": schema}}
    answer = chat(server, tools=[tool])
    assert answer.status_code == 422 and "required" in answer.json()["error"]["message"]


def test_balance_is_there_without_money(server: Running) -> None:
    with server.http as http:
        assert http.get("/user/balance").json() == {"is_available": True, "balance_infos": []}


def test_text_and_ids_turn_into_each_other(server: Running) -> None:
    with server.http as http:
        made = http.post("/tokenize", json={"prompt": "The whale"}).json()
        back = http.post("/detokenize", json={"tokens": made["tokens"][1:]}).json()
        wrong = http.post("/detokenize", json={"tokens": [10**9]})
    assert back["prompt"] == "The whale" and made["count"] == len(made["tokens"])
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "tokens"
