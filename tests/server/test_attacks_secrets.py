"""Attacks on what is kept: keys, passwords, sessions and texts in logs and database.

Rows "no prompts or keys in logs (test greps them)", "hash the key first, bound parameters only",
"constant-time compare" and "accounts: uniform errors" of the incidents.
"""

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rorqual.platform.secret_text import hash_secret, looks_like_key, new_key
from tests.server.conftest import MODEL, Running, ServerFactory

CHANGE = {"x-rorqual": "1"}
PROMPT = "a prompt about the bones of Nantucket"
PASSWORD = "the password of Queequeg"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8}


@dataclass
class World:
    """A server on which somebody did everything once, and the secrets of that."""

    server: Running
    secrets: dict[str, str]
    folder: Path


@pytest.fixture(scope="module")
def world(start_server: ServerFactory) -> Iterator[World]:
    server = start_server(mode="platform")
    platform = server.platform
    user = platform.accounts.create("queequeg", PASSWORD)
    platform.ledger.top_up(user.id, 10**12, "q")
    key = platform.keys.create(user.id, "k").secret
    with server.http as http:
        bearer = {"authorization": f"Bearer {key}"}
        asked = ASK | {"model": MODEL}
        for path in ("/v1/chat/completions", "/anthropic/v1/messages", "/tokenize"):
            body = {"messages": ASK["messages"]} if path == "/tokenize" else asked
            assert http.post(path, json=body, headers={"x-api-key": key}).status_code == 200
        http.post("/v1/completions", json={"prompt": PROMPT, "stream": True}, headers=bearer)
        # Refusals name fields, so they are where a value could slip out.
        for wrong in ({"temperature": PROMPT}, {PROMPT: 1}, {"messages": [PROMPT]}, {"n": PROMPT}):
            assert http.post("/v1/chat/completions", json=asked | wrong, headers=bearer).is_error
        http.post("/v1/chat/completions", content=PROMPT.encode(), headers=bearer)
        http.get(f"/v1/models/{PROMPT}", headers=bearer)
        http.get("/v1/models", params={"api_key": key, "q": PROMPT})
        http.get(f"/{key}/{PROMPT}")
        http.get("/api/keys", headers={"referer": f"http://x/{key}", "user-agent": PROMPT})
        login = {"name": "queequeg", "password": PASSWORD}
        http.post("/api/session", json=login | {"password": PASSWORD + "!"}, headers=CHANGE)
        assert http.post("/api/session", json=login, headers=CHANGE).status_code == 200
        made = http.post("/api/keys", json={"name": "second"}, headers=CHANGE).json()
        (cookie,) = http.cookies.values()
    until = time.monotonic() + 10
    while sum('"POST /api/keys"' in line for line in list(server.lines)) < 1:
        assert time.monotonic() < until
        time.sleep(0.02)
    secrets = {"key": key, "second key": made["secret"], "session": cookie, "password": PASSWORD}
    database = server.services.config.database.url.removeprefix("sqlite:///")
    yield World(server, secrets, Path(database).parent)


def traces(secret: str) -> list[str]:
    """A secret and pieces of it long enough to matter."""
    return [secret, secret[11:27], secret[-12:]]


def test_logs_hold_neither_secrets_nor_texts(world: World) -> None:
    written = "\n".join(world.server.lines)
    assert len(world.server.lines) > 15 and '"status": 400' in written
    for name, secret in world.secrets.items():
        assert not [piece for piece in traces(secret) if piece in written], name
    for piece in (PROMPT, "Nantucket", PROMPT.replace(" ", "%20"), "The whale sings"):
        assert piece not in written


def test_the_database_holds_no_secret_and_no_text_of_the_api(world: World) -> None:
    """Every byte of every file of it, the write-ahead log too."""
    files = [path for path in world.folder.iterdir() if path.name.startswith("rorqual.db")]
    kept = b"".join(path.read_bytes() for path in files)
    assert b"queequeg" in kept and hash_secret(world.secrets["key"]).encode() in kept
    for name, secret in world.secrets.items():
        assert not [piece for piece in traces(secret) if piece.encode() in kept], name
    assert b"Nantucket" not in kept and b"The whale sings" not in kept
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


def test_the_figures_hold_no_secret_and_no_account(world: World) -> None:
    text = world.server.services.metrics.text().decode()
    user = world.server.platform.accounts.by_name("queequeg")
    for piece in (user.id, "queequeg", "Nantucket", *world.secrets.values()):
        assert piece not in text
    assert 'route="POST /v1/chat/completions"' in text


def test_a_key_is_never_compared_only_looked_up_by_its_hash(world: World) -> None:
    """So how long it takes tells nothing of how much of a guess is right: the database sees a
    SHA-256, in which a guess that shares 40 characters with a key shares nothing."""
    key = world.secrets["key"]
    seen: list[str] = []

    guess = next(
        one for one in (key[:40] + new_key()[40:] for _ in range(10**6)) if not looks_like_key(one)
    )
    close = new_key()
    with world.server.http as http:
        http.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        look = world.server.platform.database._look
        assert look is not None
        look.connection.driver_connection.set_trace_callback(seen.append)  # with all values
        for one in (key, guess, close, key[:-1], key.swapcase()):
            http.get("/v1/models", headers={"authorization": f"Bearer {one}"})
    asked = "\n".join(seen)
    assert hash_secret(key) in asked and hash_secret(close) in asked
    for one in (key, close, guess):
        assert one not in asked and one[11:27] not in asked
    # A key whose checksum is wrong does not reach the database at all.
    assert hash_secret(guess) not in asked and hash_secret(key.swapcase()) not in asked


def test_the_hash_is_found_by_an_index(world: World) -> None:
    """A scan would compare, and would take the longer the more keys there are."""
    with sqlite3.connect(world.folder / "rorqual.db") as connection:
        query = "EXPLAIN QUERY PLAN SELECT * FROM api_keys WHERE key_hash = 'x'"
        plan = " ".join(str(row[3]) for row in connection.execute(query))
    connection.close()
    assert "USING" in plan and "INDEX" in plan and "SCAN" not in plan


def test_a_wrong_name_and_a_wrong_password_cost_the_same_hash(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether an account exists must not be read from the answer or from its time."""
    passwords = world.server.platform.accounts._passwords
    hasher = passwords._hasher
    hashed: list[str] = []

    class Counted:
        def verify(self, *args: Any) -> Any:
            hashed.append("once")
            return hasher.verify(*args)

    monkeypatch.setattr(passwords, "_hasher", Counted())
    answers = []
    with world.server.http as http:
        for name in ("queequeg", "nobody"):
            before = len(hashed)
            who = {"name": name, "password": "wrong password"}
            answer = http.post("/api/session", json=who, headers=CHANGE)
            answers.append((answer.status_code, answer.text, len(hashed) - before))
    assert answers[0] == answers[1] and answers[0][2] == 1
