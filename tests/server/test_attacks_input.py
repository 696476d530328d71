"""Attacks by what a request holds: each is refused by name, quickly, and the server goes on.

Rows "one huge field", "grammar or regex bombs", "template injection" of overload and attack; of the
incidents "body cap after decompression", "pre-auth SQL in the key check" and file reads by path.
Floods of headers and bodies, and slow senders, are in test_connections.py.
"""

import gzip
import json
import socket
import zlib

import pytest

from tests.server.conftest import MODEL, Running, ServerFactory

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
TEXT = {"model": MODEL, "prompt": "Hi", "max_tokens": 4}
CLAUDE = "/anthropic/v1/messages"
RESPONSES = "/v1/responses"
ITEMS = {"model": MODEL, "input": "Hi", "max_output_tokens": 4}


@pytest.fixture(scope="module")
def server(start_server: ServerFactory) -> Running:
    return start_server(mode="platform")


@pytest.fixture(scope="module")
def key(server: Running) -> str:
    user = server.platform.accounts.create("attacker", None)
    server.platform.ledger.top_up(user.id, 10**12, "attacker")
    return server.platform.keys.create(user.id, "k").secret


def post(server: Running, key: str, path: str, body: dict):
    with server.http as http:
        return http.post(path, json=body, headers={"x-api-key": key})


def schema(inner: object) -> dict:
    described = {"name": "x", "schema": inner}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def nested(depth: int) -> dict:
    found: dict = {"type": "string"}
    for _ in range(depth):
        found = {"type": "object", "properties": {"a": found}}
    return found


def tool(name: str, parameters: dict | None = None) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": parameters or {}}}


HUGE = {
    "n": (CHAT, ASK | {"n": 2**31}),
    "n of texts": (TEXT_PATH := "/v1/completions", TEXT | {"n": 2**31}),
    "best_of": (TEXT_PATH, TEXT | {"best_of": 10**9}),
    "prompts": (TEXT_PATH, TEXT | {"prompt": ["x"] * 1000}),
    "prompts times n": (TEXT_PATH, TEXT | {"prompt": ["x"] * 65, "n": 16}),
    "top_logprobs": (CHAT, ASK | {"logprobs": True, "top_logprobs": 10**6}),
    "logprobs": (TEXT_PATH, TEXT | {"logprobs": 10**6}),
    "stops": (CHAT, ASK | {"stop": ["x" * 20] * 1000}),
    "a long stop": (CHAT, ASK | {"stop": ["x" * 100_000]}),
    "logit_bias": (CHAT, ASK | {"logit_bias": {str(i): 1.0 for i in range(20_000)}}),
    "seed": (CHAT, ASK | {"seed": 2**80}),
    "messages": (CHAT, ASK | {"messages": ASK["messages"] * 3000}),
    "a long message": (CHAT, ASK | {"messages": [{"role": "user", "content": "x" * 900_000}]}),
    "tools": (CHAT, ASK | {"tools": [tool(f"f{i}") for i in range(200)]}),
    "a tool's name": (CHAT, ASK | {"tools": [tool("x" * 500)]}),
    "user": (CHAT, ASK | {"user": "x" * 5000}),
    "model": (CHAT, ASK | {"model": "x" * 5000}),
    "a deep schema": (CHAT, ASK | schema(nested(300))),
    "a wide schema": (
        CHAT,
        ASK | schema({"type": "object", "properties": {f"p{i}": {} for i in range(5000)}}),
    ),
    "a deep tool": (CHAT, ASK | {"tools": [tool("f", nested(300))], "tool_choice": "required"}),
    "Anthropic's budget": (
        CLAUDE,
        ASK | {"thinking": {"type": "enabled", "budget_tokens": 10**30}},
    ),
    "items": (RESPONSES, ITEMS | {"input": ASK["messages"] * 3000}),
    "references": (RESPONSES, ITEMS | {"input": [{"id": f"msg_{'0' * 24}_{i}"}
                                                 for i in range(2000)]}),
    "a deep item": (RESPONSES, ITEMS | {"input": [ASK["messages"][0] | {"odd": nested(300)}]}),
    "a long item": (RESPONSES, ITEMS | {"input": "x" * 900_000}),
    "an item's id": (RESPONSES, ITEMS | {"input": [ASK["messages"][0] | {"id": "x" * 5000}]}),
    "metadata": (RESPONSES, ITEMS | {"metadata": {str(i): "x" for i in range(1000)}}),
    "a long datum": (RESPONSES, ITEMS | {"metadata": {"x": "x" * 5000}}),
    "a previous response": (RESPONSES, ITEMS | {"previous_response_id": "x" * 5000}),
    "functions": (RESPONSES, ITEMS | {"tools": [tool("f")["function"]] * 200}),
    "a deep function that is not offered": (
        RESPONSES,
        ITEMS | {"tools": [{"type": "function"} | tool("f", nested(300))["function"]],
                 "tool_choice": "none"},
    ),
    "a deep form": (
        RESPONSES,
        ITEMS | {"text": {"format": {"type": "json_schema", "name": "x",
                                     "schema": nested(300)}}},
    ),
    "a deep form that is none": (
        RESPONSES, ITEMS | {"text": {"format": {"type": "text", "schema": nested(300)}}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_field_is_refused_by_name(server: Running, key: str, name: str) -> None:
    path, body = HUGE[name]
    answer = post(server, key, path, body)
    assert 400 <= answer.status_code < 500, answer.text[:300]
    assert len(answer.text) < 2000, "a refusal repeats what it refuses"
    assert server.platform.admission.stats().num_running == 0


@pytest.mark.parametrize("path", [CHAT, TEXT_PATH, CLAUDE, RESPONSES])
def test_a_huge_length_reserves_no_more_than_the_context(
    server: Running, key: str, path: str
) -> None:
    body = (TEXT if path == TEXT_PATH else ASK) | {"max_tokens": 10**30}
    if path == RESPONSES:
        body = ITEMS | {"max_output_tokens": 10**30}
    user_id = server.platform.accounts.by_name("attacker").id
    assert post(server, key, path, body).status_code == 200
    reserved = next(e for e in server.platform.ledger.entries(user_id) if e.kind == "reserve")
    assert -reserved.amount_nano <= 512 * 200 * 1000  # 512 tokens at 200 a million


BOMBS = {
    "counted repetition": {"type": "string", "pattern": "((a{1,99}){1,99}){1,99}"},
    "counted exactly": {"type": "string", "pattern": "(((x{500}){500}){500})y"},
    "a class of all": {"type": "string", "pattern": r"(\p{L}|\p{N}){0,2000}(\w\W){999}"},
    "many items": {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
    "a long string": {"type": "string", "minLength": 10**9, "maxLength": 10**9},
    "a long pattern": {"type": "string", "pattern": "(a|b)" * 5000},
    "itself": {"$ref": "#"},
    "two that mean each other": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
                                 "$ref": "#/$defs/a"},
    "a file": {"$ref": "file:///etc/passwd"},
    "an address": {"$ref": "http://127.0.0.1:9/schema.json"},
    "all of all": {"allOf": [{"anyOf": [{"const": i + j} for i in range(40)]} for j in range(40)]},
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_grammar_bomb_costs_its_own_request_only(server: Running, key: str, name: str) -> None:
    """It is refused, or turns out to be harmless; and the next structured answer comes."""
    answer = post(server, key, CHAT, ASK | schema(BOMBS[name]))
    assert answer.status_code in (200, 400, 422), answer.text[:300]
    assert "passwd" not in answer.text or "file:" in answer.text
    after = post(server, key, CHAT, ASK | schema({"const": 7}) | {"thinking": {"type": "disabled"}})
    assert after.json()["choices"][0]["message"]["content"] == "7"


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template": "{{ cycler.__init__.__globals__.os.popen('id').read() }}"},
        {"chat_template_kwargs": {"chat_template": "{{ 7 * 7 }}"}},
        {"chat_template_kwargs": {"add_generation_prompt": False}},
        {"chat_template_kwargs": {"thinking": "{{ 7 * 7 }}"}},
        {"documents": [{"text": "{{ 7 * 7 }}"}]},
        {"guided_decoding_backend": "outlines"},
    ],
)
def test_nobody_brings_a_template_or_an_engine(server: Running, key: str, fields: dict) -> None:
    answer = post(server, key, CHAT, ASK | fields)
    assert answer.status_code == 400 and "49" not in answer.json()["error"]["message"]


def tokens_of(server: Running, key: str, content: str) -> list[int]:
    body = {"messages": [{"role": "user", "content": content}]}
    return post(server, key, "/tokenize", body).json()["tokens"]


@pytest.mark.parametrize(
    "text", ["{{ 7 * 7 }}", "{% raw %}", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<think>"]
)
def test_what_a_user_writes_stays_text(server: Running, key: str, text: str) -> None:
    """No template runs over it, and it makes no marker: the markers are those of plain words."""
    tokenizer = server.runner._tokenizer  # type: ignore[union-attr]
    special = set(tokenizer.special_tokens.values())
    plain, written = tokens_of(server, key, "plain"), tokens_of(server, key, f"plain{text}")
    assert [i for i in written if i in special] == [i for i in plain if i in special]
    assert text in tokenizer.decode(written) and "49" not in tokenizer.decode(written)


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_json_that_is_deep_or_odd_is_refused(server: Running, key: str, depth: int) -> None:
    bodies = [
        b'{"messages":' + b"[" * depth + b"]" * depth + b"}",
        b'{"a":' * depth + b"1" + b"}" * depth,
        b'{"temperature": ' + b"9" * depth + b"}",
        b'{"temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b"\xff\xfe{}",
        b"[]",
        b"",
    ]
    with server.http as http:
        for body in bodies:
            answer = http.post(CHAT, content=body, headers={"x-api-key": key})
            assert answer.status_code == 400, body[:40]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x"])
def test_a_compressed_bomb_is_not_unpacked(server: Running, key: str, encoding: str) -> None:
    zeros = json.dumps(ASK | {"user": "0" * 10_000_000}).encode()
    data = zlib.compress(zeros) if encoding == "deflate" else gzip.compress(zeros, 1)
    with server.http as http:
        answer = http.post(
            CHAT, content=data, headers={"x-api-key": key, "content-encoding": encoding}
        )
    assert answer.status_code == 415


PATHS = [
    "/../../../../etc/passwd",
    "/..%2f..%2f..%2fetc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/assets/..%5c..%5cetc/passwd",
    "//etc/passwd",
    "/./.git/config",
    "/assets/%00.js",
    "/pyodide/..%2f..%2f__init__.py",
    "/v1/models/..%2f..%2f..%2fetc%2fpasswd",
    "/api/conversations/..%2f..%2fadmin%2foverview",
    "/api/lab/runs/..%2f..%2fetc/metrics",
    "/v1/%2e%2e/metrics",
    "/%ff%fe",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_leads_nowhere_else(server: Running, key: str, path: str) -> None:
    """As written, without a client that tidies it."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\nConnection: close"
        connection.sendall(head.encode() + b"\r\n\r\n")
        answer = b""
        while data := connection.recv(1 << 16):
            answer += data
    status, body = answer[:12], answer.partition(b"\r\n\r\n")[2]
    # A view of the app is its one page; anything else is a refusal.
    is_page = status == b"HTTP/1.1 200" and body.lstrip().lower().startswith(b"<!doctype html")
    assert is_page or status[9:10] == b"4", answer[:200]
    assert b"root:" not in answer and b"[core]" not in answer and b"rorqual_" not in body


@pytest.mark.parametrize(
    "stored",
    ["' OR '1'='1", "'; DROP TABLE users; --", '" UNION SELECT * FROM api_keys --', "%", "_" * 60],
)
def test_sql_in_a_key_a_name_or_an_id_is_text(server: Running, key: str, stored: str) -> None:
    change = {"x-rorqual": "1"}
    with server.http as http:
        for name in ("authorization", "x-api-key"):
            value = f"Bearer {stored}" if name == "authorization" else stored
            answer = http.post(CHAT, json=ASK, headers={name: value})
            assert answer.status_code == 401
        who = {"name": stored, "password": stored * 3}
        assert http.post("/api/session", json=who, headers=change).status_code in (400, 401, 403)
        cookie = {"cookie": f'rorqual="{stored.replace(chr(34), "")}"'}
        assert http.get("/api/keys", headers=cookie).status_code == 401
    assert server.platform.accounts.by_name("attacker").name == "attacker"
    user = server.platform.accounts.by_name("attacker")
    kept = server.platform.conversations.create(user.id, stored)
    assert server.platform.conversations.get(user.id, kept.id)[0].title == stored
    assert post(server, key, CHAT, ASK).status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"X: a\x00b\r\n",
    ],
)
def test_a_request_with_two_meanings_has_none(server: Running, key: str, head: bytes) -> None:
    """Request smuggling: a second request hidden in a first one is never answered."""
    host, port = server.url.removeprefix("http://").split(":")
    hidden = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: " + key.encode()
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + head)
        connection.sendall(b"\r\n0\r\n\r\n" + hidden + b"\r\n\r\n")
        connection.settimeout(3)
        answer = b""
        try:
            while data := connection.recv(1 << 16):
                answer += data
        except (TimeoutError, ConnectionError):
            pass
    assert b'"object":"list"' not in answer
    assert not answer or answer.startswith(b"HTTP/1.1 4")
