"""A small server that speaks docs/app-api.md from recorded streams, and serves web/dist.

It sends the headers of web/dist/headers.json, so that the pages run under the policies that the
real server sends. `python -m tests.web.fake_server [local|platform] [port]` starts it by hand.
"""

import json
import re
import sys
import threading
import time
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.web.fake_state import (
    FAMILIES,
    FakeState,
    Json,
    challenge,
    is_solved,
    lab_samples,
    lab_series,
    now_iso,
)

DIST = Path(__file__).parents[2] / "web" / "dist"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
    ".zip": "application/zip",
    ".webmanifest": "application/manifest+json",
}
LAB_RUNS: list[Json] = [
    {
        "id": "speedrun",
        "kind": "train",
        "title": "Laptop speedrun",
        "state": "done",
        "step": 600,
        "updated": now_iso(),
    },
    {
        "id": "r1-zero",
        "kind": "rl",
        "title": "R1-Zero, pocket",
        "state": "running",
        "step": 310,
        "updated": now_iso(),
    },
]
HINTS = ["Move the 5 to the other side.", "$3x = 15$", "$x = 5$, so \\(\\boxed{5}\\)."]


class Refusal(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        self.status, self.code, self.message = status, code, message or code


class Handler(BaseHTTPRequestHandler):
    """One request. Routes are methods named after verb and pattern, in ROUTES."""

    protocol_version = "HTTP/1.1"
    server: "FakeServer"  # pyright: ignore[reportIncompatibleVariableOverride] - who made us

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        path = unquote(parts.path)
        self.server.requests.append(f"{self.command} {path}")
        if not path.startswith("/api/"):
            self.send_file(path)
            return
        try:
            self.check_change()
            for verb, pattern, name in ROUTES:
                found = re.fullmatch(pattern, path[5:])
                if verb == self.command and found:
                    getattr(self, name)(*found.groups())
                    return
            raise Refusal(404, "not_found")
        except Refusal as refusal:
            error = {"code": refusal.code, "message": refusal.message, "param": None}
            self.reply({"error": error}, refusal.status)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any

    def check_change(self) -> None:
        if self.command != "GET" and self.headers.get("X-Rorqual") != "1":
            raise Refusal(403, "foreign_request")

    # -- replies

    def reply(self, body: Any, status: int = 200, cookie: str | None = None) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        if cookie is not None:
            self.send_header("Set-Cookie", f"rorqual={cookie}; HttpOnly; SameSite=Strict; Path=/")
        self.end_headers()
        self.wfile.write(data)

    def send_file(self, path: str) -> None:
        name = {"/": "index.html", "/preview": "preview.html"}.get(path, path.lstrip("/"))
        file = (DIST / name).resolve()
        if not file.is_relative_to(DIST.resolve()) or not file.is_file():
            self.reply({"error": {"code": "not_found", "message": path, "param": None}}, 404)
            return
        data = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", TYPES.get(file.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(data)))
        for key, value in self.server.headers_for(path).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def body(self) -> Json:
        length = int(self.headers.get("Content-Length") or 0)
        return json.loads(self.rfile.read(length) or b"{}")

    # -- who

    @property
    def state(self) -> FakeState:
        return self.server.state

    def user(self) -> str | None:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("rorqual")
        return self.state.sessions.get(cookie.value) if cookie else None

    def who(self) -> None:
        self.reply(self.state.me(self.user()))

    def make_challenge(self) -> None:
        self.reply(challenge())

    def sign_in(self) -> None:
        body = self.body()
        if not is_solved(body["proof"]):
            raise Refusal(403, "challenge_required")
        name = body["name"]
        if self.path.endswith("register"):
            self.state.users[name] = {"id": f"u-{name}", "name": name, "role": "user"}
        elif name not in self.state.users:
            raise Refusal(401, "wrong_password", "Name or password is wrong.")
        session = self.state.new_id("s")
        self.state.sessions[session] = name
        self.reply(self.state.me(name), cookie=session)

    def sign_out(self) -> None:
        self.reply({}, cookie="")

    def models(self) -> None:
        self.reply({"models": self.state.models()})

    def fetch_model(self, _: str) -> None:
        self.body()
        self.state.fetch = {"state": "fetching", "received": 0, "error": None}
        self.reply({"state": "fetching"}, 202)

    def cancel_fetch(self, _: str) -> None:
        self.state.fetch = None
        self.send_response(204)
        self.end_headers()

    def status(self) -> None:
        self.reply(
            {
                "engine": "ready",
                "running": 2,
                "waiting": 1,
                "level": self.state.level,
                "tokens_per_second": 183.4,
            }
        )

    # -- conversations

    def conversation(self, key: str) -> Json:
        if key not in self.state.conversations:
            raise Refusal(404, "not_found", "no such conversation")
        return self.state.conversations[key]

    def list_conversations(self) -> None:
        query = self.query.get("query", "").lower()
        items = [
            {key: one[key] for key in ("id", "title", "updated", "model")}
            for one in self.state.conversations.values()
            if query in one["title"].lower()
            or any(query in m["content"].lower() for m in one["messages"])
        ]
        items.sort(key=lambda one: one["updated"], reverse=True)
        self.reply({"items": items, "cursor": None})

    def create_conversation(self) -> None:
        self.reply(self.state.create(self.body().get("title", "")), 201)

    def show_conversation(self, key: str) -> None:
        self.reply(self.state.told(self.conversation(key)))

    def rename(self, key: str) -> None:
        self.conversation(key)["title"] = self.body()["title"]
        self.reply({})

    def remove(self, key: str) -> None:
        self.conversation(key)
        del self.state.conversations[key]
        self.reply({})

    def export(self, key: str) -> None:
        self.reply(self.state.told(self.conversation(key)))

    def start_run(self, key: str) -> None:
        if self.server.busy_seconds is not None:
            self.send_response(503)
            self.send_header("Retry-After", str(self.server.busy_seconds))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with self.state.lock:
            self.reply(self.state.start(self.conversation(key), self.body()), 202)

    def stop_run(self, key: str) -> None:
        self.body()  # unread, it would begin the connection's next request
        self.state.runs[key].end("stopped")
        self.reply({})

    def events(self, key: str) -> None:
        run = self.state.runs.get(key)
        if run is None:
            raise Refusal(404, "not_found")
        after = int(self.headers.get("Last-Event-ID") or self.query.get("after") or 0)
        self.server.resumed_after.append(after)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        epoch = self.server.epoch
        while self.server.epoch == epoch:
            sent = b""
            for seq, kind, data in run.due(after):
                text = json.dumps(data, ensure_ascii=False)
                sent += f"id: {seq}\nevent: {kind}\ndata: {text}\n\n".encode()
                after = seq
                if kind == "end":
                    self.wfile.write(sent)
                    return
            if sent:
                self.wfile.write(sent)
                self.wfile.flush()
            time.sleep(0.008)

    # -- platform

    def list_keys(self) -> None:
        self.reply({"keys": self.state.keys})

    def create_key(self) -> None:
        body = self.body()
        key = {
            "id": self.state.new_id("k"),
            "name": body["name"],
            "start": "rq-a1",
            "last4": "9f3c",
            "created": now_iso(),
            "expires": body.get("expires"),
            "last_used": None,
            "models": None,
            "cap": body.get("cap"),
            "spent": 0,
            "revoked": False,
        }
        self.state.keys.append(key)
        self.reply({**key, "secret": "rq-a1b2c3d4e5f60718293a4b5c6d7e8f90-9f3c"}, 201)

    def revoke_key(self, key: str) -> None:
        next(one for one in self.state.keys if one["id"] == key)["revoked"] = True
        self.reply({})

    def usage(self) -> None:
        rows = [
            {
                "day": now_iso(day)[:10],
                "model": "rorqual-pocket",
                "key_id": None,
                "requests": 12 + day,
                "input_tokens": 5200 * (day + 1),
                "cached_tokens": 2100,
                "output_tokens": 18_300 * (6 - day),
                "reasoning_tokens": 9000,
                "cost": 31_000_000 * (6 - day),
            }
            for day in range(6)
        ]
        self.reply({"currency": "USD", "rows": rows})

    def balance(self) -> None:
        self.reply(
            {
                "currency": "USD",
                "balance": 4_812_330_000,
                "reserved": 21_000_000,
                "spent": 187_670_000,
            }
        )

    def overview(self) -> None:
        held = self.server.held_level
        engine = {"model": "rorqual-pocket", "state": "ready", "running": 2, "waiting": 3}
        engine |= {"restarts": 0, "last_error": None}
        queue = {"running": 2, "waiting": 3, "tokens": 910, "wait_seconds": 1.2}
        self.reply(
            {
                "load": 0.71,
                "queue": queue | {"tokens_per_second": 183.4},
                "engines": [engine],
                "accounts": len(self.state.users),
                "level": self.state.level,
                "held_level": held,
            }
        )

    def set_level(self) -> None:
        level = self.body()["level"]
        self.server.held_level = None if level == "auto" else level
        self.state.level = self.server.held_level or "normal"
        self.reply({})

    def list_users(self) -> None:
        self.reply(
            {
                "users": [
                    {**one, "locked": False, "balance": 1_000_000_000}
                    for one in self.state.users.values()
                ]
            }
        )

    def accept(self, *_: str) -> None:
        self.reply({})

    # -- tutor and lab

    def families(self) -> None:
        self.reply({"families": FAMILIES})

    def problem(self) -> None:
        chinese = self.body()["language"] == "zh"
        prompt = "解方程 $3x + 5 = 20$。" if chinese else "Solve $3x + 5 = 20$ for $x$."
        self.reply({"problem_id": self.state.new_id("p"), "prompt": prompt})

    def hint(self, _: str) -> None:
        step = min(self.body()["step"], len(HINTS) - 1)
        self.reply({"text": HINTS[step], "last": step == len(HINTS) - 1})

    def check(self, _: str) -> None:
        correct = self.body()["answer"].strip() in ("5", "x=5", "x = 5")
        self.reply({"correct": correct, "message": ""})

    def verify(self) -> None:
        steps = [
            {"text": "$2x = 16$", "verdict": "verified"},
            {"text": "So it follows.", "verdict": "unverified"},
        ]
        good = "x + y" in self.body()["text"]
        self.reply(
            {
                "verdict": "verified" if good else "unverified",
                "kind": "system" if good else None,
                "expected": "x = 8, y = 4" if good else None,
                "steps": steps if good else [],
            }
        )

    def lab_runs(self) -> None:
        self.reply({"runs": LAB_RUNS})

    def lab_run(self, key: str) -> None:
        finding = {"kind": "finding", "step": 300, "code": "x", "severity": "notice"}
        words = {"meaning": "No spike above **3 sigma**.", "advice": "Go on."}
        config = {"train": {"lr": 6e-4, "steps": 600}, "run": key}
        self.reply({"config": config, "findings": [finding | words]})

    def lab_metrics(self, key: str) -> None:
        self.reply(lab_series(key, int(self.query.get("after", "-1"))))

    def lab_samples(self, _: str) -> None:
        self.reply(
            {"steps": [0, 200, 400], "samples": lab_samples(int(self.query.get("step", "400")))}
        )

    def start_lab(self) -> None:
        self.reply({"id": "r1-zero"})


_KEY = "([^/]+)"
ROUTES = (
    ("GET", "me", "who"),
    ("GET", "challenge", "make_challenge"),
    ("POST", "register", "sign_in"),
    ("POST", "session", "sign_in"),
    ("DELETE", "session", "sign_out"),
    ("GET", "models", "models"),
    ("POST", f"models/{_KEY}/fetch", "fetch_model"),
    ("DELETE", f"models/{_KEY}/fetch", "cancel_fetch"),
    ("GET", "status", "status"),
    ("GET", "conversations", "list_conversations"),
    ("POST", "conversations", "create_conversation"),
    ("GET", f"conversations/{_KEY}", "show_conversation"),
    ("PATCH", f"conversations/{_KEY}", "rename"),
    ("DELETE", f"conversations/{_KEY}", "remove"),
    ("GET", f"conversations/{_KEY}/export", "export"),
    ("POST", f"conversations/{_KEY}/runs", "start_run"),
    ("GET", f"runs/{_KEY}/events", "events"),
    ("POST", f"runs/{_KEY}/stop", "stop_run"),
    ("GET", "keys", "list_keys"),
    ("POST", "keys", "create_key"),
    ("DELETE", f"keys/{_KEY}", "revoke_key"),
    ("GET", "usage", "usage"),
    ("GET", "balance", "balance"),
    ("GET", "admin/overview", "overview"),
    ("POST", "admin/level", "set_level"),
    ("GET", "admin/users", "list_users"),
    ("PATCH", f"admin/users/{_KEY}", "accept"),
    ("POST", f"admin/users/{_KEY}/topup", "accept"),
    ("GET", "tutor/families", "families"),
    ("POST", "tutor/problems", "problem"),
    ("POST", f"tutor/problems/{_KEY}/hint", "hint"),
    ("POST", f"tutor/problems/{_KEY}/check", "check"),
    ("POST", "tutor/verify", "verify"),
    ("GET", "lab/runs", "lab_runs"),
    ("GET", f"lab/runs/{_KEY}", "lab_run"),
    ("GET", f"lab/runs/{_KEY}/metrics", "lab_metrics"),
    ("GET", f"lab/runs/{_KEY}/samples", "lab_samples"),
    ("POST", "lab/runs", "start_lab"),
    ("POST", f"lab/runs/{_KEY}/stop", "accept"),
)


class FakeServer(ThreadingHTTPServer):
    """Starts in a thread; `url` is where it listens."""

    daemon_threads = True

    def __init__(self, mode: str = "local", port: int = 0, attacker_port: int = 9) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.state = FakeState(mode, attacker_port)
        self.requests: list[str] = []
        self.resumed_after: list[int] = []
        self.busy_seconds: int | None = None
        self.held_level: str | None = None
        self.epoch = 0
        self._headers: dict[str, dict[str, str]] = json.loads((DIST / "headers.json").read_text())
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a stream is no error."""

    def headers_for(self, path: str) -> dict[str, str]:
        """The first entry that fits; {origin} is this server as the browser sees it."""
        for pattern, headers in self._headers.items():
            if path == pattern or (pattern.endswith("*") and path.startswith(pattern[:-1])):
                return {key: value.replace("{origin}", self.url) for key, value in headers.items()}
        return {}

    def drop_streams(self) -> None:
        """Cut every open event stream, as a lost network does."""
        self.epoch += 1

    def start(self) -> "FakeServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self


if __name__ == "__main__":
    arguments = [*sys.argv[1:], "local", "8000"][:2] if len(sys.argv) < 3 else sys.argv[1:3]
    fake = FakeServer(arguments[0], int(arguments[1]))
    print(fake.url, file=sys.stderr)
    fake.serve_forever()
