"""What the door turns away is told as much as further inside, and its connection stays."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server.conftest import MODEL, Running, ServerFactory, new_key
from tests.server.scripted import ScriptRunner, make_tokenizer

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"model": MODEL, "messages": MESSAGES, "max_tokens": 4}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": MODEL, "prompt": "Hi", "max_tokens": 4},
    "/chat/completions": CHAT,
    "/anthropic/v1/messages": CHAT,
    "/v1/responses": {"model": MODEL, "input": "Hi", "max_output_tokens": 4},
}


class Full:
    """A server whose places are all taken by one account until `gate` is set.

    The door rests until somebody was refused, so somebody is.
    """

    def __init__(self, server: Running, gate: threading.Event, key: str) -> None:
        self.server = server
        self.gate = gate
        self.key = key

    def post(self, path: str, key: str | None = None, **fields: Any) -> httpx.Response:
        with self.server.http as http:
            return http.post(path, headers={"authorization": f"Bearer {key or self.key}"}, **fields)

    def events(self, name: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.server.lines]
        return [event for event in found if event["event"] == name]

    def wait_for_events(self, name: str, number: int) -> list[dict[str, Any]]:
        until = time.monotonic() + 20
        while len(found := self.events(name)) < number and time.monotonic() < until:
            time.sleep(0.01)
        assert len(found) == number
        return found

    def wait_for(self, number: int) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            stats = self.server.platform.admission.stats()
            if stats.num_running + stats.num_queued == number:
                return
            time.sleep(0.01)
        raise AssertionError(f"never {number} requests inside")

    def wake_the_door(self) -> None:
        before = len(self.events("request"))
        assert self.post("/v1/chat/completions", json=CHAT).status_code == 429
        self.wait_for_events("request", before + 1)


@pytest.fixture
def full(start_server: ServerFactory) -> Iterator[Full]:
    gate, tokenizer = threading.Event(), make_tokenizer()
    server = start_server(
        mode="platform",
        runner=ScriptRunner(tokenizer, {}, pause=lambda: gate.wait(20) and None),
        admission={"max_running": 1, "max_running_per_account": 1, "max_queued": 2,
                   "max_per_account": 2},
        http={"trusted_proxies": ["127.0.0.1"]},
    )  # fmt: skip
    found = Full(server, gate, new_key(server, "crowd")[1])
    path = "/v1/chat/completions"
    crowd = [threading.Thread(target=found.post, args=(path,), kwargs={"json": CHAT})
             for _ in range(2)]  # fmt: skip
    for number, thread in enumerate(crowd):
        thread.start()
        found.wait_for(number + 1)
    found.wake_the_door()
    yield found
    gate.set()
    for thread in crowd:
        thread.join()


@pytest.mark.parametrize("path", BODIES)
def test_the_door_says_what_the_inside_says(full: Full, path: str) -> None:
    body = json.dumps(BODIES[path]).encode()
    before = len(full.events("request"))
    at_door = full.post(path, content=body)
    assert len(full.events("request")) == before, "it came in"
    inside = full.post(path, content=iter([body]))  # without a length
    full.wait_for_events("request", before + 1)  # written after the answer
    assert at_door.status_code == inside.status_code == 429
    assert at_door.json() == inside.json() and "under way" in at_door.text
    assert set(at_door.headers) == set(inside.headers)
    assert re.fullmatch(r"req-[0-9a-f]{24}", at_door.headers["x-request-id"])
    same = ("content-type", "retry-after", "x-content-type-options", "content-length")
    assert [at_door.headers[name] for name in same] == [inside.headers[name] for name in same]


def test_those_who_are_turned_away_are_counted_and_logged_together(full: Full) -> None:
    for _ in range(5):
        assert full.post("/v1/chat/completions", json=CHAT).status_code == 429
    logged = full.wait_for_events("refused", 1)
    assert logged[0]["codes"] == {"concurrency_limited": 5} and logged[0]["num_accounts"] == 1
    text = full.server.services.metrics.text().decode()  # one more has woken the door
    assert 'rorqual_refused_total{code="concurrency_limited"} 6.0' in text
    assert 'route="POST /v1/chat/completions",status="429"} 6.0' in text


def test_the_door_rests_while_nobody_is_refused(
    full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = full.server.platform.admission
    asked: list[str] = []
    monkeypatch.setattr(admission, "check", lambda account, _: asked.append(account))
    monkeypatch.setattr(admission, "_refused_seconds", time.monotonic() - 60)
    before = len(full.events("request"))
    assert full.post("/v1/chat/completions", json=CHAT).status_code == 429
    full.wait_for_events("request", before + 1)
    assert not asked
    full.post("/v1/chat/completions", json=CHAT)
    assert asked, "the refusal has woken it"


def test_the_connection_goes_on_after_a_refusal(full: Full) -> None:
    """Two refusals and a page, sent at once, a body in pieces: answered in order."""
    body = json.dumps(CHAT).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {full.key}"
        f"\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    host, port = full.server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head + body + head + body[:7])
        time.sleep(0.1)
        last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(body[7:] + last)
        found = b""
        while piece := connection.recv(65536):
            found += piece
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", found)
    assert statuses == [b"429", b"429", b"200"]


def test_who_is_unknown_or_has_room_comes_in(full: Full) -> None:
    assert full.post("/v1/chat/completions", "sk-nobody", json=CHAT).status_code == 401
    with full.server.http as http:
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 401
    other = new_key(full.server, "other")[1]
    answers: list[httpx.Response] = []
    thread = threading.Thread(
        target=lambda: answers.append(full.post("/v1/chat/completions", other, json=CHAT))
    )
    thread.start()
    full.wait_for(3)
    late = full.post("/v1/chat/completions", new_key(full.server, "late")[1], json=CHAT)
    assert late.status_code == 503, "the queue is full"
    full.gate.set()
    thread.join()
    assert answers[0].status_code == 200


def test_behind_a_proxy_the_address_is_the_one_that_it_names(
    full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    admission = full.server.platform.admission
    check = admission.check
    monkeypatch.setattr(
        admission,
        "check",
        lambda account, address: (asked.append(address), check(account, address)),
    )
    key, name = ("authorization", f"Bearer {full.key}"), "x-forwarded-for"
    one_line, two_lines = (
        [key, (name, "10.0.0.9, 203.0.113.7")],
        [key, (name, "10.0.0.9"), (name, "203.0.113.7")],
    )
    own = [key, (name, "10.0.0.9"), (name, "127.0.0.1")]  # the last is a proxy of ours
    with full.server.http as http:
        for headers in (one_line, two_lines, own):
            assert http.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 429
    assert asked == ["203.0.113.7", "203.0.113.7", "10.0.0.9"]


def test_an_answer_under_way_is_not_overtaken(full: Full) -> None:
    """A refusal behind an answer on the same connection waits for it."""
    key, body = new_key(full.server, "patient")[1], json.dumps(CHAT).encode()

    def request(secret: str) -> bytes:
        return (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
            f"{secret}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    host, port = full.server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request(key) + request(full.key))
        full.wait_for(3)
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            assert not connection.recv(1), "the second was answered before the first"
        full.gate.set()
        connection.settimeout(20)
        found = b""
        while len(re.findall(rb"HTTP/1\.1 (\d+) ", found)) < 2:
            found += connection.recv(65536)
    assert re.findall(rb"HTTP/1\.1 (\d+) ", found)[0] == b"200"


def raw(full: Full, sent: bytes) -> bytes:
    """Everything that comes back until the server closes the connection."""
    host, port = full.server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(sent)
        found = b""
        while piece := connection.recv(65536):
            found += piece
    return found


@pytest.mark.parametrize("first", ["HTTP/1.1\r\nConnection: close", "HTTP/1.0"])
def test_who_wants_the_connection_closed_gets_it_closed(full: Full, first: str) -> None:
    body = json.dumps(CHAT)
    before = len(full.events("request"))
    found = raw(
        full,
        f"POST /v1/chat/completions?beta=true {first}\r\nHost: localhost\r\nX-Api-Key: {full.key}"
        f"\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),  # is not read any more
    )
    assert found.startswith(b"HTTP/1.1 429 ") and b"\r\nconnection: close\r\n" in found
    assert full.post("/v1/chat/completions", "sk-nobody", json=CHAT).status_code == 401
    (last,) = full.wait_for_events("request", before + 1)[before:]
    assert last["status"] == 401, "it, or what came behind it, came in"


def test_what_the_guard_refuses_is_told_that(start_server: ServerFactory) -> None:
    """In local mode a foreign name or page is told nothing about the queue."""
    gate, tokenizer = threading.Event(), make_tokenizer()
    server = start_server(
        runner=ScriptRunner(tokenizer, {}, pause=lambda: gate.wait(20) and None),
        admission={"max_per_account": 1},
    )
    full = Full(server, gate, "none")
    inside = threading.Thread(
        target=full.post, args=("/v1/chat/completions",), kwargs={"json": CHAT}
    )
    inside.start()
    full.wait_for(1)
    full.wake_the_door()
    with server.http as http:
        refused = [
            http.post("/v1/chat/completions", json=CHAT, headers=headers)
            for headers in ({}, {"host": "evil.example"}, {"origin": "http://evil.example"})
        ]
    gate.set()
    inside.join()
    assert [answer.status_code for answer in refused] == [429, 421, 403]


def test_an_answer_behind_a_refusal_outlives_the_idle_time(start_server: ServerFactory) -> None:
    gate, tokenizer = threading.Event(), make_tokenizer()
    server = start_server(
        mode="platform",
        runner=ScriptRunner(tokenizer, {}, pause=lambda: gate.wait(20) and None),
        admission={"max_per_account": 1},
        http={"idle_seconds": 1},
    )
    full = Full(server, gate, new_key(server, "crowd")[1])
    inside = threading.Thread(
        target=full.post, args=("/v1/chat/completions",), kwargs={"json": CHAT}
    )
    inside.start()
    full.wait_for(1)
    full.wake_the_door()
    body = json.dumps(CHAT)

    def request(key: str, close: str = "") -> str:
        return (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n{close}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )

    threading.Timer(2.5, gate.set).start()
    both = request(full.key) + request(new_key(server, "patient")[1], "Connection: close\r\n")
    found = raw(full, both.encode())
    inside.join()
    assert re.findall(rb"HTTP/1\.1 (\d+) ", found) == [b"429", b"200"]
