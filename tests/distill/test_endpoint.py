"""An endpoint teacher against a small server on this machine, which also fails in several ways."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rorqual.config.distill import EndpointConfig
from rorqual.distill import DistillProgress
from rorqual.distill.endpoint import Endpoint, Reply
from rorqual.errors import ConfigError, RequestError
from rorqual.interrupt import StopRequest
from rorqual.train import RunFolder
from tests.distill.conftest import opened, run_config, steps_of

Behaviour = Callable[[int, dict[str, Any]], tuple[int, Any]]


class Server(ThreadingHTTPServer):
    """Answers request number n with what `behave(n, body)` says: a status and a body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave: Behaviour = solve
        self.lock = threading.Lock()
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append((self.path, dict(self.headers.items()), body))
        status, answer = self.server.behave(number, body)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "7")
        if status == 302:
            self.send_header("Location", f"{self.server.address}/elsewhere")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


def completion(content: str, reasoning: str | None = None, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    }


def solve(number: int, body: dict[str, Any]) -> tuple[int, Any]:
    """Right, except every fourth time; thinks in an odd way of its own every second time."""
    prompt = body["messages"][0]["content"]
    start = int(re.findall(r"(?<![-+\d])\d(?!\d)", re.sub(r"0 to 9|0到9", "", prompt))[0])
    total = (start + sum(int(step) for step in re.findall(r"[-+]\d", prompt))) % 10
    if number % 4 == 3:
        return 200, completion(f"\\boxed{{{(total + 1) % 10}}}")
    return 200, completion(f"\\boxed{{{total}}}", f"so {total}" if number % 2 else None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def endpoint(server: Server, waits: list[float] | None = None, **fields: Any) -> Endpoint:
    waits = [] if waits is None else waits
    config = EndpointConfig(base_url=server.address, model="big", **fields)
    return Endpoint(config, sleep=waits.append)


def ask(teacher: Endpoint, *prompts: str) -> list[Reply]:
    return teacher.ask(prompts or ("hello",), max_tokens=9, temperature=0.5)


def test_a_request_is_openais_and_a_reply_keeps_its_reasoning(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    server.behave = lambda number, body: (200, completion(" hi ", "let me see\n"))
    (reply,) = ask(endpoint(server, api_key_variable="MY_KEY"))
    assert reply == Reply("<think>\nlet me see\n</think>\n\nhi", True, 11, 3)
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "big",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 9,
        "temperature": 0.5,
    }


def test_replies_come_in_the_order_of_the_prompts(server: Server) -> None:
    server.behave = lambda number, body: (200, completion(body["messages"][0]["content"] + "!"))
    prompts = [f"p{number}" for number in range(20)]
    found = ask(endpoint(server, parallel_requests=8), *prompts)
    assert [reply.text for reply in found] == [f"{prompt}!" for prompt in prompts]


def test_base_url_may_end_in_v1_and_no_key_is_sent_unasked(server: Server) -> None:
    config = EndpointConfig(base_url=f"{server.address}/v1/", model="big")
    server.behave = lambda number, body: (200, completion("x", finish="length"))
    (reply,) = ask(Endpoint(config))
    assert not reply.ended
    path, headers, _ = server.requests[0]
    assert path == "/v1/chat/completions" and "Authorization" not in headers


def test_overload_is_waited_out_longer_each_time(server: Server) -> None:
    statuses = {0: 503, 1: 500, 2: 429}
    server.behave = lambda number, body: (statuses.get(number, 200), completion("done"))
    waits: list[float] = []
    (reply,) = ask(endpoint(server, waits))
    assert reply.text == "done" and waits == [1.0, 2.0, 7.0]


def test_an_endpoint_that_stays_down_is_a_clear_error(server: Server) -> None:
    server.behave = lambda number, body: (503, {"error": {"message": "too many whales"}})
    with pytest.raises(RequestError) as caught:
        ask(endpoint(server, max_attempts=3))
    said = str(caught.value)
    assert "HTTP 503" in said and "too many whales" in said and "3 times" in said
    assert "--resume" in said and "\n" not in said and len(server.requests) == 3


def test_nobody_listening_is_a_clear_error(server: Server) -> None:
    free = Server()
    free.server_close()
    with pytest.raises(RequestError, match=r"no answer .*2 times"):
        ask(endpoint(free, max_attempts=2))


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_is_not_repeated(server: Server, status: int) -> None:
    server.behave = lambda number, body: (status, {"error": {"message": "no such model"}})
    with pytest.raises(RequestError, match=f"HTTP {status}.*no such model.*correct"):
        ask(endpoint(server))
    assert len(server.requests) == 1


def test_a_redirect_does_not_carry_the_key_elsewhere(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    server.behave = lambda number, body: (302, b"")
    with pytest.raises(RequestError, match="HTTP 302") as caught:
        ask(endpoint(server, api_key_variable="MY_KEY"))
    assert [path for path, _, _ in server.requests] == ["/v1/chat/completions"]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("answer", [b"<html>hello</html>", {"choices": []}, {"choices": "x"}, []])
def test_an_answer_that_is_no_completion_is_a_clear_error(server: Server, answer: Any) -> None:
    server.behave = lambda number, body: (200, answer)
    with pytest.raises(RequestError, match=r"no chat completion .*check base_url"):
        ask(endpoint(server))


def test_a_key_that_is_not_set_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY is not set"):
        endpoint(server, api_key_variable="MY_KEY")


def test_a_student_learns_from_an_endpoints_right_answers(
    server: Server, student_path: Path, tmp_path: Path
) -> None:
    sections = {"endpoint": {"base_url": server.address, "model": "big"}}
    config = run_config(
        None, student_path, sections, method="traces", trace_problems=8, max_completion_length=24
    )
    folder = RunFolder(tmp_path / "run")
    result = opened(config, folder).run(StopRequest(), DistillProgress(4, enabled=False))
    assert result.ended_by == "done" and len(server.requests) == 32
    (record,) = steps_of(folder, "traces")
    assert (record["samples"], record["right"]) == (32, 24)
    assert record["teacher_prompt_tokens"] == 32 * 11
    assert 8 <= record["kept"] <= 16  # of each problem once with and once without thinking
    assert result.summary["flops"]["total"] is None
    assert result.summary["flops"]["student_training"] > 0
    assert folder.read_config(type(config)) == config


def test_asking_goes_on_where_a_failing_endpoint_stopped_it(
    server: Server, student_path: Path, tmp_path: Path
) -> None:
    sections = {"endpoint": {"base_url": server.address, "model": "big", "max_attempts": 1}}
    config = run_config(
        None, student_path, sections, method="traces", trace_problems=8, max_completion_length=24
    )
    folder = RunFolder(tmp_path / "run")
    server.behave = lambda number, body: solve(number, body) if number < 19 else (503, {})
    with pytest.raises(RequestError, match="HTTP 503"):
        opened(config, folder).run(StopRequest(), DistillProgress(4, enabled=False))
    traces = (folder.path / "traces.jsonl").read_bytes()
    assert traces
    server.behave, before = solve, len(server.requests)
    opened(config, folder).run(StopRequest(), DistillProgress(4, enabled=False))
    assert len(server.requests) - before == 16  # two batches of eight were done
    assert (folder.path / "traces.jsonl").read_bytes().startswith(traces)
