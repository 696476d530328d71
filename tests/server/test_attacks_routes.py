"""Attack: one account reaches for another's things, on every route that the application has.

Row "IDOR: every object query carries owner id; cross-user test for each route incl. resume" of the
incidents, and "unauthenticated side routes: deny by default" of overload and attack. The routes are
read from the application, so one that is new fails here until somebody says what it may show.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from rorqual.config.server import ServerConfig
from rorqual.platform import Platform
from rorqual.server import Services, create_admin_app, create_app
from tests.server.conftest import MODEL, Running, ServerFactory

CHANGE = {"x-rorqual": "1"}
UNIT = 10**9
PAGE = "<title>Rorqual</title>"
SECRET = "the bones of Nantucket"
MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"model": MODEL, "messages": MESSAGES, "max_tokens": 2}
PROMPT = {"model": MODEL, "prompt": "Hi", "max_tokens": 2}


@dataclass(frozen=True)
class Case:
    """What a stranger who is logged in sees.

    statuses of the stranger and of nobody; body to send. Whatever the status, nothing of the owner.
    """

    stranger: int
    nobody: int = 401
    body: dict[str, Any] | None = None
    query: dict[str, str] | None = None


FOREIGN = 404
CHATS = [f"POST {prefix}/chat/completions" for prefix in ("/v1", "", "/beta")]
TEXTS = [f"POST {prefix}/completions" for prefix in ("/v1", "", "/beta")]
LISTS = [f"GET {prefix}/models" for prefix in ("/v1", "", "/beta", "/anthropic/v1")]
NAMED = [f"GET {prefix}/models/{{model:path}}" for prefix in ("/v1", "", "/beta")]
CASES: dict[str, Case] = {
    **dict.fromkeys(CHATS, Case(200, body=CHAT)),
    **dict.fromkeys(TEXTS, Case(200, body=PROMPT)),
    **dict.fromkeys([*LISTS, *NAMED], Case(200)),
    "GET /user/balance": Case(200),
    "GET /v1/key": Case(200),
    "POST /tokenize": Case(200, body={"prompt": "Hi"}),
    "POST /detokenize": Case(200, body={"tokens": [5]}),
    "POST /anthropic/v1/messages": Case(200, body=CHAT),
    "POST /anthropic/v1/messages/count_tokens": Case(
        200, body={"model": MODEL, "messages": MESSAGES}
    ),
    "POST /v1/responses": Case(200, body={"model": MODEL, "input": "Hi", "max_output_tokens": 2}),
    "GET /v1/responses/{id}": Case(FOREIGN),
    "DELETE /v1/responses/{id}": Case(FOREIGN),
    "GET /v1/responses/{id}/input_items": Case(FOREIGN),
    "POST /v1/responses/{id}/cancel": Case(FOREIGN, body={}),
    # The app: objects of another are not there.
    "GET /api/conversations": Case(200),
    "POST /api/conversations": Case(201, body={"title": "mine"}),
    "GET /api/conversations/{id}": Case(FOREIGN),
    "PATCH /api/conversations/{id}": Case(FOREIGN, body={"title": "mine"}),
    "DELETE /api/conversations/{id}": Case(FOREIGN),
    "GET /api/conversations/{id}/export": Case(FOREIGN),
    "POST /api/conversations/{id}/runs": Case(FOREIGN, body={"content": "Hi", "model": MODEL}),
    "GET /api/runs/{id}/events": Case(FOREIGN),
    "POST /api/runs/{id}/stop": Case(FOREIGN, body={}),
    "GET /api/keys": Case(200),
    "POST /api/keys": Case(201, body={"name": "mine"}),
    "DELETE /api/keys/{id}": Case(FOREIGN),
    "GET /api/usage": Case(200),
    "GET /api/balance": Case(200),
    "GET /api/tutor/families": Case(200),
    "POST /api/tutor/problems": Case(200, body={"family": "arithmetic", "level": 1}),
    "POST /api/tutor/problems/{id}/hint": Case(FOREIGN, body={"step": 1}),
    "POST /api/tutor/problems/{id}/check": Case(FOREIGN, body={"answer": "1"}),
    "POST /api/tutor/verify": Case(200, body={"text": "1+1=", "answer": "2", "language": "en"}),
    # Runs of the Lab belong to the installation: users may look, administrators may start and stop.
    "GET /api/lab/runs": Case(200),
    "POST /api/lab/runs": Case(403, body={"preset": "tiny", "overrides": []}),
    "GET /api/lab/runs/{id}": Case(404),
    "GET /api/lab/runs/{id}/metrics": Case(404),
    "GET /api/lab/runs/{id}/samples": Case(404),
    "POST /api/lab/runs/{id}/stop": Case(403, body={}),
    # Models may be fetched by who runs the server; others are not even told which.
    "POST /api/models/{id}/fetch": Case(403, body={}),
    "DELETE /api/models/{id}/fetch": Case(403),
    # The administrators'.
    "GET /api/admin/overview": Case(403),
    "POST /api/admin/level": Case(403, body={"level": "closed"}),
    "GET /api/admin/users": Case(403),
    "PATCH /api/admin/users/{id}": Case(403, body={"role": "admin"}),
    "POST /api/admin/users/{id}/topup": Case(403, body={"amount": 5, "reference": "x"}),
    # For everyone: nothing of any account.
    "GET /api/me": Case(200, 200),
    "GET /api/challenge": Case(200, 200, query={"for": "register"}),
    "POST /api/register": Case(403, 403, {"name": "third", "password": "a long password"}),
    "POST /api/session": Case(401, 401, {"name": "owner", "password": "not the password"}),
    "DELETE /api/session": Case(204, 204),
    "GET /api/models": Case(200, 200),
    "GET /api/status": Case(200, 200),
    "GET /.well-known/release.json": Case(200, 200),
    "GET /health": Case(200, 200),
    "GET /ready": Case(200, 200),
    "GET /openapi.json": Case(200, 200),
    "GET /preview": Case(404, 404),  # the web app of these tests is one page
    "GET /pyodide/{path:path}": Case(404, 404),
    "GET /{path:path}": Case(404, 404),
}
LAST = "DELETE /api/session"  # it ends the stranger's session


@dataclass
class World:
    """A server with two accounts, and everything by which the first one would be recognised."""

    server: Running
    key: str
    cookie: str
    ids: dict[str, str]
    marks: set[str] = field(default_factory=set)

    def ask(self, name: str, *, known: bool) -> httpx.Response:
        """The stranger's, or nobody's, request to a route, naming the owner's object."""
        method, path = name.split(" ")
        for begin, found in self.ids.items():
            if path.startswith(begin):
                path = path.replace("{id}", found)
        path = path.replace("{model:path}", MODEL).replace("{path:path}", "x.js")
        headers = dict(CHANGE)
        if known and path.startswith("/api/"):
            headers["cookie"] = self.cookie
        elif known:
            headers["authorization"] = f"Bearer {self.key}"
        with self.server.http as http:
            case = CASES[name]
            return http.request(method, path, json=case.body, params=case.query, headers=headers)


def account(server: Running, http: httpx.Client, name: str) -> tuple[str, str]:
    """(user id, key) of a new account with money, logged in."""
    platform = server.platform
    user = platform.accounts.create(name, "a long password")
    platform.ledger.top_up(user.id, UNIT, f"payment of {name}")
    who = {"name": name, "password": "a long password"}
    assert http.post("/api/session", json=who, headers=CHANGE).status_code == 200
    return user.id, platform.keys.create(user.id, f"key of {name}").secret


@pytest.fixture(scope="module")
def world(start_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    web = tmp_path_factory.mktemp("web")
    (web / "index.html").write_text(PAGE)
    server = start_server(mode="platform", http={"web_folder": str(web)})
    with server.http as mine, server.http as theirs:
        user_id, secret = account(server, mine, "owner")
        _, key = account(server, theirs, "stranger")
        made = mine.post("/api/conversations", json={"title": SECRET}, headers=CHANGE).json()
        path = f"/api/conversations/{made['id']}/runs"
        asked = {"content": SECRET, "model": MODEL, "thinking": False}
        run = mine.post(path, json=asked, headers=CHANGE).json()
        events = f"/api/runs/{run['run_id']}/events"
        assert "event: end" in mine.get(events).text
        task = {"family": "arithmetic", "level": 1}
        problem = mine.post("/api/tutor/problems", json=task, headers=CHANGE).json()
        answered = {"model": MODEL, "input": SECRET, "reasoning": {"effort": "none"}}
        bearer = {"authorization": f"Bearer {secret}"}
        kept = mine.post("/v1/responses", json=answered, headers=bearer).json()
        (held,) = mine.get("/api/keys").json()["keys"]
        cookie = "; ".join(f"{name}={value}" for name, value in theirs.cookies.items())
        marks = {user_id, secret, secret[-4:], SECRET, made["id"], run["run_id"], held["id"]}
        marks |= {run["user_message"]["id"], problem["problem_id"], "key of owner"}
        marks |= {kept["id"], kept["output"][0]["id"]}
    ids = {
        "/api/conversations/": made["id"],
        "/api/runs/": run["run_id"],
        "/v1/responses/": kept["id"],
        "/api/keys/": held["id"],
        "/api/tutor/problems/": problem["problem_id"],
        "/api/admin/users/": user_id,
        "/api/lab/runs/": "nothing",
    }
    yield World(server, key, cookie, ids, marks)


def routes(app: Any) -> set[str]:
    """METHOD PATH of everything that a guarded application answers."""
    found = {
        f"{method} {route.path}"
        for route in app._app.routes
        if isinstance(route, Route)
        for method in (route.methods or ()) - {"HEAD"}
    }
    assert len(found) > 3
    return found


def test_every_route_is_covered(world: World) -> None:
    assert routes(create_app(world.server.services)) == set(CASES)


@pytest.mark.parametrize("name", [name for name in CASES if name != LAST] + [LAST])
def test_a_stranger_sees_nothing_of_another_account(world: World, name: str) -> None:
    unknown = world.ask(name, known=False)
    answer = world.ask(name, known=True)
    assert (answer.status_code, unknown.status_code) == (CASES[name].stranger, CASES[name].nobody)
    # What a request names itself may be named in its refusal.
    told = {mark for mark in world.marks if mark in answer.text + unknown.text}
    assert told <= {world.ids[begin] for begin in world.ids if begin in name}


def test_nothing_of_the_owner_changed(world: World) -> None:
    platform = world.server.platform
    user_id = world.ids["/api/admin/users/"]
    conversation, messages = platform.conversations.get(user_id, world.ids["/api/conversations/"])
    (key,) = platform.keys.of_user(user_id)
    user = platform.accounts.by_name("owner")
    kept = platform.responses.get(user_id, world.ids["/v1/responses/"])
    assert conversation.title == SECRET and len(messages) == 2
    assert kept.input[0]["content"][0]["text"] == SECRET
    assert key.revoked_seconds is None and user.role == "user" and user.id == user_id
    assert platform.admission.stats().held_level is None
    assert platform.usage.audit() == []


def test_a_key_opens_no_page_of_the_app_and_a_cookie_no_api(world: World) -> None:
    with world.server.http as http:
        by_key = http.get("/api/keys", headers={"authorization": f"Bearer {world.key}"})
        by_cookie = http.post("/v1/chat/completions", json=CHAT, headers={"cookie": world.cookie})
    assert (by_key.status_code, by_cookie.status_code) == (401, 401)


def test_the_operators_routes_are_not_on_the_public_port(world: World) -> None:
    operators = routes(create_admin_app(world.server.services))
    shared = {"GET /health", "GET /ready"}
    with world.server.http as http:
        for name in operators - shared:
            method, path = name.split(" ")
            answer = http.request(method, path, headers=CHANGE | {"cookie": world.cookie})
            assert answer.status_code == 405 or answer.text == PAGE, name
    assert {"GET /metrics", "POST /admin/drain", "GET /admin/audit"} <= operators


def test_local_mode_adds_no_route_but_the_figures(world: World, tmp_path: Any) -> None:
    config = ServerConfig.model_validate({"database": {"url": f"sqlite:///{tmp_path}/x.db"}})
    platform = Platform.open(config)
    try:
        local = routes(create_app(Services(config, platform, world.server.services.models)))
    finally:
        platform.close()
    assert local - set(CASES) == {"GET /metrics"}
