"""Attacks by slowness: readers that take nothing, clients that die, requests that wait for others.

Rows "slow reader" and "slowloris" (its headers and bodies are in test_connections.py) of overload
and attack, and "prefix-cache side channel", whose timing is shut out by what may be found at all.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.server.conftest import MODEL, Running, ServerFactory, new_key
from tests.server.scripted import ScriptRunner, make_tokenizer

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
# Twenty alternatives a token: a stream of a megabyte.
LOUD = CHAT | {"stream": True, "n": 2, "max_tokens": 200, "ignore_eos": True, "logprobs": True,
               "top_logprobs": 20, "thinking": {"type": "disabled"}}  # fmt: skip


def wait_until(true: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it does not come to this"
        time.sleep(0.02)


@dataclass
class Held:
    """A server whose engine stops when told to."""

    server: Running
    goes_on: threading.Event
    max_steps: int | None = None
    num_steps: int = 0

    def pause(self) -> None:
        self.num_steps += 1
        if self.max_steps is not None and self.num_steps > self.max_steps:
            self.goes_on.wait(60)

    @property
    def connections(self) -> int:
        return len(self.server.server.server_state.connections)


def hold(start_server: ServerFactory, write_seconds: float) -> Held:
    runner = ScriptRunner(make_tokenizer(), {})
    http = {"write_seconds": write_seconds, "keep_alive_seconds": 0.1}
    server = start_server(runner=runner, http=http)
    (listener,) = server.server.servers[0].sockets
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # its connections inherit it
    one = Held(server, threading.Event())
    runner.pause = one.pause
    return one


@pytest.fixture
def held(start_server: ServerFactory) -> Iterator[Held]:
    one = hold(start_server, write_seconds=0.5)
    yield one
    one.goes_on.set()


def send(held: Held, data: bytes) -> socket.socket:
    """A client with room for little, that sends and then reads nothing."""
    host, port = held.server.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    connection.settimeout(20)
    connection.sendall(data)
    return connection


def request(body: dict) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}"
    return head.encode() + b"\r\nContent-Type: application/json\r\n\r\n" + data


def running(held: Held) -> int:
    return held.server.platform.admission.stats().num_running


def test_who_reads_nothing_of_a_stream_is_cut_off(held: Held) -> None:
    with send(held, request(LOUD)):
        wait_until(lambda: running(held) == 1)
        wait_until(lambda: held.connections == 0)
        wait_until(lambda: running(held) == 0)


def test_who_reads_nothing_is_cut_off_while_the_engine_stands_still(held: Held) -> None:
    held.max_steps = 40
    with send(held, request(LOUD)):
        wait_until(lambda: held.num_steps > 40)
        wait_until(lambda: held.connections == 0)
        assert not held.goes_on.is_set()


def test_who_reads_nothing_of_whole_answers_is_cut_off(held: Held) -> None:
    get = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with send(held, get * 40):
        wait_until(lambda: held.connections == 1)
        wait_until(lambda: held.connections == 0)


def test_who_reads_slowly_but_reads_is_served(start_server: ServerFactory) -> None:
    """Nothing is lost to a reader that takes a little, again and again, for longer than
    write_seconds."""
    held = hold(start_server, write_seconds=2.0)
    with send(held, request(LOUD | {"max_tokens": 30})) as connection:
        until, text = time.monotonic() + 5.0, b""
        while time.monotonic() < until:
            text += connection.recv(1024)
            time.sleep(0.1)
        while b"data: [DONE]" not in text:
            found = connection.recv(1 << 20)
            assert found, "cut off"
            text += found
    assert text.count(b'"finish_reason":"length"') == 2


def test_a_client_that_dies_frees_its_place_while_the_engine_stands_still(held: Held) -> None:
    held.max_steps = 3
    connection = send(held, request(LOUD))
    wait_until(lambda: held.num_steps > 3)
    linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()  # a reset, as from a machine that went away
    wait_until(lambda: held.connections == 0)
    wait_until(lambda: running(held) == 0)


def test_a_prefix_is_found_by_its_own_account_and_user_alone(start_server: ServerFactory) -> None:
    """What is never found in another's cache cannot be timed."""
    server = start_server(mode="platform")
    keys = [new_key(server, name, money=10**12)[1] for name in ("one", "two")]
    text = "The whale swims in the wide ocean and sings. " * 12

    def cached_tokens(key: str, **fields: object) -> int:
        body = {"model": MODEL, "prompt": text, "max_tokens": 1} | fields
        with server.http as http:
            answer = http.post("/v1/completions", json=body, headers={"x-api-key": key})
        usage = answer.json()["usage"]
        assert usage["prompt_tokens"] > 64
        return usage["prompt_cache_hit_tokens"]

    assert cached_tokens(keys[0]) == 0
    assert cached_tokens(keys[0]) >= 64  # so there is something to be found
    assert cached_tokens(keys[1]) == 0
    assert cached_tokens(keys[0], user="a customer") == 0
    assert cached_tokens(keys[0], user="another customer") == 0
    assert cached_tokens(keys[0], user="a customer") >= 64
    assert cached_tokens(keys[1], user="a customer") == 0
