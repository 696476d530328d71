"""Platform mode: keys, money, limits, and that one account sees nothing of another."""

import functools
import json
import socket
import threading
import time
from collections.abc import Callable

import pytest

from rorqual.platform import ApiKey, Caller, User
from rorqual.platform.challenge import leading_zero_bits
from rorqual.server import known_keys
from tests.server.conftest import MODEL, UNIT, Running, ServerFactory, new_key
from tests.server.scripted import ScriptRunner, make_tokenizer

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
CHANGE = {"x-rorqual": "1"}


ServerOn = Callable[[str], Running]


@pytest.fixture(scope="module")
def server_on(start_server: ServerFactory, request: pytest.FixtureRequest) -> ServerOn:
    """One server for each kind of database, started when it is asked for."""

    @functools.cache
    def start(kind: str) -> Running:
        if kind == "sqlite":
            return start_server(mode="platform")
        url = request.getfixturevalue("postgres").new_schema()
        return start_server(mode="platform", database={"url": url})

    return start


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)])
def server(server_on: ServerOn, request: pytest.FixtureRequest) -> Running:
    return server_on(request.param)


@pytest.fixture(params=["sqlite", "postgresql"])
def money_server(server_on: ServerOn, request: pytest.FixtureRequest) -> Running:
    """For what touches money and ownership: both databases, always."""
    return server_on(request.param)


def ask(server: Running, key: str | None, path: str = "/v1/chat/completions", **fields: object):
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    with server.http as http:
        return http.post(path, json=ASK | fields, headers=headers)


def solve(http, purpose: str, name: str = "") -> dict:
    """The proof of work that is asked for, as a client of the app finds it."""
    found = http.get("/api/challenge", params={"for": purpose, "name": name}).json()
    number = 0
    while leading_zero_bits(found["challenge"], str(number)) < found["difficulty"]:
        number += 1
    return {"challenge": found["challenge"], "number": number, "signature": found["signature"]}


def test_a_key_is_needed_and_its_kind_told(server: Running) -> None:
    assert ask(server, None).status_code == 401
    assert ask(server, "sk-rorqual-nonsense").status_code == 401
    assert ask(server, "sk-rorqual-" + "a" * 49).status_code == 401
    with server.http as http:
        assert http.get("/v1/models").status_code == 401
        assert http.post("/anthropic/v1/messages", json={}).json()["type"] == "error"


def test_an_answer_is_billed_exactly(money_server: Running) -> None:
    server = money_server
    user_id, key = new_key(server, "bill")
    usage = ask(server, key).json()["usage"]
    hit, miss = usage["prompt_cache_hit_tokens"], usage["prompt_cache_miss_tokens"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    output = usage["completion_tokens"] - reasoning
    cost = -(-(hit * 1 + miss * 10 + output * 100 + reasoning * 200) * UNIT // 10**6)
    balance = server.platform.ledger.balance(user_id)
    assert (balance.available_nano, balance.reserved_nano) == (UNIT - cost, 0)
    kinds = [entry.kind for entry in server.platform.ledger.entries(user_id)]
    assert sorted(kinds) == ["release", "reserve", "settle", "topup"]
    assert server.platform.usage.audit() == []


def test_a_stream_is_billed_like_a_whole_answer(money_server: Running) -> None:
    server = money_server
    first, key = new_key(server, "whole")
    second, streaming = new_key(server, "stream")
    ask(server, key)
    assert ask(server, streaming, stream=True).text.endswith("data: [DONE]\n\n")
    spent = [UNIT - server.platform.ledger.balance(one).available_nano for one in (first, second)]
    assert spent[0] == spent[1] > 0


def test_without_money_the_answer_is_402_and_nothing_is_kept(money_server: Running) -> None:
    server = money_server
    user_id, key = new_key(server, "poor", money=0)
    assert ask(server, key).status_code == 402
    assert server.platform.ledger.balance(user_id).reserved_nano == 0
    assert server.platform.admission.stats().num_running == 0


def test_limits_of_a_key_hold(money_server: Running) -> None:
    server = money_server
    _, other = new_key(server, "model", models=["minnow"])
    assert ask(server, other).status_code == 403
    _, capped = new_key(server, "cap", cap_nano=1)
    assert ask(server, capped).status_code == 402
    user_id, gone = new_key(server, "gone")
    (key,) = server.platform.keys.of_user(user_id)
    server.platform.keys.revoke(user_id, key.id)
    assert ask(server, gone).status_code == 401


def test_a_known_key_is_good_for_as_long_as_the_ledger_says_so(
    money_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was used lately is not looked up: the reservation asks whether it still holds."""
    server = money_server
    keys, looked_up = server.platform.keys, list[str]()
    authenticate = keys.authenticate

    def counted(text: str) -> Caller:
        looked_up.append(text)
        return authenticate(text)

    monkeypatch.setattr(keys, "authenticate", counted)
    user_id, secret = new_key(server, "known")
    (key,) = keys.of_user(user_id)
    assert [ask(server, secret).status_code for _ in range(3)] == [200, 200, 200]
    assert looked_up == [secret]
    keys.note_uses()
    assert keys.of_user(user_id)[0].last_used_seconds is not None
    with server.http as http:
        assert http.get("/v1/key", headers={"x-api-key": secret}).json()["spent"] > 0
    assert looked_up == [secret] * 2  # what does not reserve looks
    keys.revoke(user_id, key.id)
    answers = [ask(server, secret) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json() == answers[1].json()
    assert looked_up == [secret] * 3  # after the first it is not known any more
    assert server.platform.usage.audit() == []


def test_a_known_key_is_looked_up_again_after_some_seconds(
    money_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that fail before they reserve say so to a revoked key for no longer than that."""
    server = money_server
    user_id, secret = new_key(server, "careless")
    assert ask(server, secret).status_code == 200
    (key,) = server.platform.keys.of_user(user_id)
    server.platform.keys.revoke(user_id, key.id)
    assert ask(server, secret, temperature="hot").status_code == 400
    monkeypatch.setattr(known_keys, "_FRESH_SECONDS", 0.0)
    assert ask(server, secret, temperature="hot").status_code == 401


def test_known_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_keys, "_MAX_KEYS", 3)
    known = known_keys.KnownKeys()
    callers = [caller_named(str(number)) for number in range(5)]
    for number in (0, 1, 0, 2, 3, 0, 4):
        known.note(f"secret {number}", callers[number])
    assert [known.account_of(f"secret {number}") for number in range(5)] == [
        "user 0", None, None, "user 3", "user 4"
    ]  # fmt: skip
    known.forget("key 0")
    known.forget("key 1")
    assert known.caller_of("secret 0") is None
    known.note("secret 0", callers[0])
    assert known.caller_of("secret 0") is callers[0]


def caller_named(name: str) -> Caller:
    user = User(f"user {name}", name, "user", False, 0.0, 0)
    key = ApiKey(f"key {name}", user.id, "", "", None, None, 0, 0.0, None, None, None)
    return Caller(user, key)


def test_a_revoked_key_does_not_learn_what_is_left(money_server: Running) -> None:
    server = money_server
    user_id, secret = new_key(server, "revoked")
    assert ask(server, secret).status_code == 200
    (key,) = server.platform.keys.of_user(user_id)
    server.platform.keys.revoke(user_id, key.id)
    left = server.platform.ledger.balance(user_id).available_nano
    server.platform.ledger.adjust(user_id, -left, "revoked", note="gone")
    answer = ask(server, secret)
    assert answer.status_code == 401 and "balance" not in answer.text


def test_a_locked_account_is_refused_with_a_known_key(money_server: Running) -> None:
    server = money_server
    user_id, secret = new_key(server, "locked")
    assert ask(server, secret).status_code == 200
    server.platform.accounts.set_locked(user_id, True)
    answers = [ask(server, secret) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert answers[0].json() == answers[1].json()


def test_a_client_that_leaves_pays_for_what_it_got(money_server: Running) -> None:
    server = money_server
    user_id, key = new_key(server, "leaver")
    with (
        server.http as http,
        http.stream(
            "POST",
            "/v1/chat/completions",
            json=ASK | {"stream": True, "ignore_eos": True, "max_tokens": 300},
            headers={"authorization": f"Bearer {key}"},
        ) as answer,
    ):
        next(answer.iter_lines())
    balance = server.settled(user_id)
    assert balance.reserved_nano == 0 and balance.available_nano < UNIT
    assert server.platform.usage.audit() == []


@pytest.mark.parametrize("padding_bytes", [0, 480_000])
def test_who_leaves_before_the_first_token_frees_the_place(
    start_server: ServerFactory, padding_bytes: int
) -> None:
    """Long bodies too: reading stops behind them, and must go on for the end to be heard."""
    gate = threading.Event()
    runner = ScriptRunner(make_tokenizer(), {}, pause=lambda: gate.wait(20) and None)
    server = start_server(runner=runner)
    body = json.dumps(ASK) + " " * padding_bytes
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}"

    def num_inside() -> int:
        return server.platform.admission.stats().num_running

    def wait_for(number: int) -> None:
        until = time.monotonic() + 10
        while num_inside() != number and time.monotonic() < until:
            time.sleep(0.01)
        assert num_inside() == number

    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        wait_for(1)
        time.sleep(0.1)  # it is being answered
    wait_for(0)
    assert not gate.is_set()
    gate.set()


def test_concurrent_requests_cannot_overdraw(money_server: Running) -> None:
    server = money_server
    price = 20 * 200 * 1000 + 10 * 30 * 1000  # about the worst case of one request, in nano-units
    user_id, key = new_key(server, "racer", money=3 * price)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(ask(server, key).status_code))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 402} and 200 in statuses
    assert server.platform.ledger.balance(user_id).available_nano >= 0
    assert server.platform.usage.audit() == []


def test_registration_login_and_logout(server: Running) -> None:
    with server.http as http:
        who = {"name": "Ishmael", "password": "call me so, please"}
        early = http.post("/api/register", json=who, headers=CHANGE)
        assert early.status_code == 403 and early.json()["error"]["code"] == "challenge_required"
        made = http.post(
            "/api/register", json=who | {"proof": solve(http, "register")}, headers=CHANGE
        )
        assert made.status_code == 201 and made.json()["user"]["name"] == "ishmael"
        cookie = made.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert http.get("/api/me").json()["user"]["role"] == "user"
        assert http.delete("/api/session", headers=CHANGE).status_code == 204
        assert http.get("/api/me").json()["user"] is None
        wrong = http.post("/api/session", json=who | {"password": "wrong"}, headers=CHANGE)
        unknown = http.post("/api/session", json=who | {"name": "nobody"}, headers=CHANGE)
        assert wrong.status_code == unknown.status_code == 401
        assert wrong.json() == unknown.json()
        assert http.post("/api/session", json=who, headers=CHANGE).status_code == 200


def log_in(server: Running, http, name: str, *, admin: bool = False) -> str:
    user = server.platform.accounts.create(name, "a long password", "admin" if admin else "user")
    answer = http.post(
        "/api/session", json={"name": name, "password": "a long password"}, headers=CHANGE
    )
    assert answer.status_code == 200
    return user.id


def test_keys_are_made_used_and_revoked_in_the_app(money_server: Running) -> None:
    server = money_server
    with server.http as http:
        user_id = log_in(server, http, "keymaker")
        server.platform.ledger.top_up(user_id, UNIT, "keymaker")
        made = http.post("/api/keys", json={"name": "laptop", "cap": UNIT}, headers=CHANGE).json()
        assert ask(server, made["secret"]).status_code == 200
        (shown,) = http.get("/api/keys").json()["keys"]
        assert shown["last4"] == made["secret"][-4:] and "secret" not in shown
        assert shown["spent"] > 0
        assert http.delete(f"/api/keys/{made['id']}", headers=CHANGE).status_code == 204
        assert ask(server, made["secret"]).status_code == 401
        usage = http.get("/api/usage").json()["rows"]
        assert usage[0]["requests"] == 1 and usage[0]["key_id"] == made["id"]
        money = http.get("/api/balance").json()
        assert money["balance"] + money["spent"] == UNIT and money["reserved"] == 0


def test_nothing_of_another_account_is_there(money_server: Running) -> None:
    server = money_server
    with server.http as mine, server.http as theirs:
        log_in(server, mine, "owner")
        log_in(server, theirs, "stranger")
        made = mine.post("/api/conversations", json={"title": "secret"}, headers=CHANGE).json()
        path = f"/api/conversations/{made['id']}"
        key = mine.post("/api/keys", json={"name": "x"}, headers=CHANGE).json()
        problem = mine.post(
            "/api/tutor/problems", json={"family": "arithmetic", "level": 1}, headers=CHANGE
        ).json()
        attempts = [
            theirs.get(path),
            theirs.patch(path, json={"title": "mine"}, headers=CHANGE),
            theirs.delete(path, headers=CHANGE),
            theirs.get(f"{path}/export"),
            theirs.post(f"{path}/runs", json={"content": "x"}, headers=CHANGE),
            theirs.delete(f"/api/keys/{key['id']}", headers=CHANGE),
            theirs.post(
                f"/api/tutor/problems/{problem['problem_id']}/check",
                json={"answer": "1"},
                headers=CHANGE,
            ),
            theirs.get("/api/runs/run_x/events"),
        ]
        assert [answer.status_code for answer in attempts] == [404] * len(attempts)
        assert theirs.get("/api/conversations").json()["items"] == []
        assert mine.get(path).json()["title"] == "secret"


def test_admin_routes_need_the_role(server: Running) -> None:
    with server.http as user, server.http as admin, server.http as nobody:
        user_id = log_in(server, user, "plain")
        log_in(server, admin, "boss", admin=True)
        assert nobody.get("/api/admin/overview").status_code == 401
        assert user.get("/api/admin/overview").status_code == 403
        assert admin.get("/api/admin/overview").json()["level"] == "normal"
        top = f"/api/admin/users/{user_id}/topup"
        assert user.post(top, json={"amount": 5}, headers=CHANGE).status_code == 403
        for _ in range(2):  # the same payment adds once
            paid = admin.post(top, json={"amount": 5, "reference": "p1"}, headers=CHANGE)
            assert paid.json() == {"balance": 5}
        locked = f"/api/admin/users/{user_id}"
        assert admin.patch(locked, json={"locked": True}, headers=CHANGE).json()["locked"]
        assert user.get("/api/keys").status_code in (401, 403)
        held = admin.post("/api/admin/level", json={"level": "queue_only"}, headers=CHANGE)
        assert held.json() == {"level": "queue_only"}
        assert admin.get("/api/status").json()["level"] == "queue_only"
        admin.post("/api/admin/level", json={"level": "auto"}, headers=CHANGE)


def test_a_change_needs_its_header_and_its_own_origin(server: Running) -> None:
    with server.http as http:
        log_in(server, http, "careful")
        plain = http.post("/api/conversations", json={})
        foreign = http.post(
            "/api/conversations", json={}, headers=CHANGE | {"origin": "https://evil.example"}
        )
        crossed = http.post(
            "/api/conversations", json={}, headers=CHANGE | {"sec-fetch-site": "cross-site"}
        )
        assert [a.status_code for a in (plain, foreign, crossed)] == [403, 403, 403]


def test_logs_hold_neither_keys_nor_texts(server: Running) -> None:
    _, key = new_key(server, "logged")
    secret = "the password of the whale"
    ask(server, key, messages=[{"role": "user", "content": secret}])
    ask(server, key, messages=[{"role": "user", "content": secret}], temperature=99)
    deadline = time.monotonic() + 10  # a line is written after its answer has gone
    while not any('"status": 400' in text for text in list(server.lines)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    written = "\n".join(server.lines)
    assert key not in written and secret not in written and "The whale sings" not in written
    last = json.loads(server.lines[-1])
    assert last["event"] == "request" and last["status"] == 400 and last["user_id"]


def test_a_flood_is_refused_at_once_and_told_when_to_come_back(start_server: ServerFactory) -> None:
    gate = threading.Event()
    tokenizer = make_tokenizer()
    runner = ScriptRunner(tokenizer, {}, pause=lambda: gate.wait(20) and None)
    server = start_server(
        mode="platform",
        runner=runner,
        admission={"max_running": 1, "max_running_per_account": 1, "max_queued": 1,
                   "max_per_account": 2},
    )  # fmt: skip
    _, key = new_key(server, "flood")
    _, late = new_key(server, "late")
    answers: list = []
    threads = [threading.Thread(target=lambda: answers.append(ask(server, key))) for _ in range(2)]
    for thread in threads:
        thread.start()
        for _ in range(200):
            stats = server.platform.admission.stats()
            if stats.num_running + stats.num_queued > threads.index(thread):
                break
            gate.wait(0.02)
    mine, other = ask(server, key), ask(server, late)
    gate.set()
    for thread in threads:
        thread.join()
    assert mine.status_code == 429 and other.status_code == 503
    assert int(mine.headers["retry-after"]) >= 1 and int(other.headers["retry-after"]) >= 1
    assert [answer.status_code for answer in answers] == [200, 200]
