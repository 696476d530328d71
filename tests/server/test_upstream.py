"""An upstream with OpenAI's API: passed on, health-checked, tried again only before a token."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from rorqual.config.http import ServedModel, WatchConfig
from rorqual.server.backends import UpstreamBackend
from tests.server.conftest import MODEL, PRICES, Running, ServerFactory

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 30}


class Stub:
    """A server that says what `script` holds: a status, or pieces of a stream."""

    def __init__(self) -> None:
        self.script: list[int | list[object]] = []
        self.bodies: list[dict] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self._json(200, {"data": []})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.bodies.append(json.loads(body))
                step = outer.script.pop(0) if outer.script else [TEXT]
                if isinstance(step, int):
                    self._json(step, {"error": {"message": "no"}})
                    return
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                for event in step:
                    if event is None:  # the connection breaks
                        return
                    for line in event if isinstance(event, list) else [event]:
                        self.wfile.write(f"data: {json.dumps(line)}\n\n".encode())
                        self.wfile.flush()
                self.wfile.write(b"data: [DONE]\n\n")

            def _json(self, status: int, value: object) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def chunk(delta: dict, finish: str | None = None) -> dict:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


TEXT = [
    chunk({"role": "assistant", "reasoning_content": "Hm."}),
    chunk({"content": "It is"}),
    chunk({"content": " 42."}),
    chunk({}, "stop"),
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 7,
                              "prompt_tokens_details": {"cached_tokens": 4},
                              "completion_tokens_details": {"reasoning_tokens": 2}}},
]  # fmt: skip
CALL = [
    chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f",
                                                                  "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]}),
    chunk({}, "tool_calls"),
]  # fmt: skip

TWO_AT_ONCE = [
    chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f"}},
                          {"index": 1, "id": "call_2", "function": {"name": "f"}}]}),
    chunk({"tool_calls": [{"index": 1, "function": {"arguments": '{"b":'}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}},
                          {"index": 1, "function": {"arguments": " 2}"}}]}),
    chunk({}, "tool_calls"),
]  # fmt: skip


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    one = Stub()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def server(start_server: ServerFactory, stub: Stub) -> Running:
    model = ServedModel(name=MODEL, upstream=stub.url, upstream_model="theirs", context_tokens=500)
    backend = UpstreamBackend(model, WatchConfig(health_seconds=0.2))
    one = start_server(backends={MODEL: backend}, mode="platform", prices=PRICES)
    until = time.monotonic() + 20
    while backend.stats().state != "ready" and time.monotonic() < until:
        time.sleep(0.05)
    return one


@pytest.fixture(scope="module")
def key(server: Running) -> str:
    user = server.platform.accounts.create("upstream", None)
    server.platform.ledger.top_up(user.id, 10**12, "upstream")
    return server.platform.keys.create(user.id, "k").secret


def ask(server: Running, key: str, path: str = "/v1/chat/completions", **fields: object):
    with server.http as http:
        return http.post(path, json=ASK | fields, headers={"x-api-key": key})


def failure_of(answer: httpx.Response) -> str:
    """What a request that failed on our side, or the upstream's, is told."""
    assert answer.status_code == 500, answer.text
    return answer.json()["error"]["message"]


def respond(server: Running, key: str, **fields: object):
    body = {"model": MODEL, "input": "Hi", "max_output_tokens": 30} | fields
    with server.http as http:
        return http.post("/v1/responses", json=body, headers={"x-api-key": key})


def test_an_answer_passes_through_with_its_usage(server: Running, stub: Stub, key: str) -> None:
    answer = ask(server, key, temperature=0.5, seed=3).json()
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "It is 42.")
    usage = answer["usage"]
    assert (usage["prompt_cache_hit_tokens"], usage["prompt_cache_miss_tokens"]) == (4, 5)
    assert usage["completion_tokens"] == 7
    sent = stub.bodies[-1]
    assert (sent["model"], sent["temperature"], sent["seed"]) == ("theirs", 0.5, 3)
    assert sent["max_tokens"] == 30 and sent["stream"]
    assert server.platform.usage.audit() == []


def test_tool_calls_pass_through_every_format(server: Running, stub: Stub, key: str) -> None:
    stub.script = [[CALL], [CALL], [CALL], [TWO_AT_ONCE]]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    answer = ask(server, key, tools=[tool]).json()["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    message = ask(server, key, "/anthropic/v1/messages", tools=tools).json()
    assert message["content"][0]["input"] == {"a": 1} and message["stop_reason"] == "tool_use"
    flat = [{"type": "function", **tool["function"]}]
    response = respond(server, key, tools=flat).json()
    assert response["output"][0]["arguments"] == '{"a": 1}' and response["status"] == "completed"
    both = respond(server, key, tools=flat).json()["output"]
    assert [call["arguments"] for call in both] == ['{"a": 1}', '{"b": 2}']
    assert stub.bodies[-1]["tools"] == [tool]


def test_a_failed_start_is_tried_again(server: Running, stub: Stub, key: str) -> None:
    stub.script, stub.bodies = [503, [None], [TEXT]], []
    assert ask(server, key).json()["choices"][0]["message"]["content"] == "It is 42."
    assert len(stub.bodies) == 3


def test_nothing_is_tried_again_after_the_first_token(
    server: Running, stub: Stub, key: str
) -> None:
    stub.script, stub.bodies = [[TEXT[1], None]], []
    text = ask(server, key, stream=True).text
    assert "It is" in text and '"error"' in text and len(stub.bodies) == 1
    stub.script, stub.bodies = [[TEXT[1], None]], []
    events = respond(server, key, stream=True).text.strip().split("\n\n")
    assert events[0].startswith("event: response.created\n")
    assert events[-1].startswith("event: response.failed\n") and len(stub.bodies) == 1
    failed = json.loads(events[-1].partition("data: ")[2])["response"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
    assert failed["output"][0]["content"][0]["text"] == "It is"
    with server.http as http:
        kept = http.get(f"/v1/responses/{failed['id']}", headers={"x-api-key": key})
    assert kept.status_code == 404
    assert server.platform.usage.audit() == []


@pytest.mark.parametrize(
    "strange", [1, [[]], {"choices": [3]}, {"choices": [{"index": 0, "delta": "no"}]}]
)
def test_an_event_of_another_form_is_an_error_at_once(
    server: Running, stub: Stub, key: str, strange: object
) -> None:
    stub.script = [[TEXT[1], strange, TEXT[2]]]
    assert "the upstream failed" in failure_of(ask(server, key))
    assert server.platform.admission.stats().num_running == 0


def test_a_choice_that_never_ends_is_an_error_at_once(
    server: Running, stub: Stub, key: str
) -> None:
    stub.script = [[TEXT[1], TEXT[3], None]]  # the first of two has ended when it breaks off
    assert "in the middle" in failure_of(ask(server, key, n=2))
    stub.script = [[TEXT[1], TEXT[3]]]  # and where the upstream says that it was whole
    assert "finish_reason" in failure_of(ask(server, key, n=2))
    assert server.platform.admission.stats().num_running == 0


@pytest.mark.parametrize(("status", "ours"), [(400, 400), (401, 500), (429, 503), (500, 500)])
def test_refusals_are_translated(
    server: Running, stub: Stub, key: str, status: int, ours: int
) -> None:
    stub.script = [status] * 3
    answer = ask(server, key)
    stub.script = []
    assert answer.status_code == ours and "error" in answer.json()


def test_its_tokenizer_is_not_ours(server: Running, key: str) -> None:
    with server.http as http:
        answer = http.post("/tokenize", json={"prompt": "x"}, headers={"x-api-key": key})
    assert answer.status_code == 400


def test_an_upstream_that_is_gone_is_refused_at_once(
    start_server: ServerFactory,
) -> None:
    gone = Stub()
    gone.stop()
    backend = UpstreamBackend(
        ServedModel(name=MODEL, upstream=gone.url), WatchConfig(health_seconds=0.1)
    )
    one = start_server(backends={MODEL: backend})
    until = time.monotonic() + 20
    while backend.stats().state != "down" and time.monotonic() < until:
        asyncio.run(asyncio.sleep(0.05))
    with one.http as http:
        answer = http.post("/v1/chat/completions", json=ASK)
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert http.get("/ready").status_code == 503
