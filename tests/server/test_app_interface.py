"""The app's interface: conversations, durable runs, tutor, lab, pages."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from rorqual.checkpoint import record_end
from tests.server.conftest import MODEL, Running, ServerFactory
from tests.server.scripted import ScriptRunner, make_tokenizer

CHANGE = {"x-rorqual": "1"}
ANSWERS = {"think": "<think>\nSix sevens.\n</think>\n\nIt is 42."}


@pytest.fixture(scope="module")
def server(start_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Running:
    folder: Path = tmp_path_factory.mktemp("runs")
    run = folder / "tiny"
    run.mkdir()
    (run / "config.json").write_text('{"train": {"seed": 1}}')
    rows = [{"step": s, "loss": 5.0 - s} for s in (1, 2, 3)]
    rows.append({"kind": "finding", "step": 3, "code": "flat"})
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"ste')
    (run / "samples.jsonl").write_text('{"step": 3, "prompt": "Once", "continuation": " upon"}\n')
    (folder / "secret.txt").write_text("no")
    web = tmp_path_factory.mktemp("web")
    (web / "index.html").write_text("<title>Rorqual</title>")
    (web / "preview.html").write_text("<script>1</script>")
    (web / "assets").mkdir()
    (web / "assets" / "app-1.js").write_text("1")
    (web / "pyodide").mkdir()
    (web / "pyodide" / "x.wasm").write_bytes(b"\0asm")
    return start_server(ANSWERS, lab={"runs_folder": str(folder)}, http={"web_folder": str(web)})


def post(http, path: str, **fields: object):
    return http.post(path, json=fields, headers=CHANGE)


def events_of(text: str) -> list[tuple[int, str, dict]]:
    """(id, event, data) of a stream."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
    return found


def new_run(http, content: str | None = "think", **fields: object) -> tuple[str, dict]:
    name = post(http, "/api/conversations").json()["id"]
    made = post(http, f"/api/conversations/{name}/runs", content=content, model=MODEL, **fields)
    assert made.status_code == 202, made.text
    return name, made.json()


def test_a_run_is_read_whole_again_and_from_the_middle(server: Running) -> None:
    with server.http as http:
        name, made = new_run(http)
        path = f"/api/runs/{made['run_id']}/events"
        first = events_of(http.get(path).text)
        assert [number for number, _, _ in first] == list(range(1, len(first) + 1))
        assert first[0][1] == "start" and first[-1][1] == "end"
        deltas = [data for _, kind, data in first if kind == "delta"]
        assert "".join(d.get("reasoning", "") for d in deltas) == "Six sevens."
        assert "".join(d.get("content", "") for d in deltas) == "It is 42."
        assert first[-1][2]["state"] == "complete" and first[-1][2]["usage"]["reasoning_tokens"]
        again = events_of(http.get(path, headers={"last-event-id": "2"}).text)
        assert again == first[2:]
        assert events_of(http.get(path, params={"after": str(len(first))}).text) == []
        asked, answer = http.get(f"/api/conversations/{name}").json()["messages"]
    assert asked["content"] == "think" and answer["parent_id"] == asked["id"]
    assert (answer["content"], answer["reasoning"]) == ("It is 42.", "Six sevens.")
    assert answer["state"] == "complete" and answer["model"] == MODEL
    assert answer["usage"]["completion_tokens"] > 0


def test_an_answer_is_regenerated_and_a_question_edited(server: Running) -> None:
    with server.http as http:
        name, made = new_run(http)
        http.get(f"/api/runs/{made['run_id']}/events")
        asked = made["user_message"]["id"]
        runs = f"/api/conversations/{name}/runs"
        again = post(http, runs, parent_id=asked, content=None)
        assert again.status_code == 202 and again.json()["user_message"] is None
        http.get(f"/api/runs/{again.json()['run_id']}/events")
        edited = post(http, runs, parent_id=None, content="another question").json()
        http.get(f"/api/runs/{edited['run_id']}/events")
        messages = http.get(f"/api/conversations/{name}").json()["messages"]
        assert [m["parent_id"] for m in messages].count(asked) == 2
        assert [m["parent_id"] for m in messages].count(None) == 2
        wrong = post(http, runs, parent_id=asked, content="under a question")
        missing = post(http, runs, parent_id="msg_x", content="x")
        empty = post(http, runs, content="  ")
    assert [a.status_code for a in (wrong, missing, empty)] == [400, 404, 400]


def test_a_run_goes_on_without_readers_and_stops_when_told(start_server: ServerFactory) -> None:
    permits = threading.Semaphore(30)  # steps that go fast; later ones are slow
    tokenizer = make_tokenizer()
    runner = ScriptRunner(tokenizer, {}, pause=lambda: permits.acquire(timeout=0.25) and None)
    server = start_server(runner=runner)
    with server.http as http:
        long = "The whale sings. " * 40
        runner.answers["sing"] = long
        name, made = new_run(http, "sing", thinking=False)
        run = made["run_id"]
        for _ in range(200):
            shown = http.get(f"/api/conversations/{name}").json()["messages"][1]
            if len(shown["content"]) > 5:
                break
            time.sleep(0.05)
        assert shown["state"] == "streaming" and shown["content"]
        stopped = post(http, f"/api/runs/{run}/stop")
        assert stopped.json() == {"state": "stopped"}
        assert post(http, f"/api/runs/{run}/stop").json() == {"state": "stopped"}
        assert server.platform.admission.stats().num_running == 0
        kept = http.get(f"/api/conversations/{name}").json()["messages"][1]
        assert kept["state"] == "stopped" and long.startswith(kept["content"]) and kept["content"]
        end = events_of(http.get(f"/api/runs/{run}/events").text)[-1]
        assert end[1] == "end" and end[2]["state"] == "stopped"


def test_conversations_are_listed_searched_renamed_exported_deleted(server: Running) -> None:
    with server.http as http:
        name, made = new_run(http, 'a 50% "rare" question')
        http.get(f"/api/runs/{made['run_id']}/events")
        path = f"/api/conversations/{name}"
        for words in ('"rare"', "50%", "RARE"):
            items = http.get("/api/conversations", params={"query": words}).json()["items"]
            assert [item["id"] for item in items] == [name], words
        assert http.get("/api/conversations", params={"query": "5_%"}).json()["items"] == []
        assert items[0]["title"] == 'a 50% "rare" question' and items[0]["model"] == MODEL
        assert http.patch(path, json={"title": "New"}, headers=CHANGE).json()["title"] == "New"
        shown = http.get(f"{path}/export", params={"format": "markdown"})
        assert (
            shown.text.startswith("# New") and "attachment" in shown.headers["content-disposition"]
        )
        assert http.get(f"{path}/export").json()["messages"]
        assert http.delete(path, headers=CHANGE).status_code == 204
        assert http.get(path).status_code == 404


def test_pages_of_the_list_follow_each_other(server: Running) -> None:
    with server.http as http:
        made = {post(http, "/api/conversations", title=f"t{i}").json()["id"] for i in range(60)}
        seen: list[str] = []
        cursor = ""
        while True:
            page = http.get("/api/conversations", params={"cursor": cursor} if cursor else {})
            seen += [item["id"] for item in page.json()["items"]]
            cursor = page.json()["cursor"]
            if not cursor:
                break
        assert made <= set(seen) and len(seen) == len(set(seen))
        assert http.get("/api/conversations", params={"cursor": "x"}).status_code == 400


def test_the_app_learns_who_and_what(server: Running) -> None:
    with server.http as http:
        me = http.get("/api/me").json()
        assert me["mode"] == "local" and me["user"]["role"] == "admin"
        model, *others = http.get("/api/models").json()["models"]
        assert all(other["fetchable"] for other in others)
        assert model["id"] == MODEL and model["default"] and model["loaded"] and model["thinking"]
        assert http.get("/api/status").json()["engine"] == "ready"
        assert http.get("/ready").json()["status"] == "ready"


def test_the_tutor_asks_hints_and_checks(server: Running) -> None:
    with server.http as http:
        families = http.get("/api/tutor/families").json()["families"]
        assert all(family["title"]["zh"] and family["levels"] for family in families)
        for family in families:
            asked = post(
                http, "/api/tutor/problems", family=family["name"], level=1, language="en"
            ).json()
            one = f"/api/tutor/problems/{asked['problem_id']}"
            solution = post(http, f"{one}/hint", step=999).json()
            assert solution["last"]
            assert post(http, f"{one}/check", answer=solution["text"]).json()["correct"] is True
            assert post(http, f"{one}/check", answer="-77777").json()["correct"] is False
        assert post(http, f"{one}/check", answer=" ").json()["correct"] is None
        assert post(http, "/api/tutor/problems", family="no", level=1).status_code == 400


def test_the_lab_tells_a_finished_run_from_a_stopped_one(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    ends = {"whole": "done", "cut": "SIGTERM", "budget": "time budget", "killed": None}
    for name, ended in ends.items():
        run = tmp_path / name
        run.mkdir()
        (run / "config.json").write_text('{"train": {}}')
        (run / "metrics.jsonl").write_text('{"kind": "step", "step": 1}\n')
        (run / "report.html").write_text("written as the run goes")
        os.utime(run / "metrics.jsonl", (0, 0))
        if ended:
            record_end(run, ended)
    with start_server(ANSWERS, lab={"runs_folder": str(tmp_path)}).http as http:
        states = {run["id"]: run["state"] for run in http.get("/api/lab/runs").json()["runs"]}
    assert states == {"whole": "done", "cut": "stopped", "budget": "done", "killed": "stopped"}


def test_the_lab_shows_runs_and_nothing_beside_them(server: Running) -> None:
    with server.http as http:
        (run,) = http.get("/api/lab/runs").json()["runs"]
        assert (run["id"], run["kind"], run["step"]) == ("tiny", "train", 3)
        assert run["state"] == "running"  # its log is fresh
        series = http.get("/api/lab/runs/tiny/metrics", params={"after": 1}).json()["series"]
        assert series == {"loss": [[2, 3.0], [3, 2.0]]}
        shown = http.get("/api/lab/runs/tiny").json()
        assert shown["findings"][0]["code"] == "flat" and shown["config"]["train"] == {"seed": 1}
        samples = http.get("/api/lab/runs/tiny/samples").json()
        assert samples["steps"] == [3] and samples["samples"][0]["text"] == " upon"
        for name in ("..", "secret.txt", "%2e%2e", "..%2f..", "tiny~..", "/etc"):
            assert http.get(f"/api/lab/runs/{name}/metrics").status_code in (404, 400), name
        assert post(http, "/api/lab/runs", preset="tiny", overrides=[]).status_code == 400


def test_pages_have_their_policies(server: Running) -> None:
    with server.http as http:
        page = http.get("/")
        assert "Rorqual" in page.text and http.get("/chat/some-view").text == page.text
        policy = page.headers["content-security-policy"]
        assert "require-trusted-types-for 'script'" in policy and "unsafe" not in policy
        preview = http.get("/preview").headers["content-security-policy"]
        assert preview.startswith("sandbox allow-scripts;") and "same-origin" not in preview
        assert http.get("/preview.html").status_code == 404
        script = http.get("/assets/app-1.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert "immutable" in script.headers["cache-control"]
        again = http.get("/", headers={"if-none-match": page.headers["etag"]})
        assert again.status_code == 304
        assert http.get("/pyodide/x.wasm").headers["access-control-allow-origin"] == "*"
        for path in (
            "/../secret.txt",
            "/assets/../../x.js",
            "/%2e%2e/etc/passwd.txt",
            "/api/nothing",
        ):
            assert http.get(path).status_code == 404, path
