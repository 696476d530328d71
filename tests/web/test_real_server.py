"""The app on the real server: the shipped model thinks, is stopped, killed, reloaded, billed."""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.web.conftest import PagesIn, ask, expect, finished
from tests.web.real_server import POCKET, RealServer

pytestmark = pytest.mark.skipif(
    not (POCKET / "model.safetensors").is_file(), reason="models/rorqual-pocket is not here"
)
LIVE = ".thinking.live .prose"
BALL = "Write a script of a yellow ball bouncing within a square, make sure to handle collision "
BALL += "detection properly. Make the square slowly rotate. Implement it in canvas JavaScript. "
BALL += "Make sure the ball stays within the square."


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    server = RealServer(tmp_path_factory.mktemp("local"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    server = RealServer(tmp_path_factory.mktemp("platform"), "platform")
    yield server
    server.close()


def last_answer(server: RealServer, page: Any) -> dict[str, Any]:
    """The server's own copy of the answer that the page shows."""
    name = page.url.rsplit("/", 1)[-1]
    cookies = {one["name"]: one["value"] for one in page.context.cookies()}
    with server.client(cookies) as http:
        return http.get(f"/api/conversations/{name}").json()["messages"][-1]


def running(server: RealServer) -> int:
    """Answers that the server counts as under way."""
    return httpx.get(f"{server.url}/api/admin/overview").json()["queue"]["running"]


def shown_thinking(page: Any) -> str:
    """The words of the thinking panel, open or not."""
    head = page.locator(".thinking-head").last
    if head.get_attribute("aria-expanded") == "false":
        head.click()
    return page.locator(".thinking-body").last.inner_text()


def squeezed(text: str) -> str:
    """Letters and digits alone: how text is laid out differs from how it was written."""
    return re.sub(r"\W", "", text)


def test_the_model_thinks_then_answers_and_a_reload_shows_the_same(
    page: Any, local: RealServer
) -> None:
    page.goto(local.url)
    with local.stepped() as step:
        ask(page, "Solve 7x-27=1.")
        step.until(page, LIVE)
        assert page.locator("[role=log]").get_attribute("aria-busy") == "true"
    finished(page)
    told = last_answer(local, page)
    assert told["reasoning"] and told["state"] == "complete"
    assert squeezed(shown_thinking(page)) == squeezed(told["reasoning"])
    before = page.locator(".thinking-head").inner_text()
    assert before.startswith("Thought for ")
    page.reload()
    finished(page)
    # The server measured it; what the page measured may differ by a round trip.
    assert page.locator(".thinking-head").inner_text().startswith("Thought for ")
    assert 0 < told["usage"]["thinking_seconds"] <= told["usage"]["seconds"]
    assert squeezed(shown_thinking(page)) == squeezed(told["reasoning"])


def test_stop_stops_the_engine_and_keeps_the_thought(page: Any, local: RealServer) -> None:
    page.goto(local.url)
    with local.stepped() as step:
        ask(page, BALL)
        step.until(page, LIVE)
        assert running(local) == 1
        page.click(".send-button.stop")
    page.wait_for_selector(".message.assistant[data-state=stopped]")
    assert running(local) == 0
    told = last_answer(local, page)
    assert told["state"] == "stopped" and told["reasoning"]
    time.sleep(0.3)
    assert last_answer(local, page) == told  # nothing is written any more


def test_a_reload_in_the_middle_of_thinking_shows_the_text_so_far_and_ends_byte_exact(
    page: Any, local: RealServer
) -> None:
    page.goto(local.url)
    with local.stepped() as step:
        ask(page, BALL)
        step.until(page, LIVE)
        run_id = last_answer(local, page)["run_id"]
        page.reload()
        page.wait_for_selector(LIVE)
        early = last_answer(local, page)
        assert early["state"] == "streaming" and not early["content"]
        seen = page.locator(".thinking-body").last.inner_text()
        assert squeezed(seen)
    finished(page)
    told = last_answer(local, page)
    assert told["reasoning"].startswith(early["reasoning"]) and early["reasoning"]
    assert squeezed(told["reasoning"]).startswith(squeezed(seen))
    with local.client() as http:
        stream = http.get(f"/api/runs/{run_id}/events").text
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
    for name in ("reasoning", "content"):
        assert "".join(event.get(name) or "" for event in events) == told[name]
    assert squeezed(shown_thinking(page)) == squeezed(told["reasoning"])
    code = re.search(r"```\w*\n(.*?)```", told["content"], re.DOTALL)
    assert code is not None
    page.wait_for_selector(".code-action.run")
    assert page.locator(".code-block code").last.inner_text().strip() == code.group(1).strip()


def test_a_program_of_the_models_own_runs_beside_its_answer(page: Any, local: RealServer) -> None:
    page.goto(local.url)
    page.click(".suggestion >> nth=0")
    finished(page)
    page.locator(".code-action.run").last.click()
    page.wait_for_selector("[data-phase=running]")
    first = page.locator(".preview-frame").screenshot()
    page.wait_for_timeout(600)
    assert page.locator(".preview-frame").screenshot() != first
    assert page.locator(".preview-error").count() == 0
    page.click("[aria-label='Preview'] [aria-label=Stop]")
    page.wait_for_selector("[data-phase=stopped]")


def test_the_tutor_verifies_by_its_solver_and_practises_with_hints(
    open_page: PagesIn, local: RealServer
) -> None:
    page = open_page(phone=True, chinese=True)
    page.goto(f"{local.url}/#/tutor")
    page.wait_for_selector(".problem .prose")
    page.fill(".problem textarea", "-987654")
    page.click(".problem .ask-row .primary")
    page.wait_for_selector(".verdict.bad")
    for _ in range(40):
        more = page.locator(".problem .row-buttons .button:not(.primary)")
        if more.count() == 0:
            break
        count = page.locator(".hints li").count()
        more.click()
        expect(page.locator(".hints li")).to_have_count(count + 1)
    solution = page.locator(".hints li").last.inner_text()
    answer = re.findall(r"-?\d+(?:/\d+)?", solution.replace("\N{MINUS SIGN}", "-"))[-1]
    page.fill(".problem textarea", answer)
    page.click(".problem .ask-row .primary")
    page.wait_for_selector(".verdict.good")

    page.click("[role=radio] >> nth=1")
    page.fill(".ask-row textarea", "6x+12=66")
    page.press(".ask-row textarea", "Enter")
    verdict = page.wait_for_selector("[data-verdict]").get_attribute("data-verdict")
    # The model may be wrong; what is shown of it may not.
    content = page.locator(".problem .answer .prose").last.inner_text()
    assert verdict == ("verified" if re.search(r"(?<!\d)9(?!\d)", content) else "wrong")


def test_lab_and_admin_read_the_real_server(page: Any, local: RealServer) -> None:
    folder = local.runs / "seen"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"train": {"learning_rate": 0.01}}')
    rows = [{"step": step, "train/loss": 6 / (step + 1), "reward": step / 40} for step in range(40)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = [
        {"step": step, "prompt": "1+1", "continuation": str(step), "correct": step == 2}
        for step in (0, 2)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    page.goto(f"{local.url}/#/lab")
    page.click("a >> text=seen")
    page.wait_for_selector(".chart >> nth=1")
    page.click("text=Samples")
    page.wait_for_selector(".sample .badge.good")
    page.goto(f"{local.url}/#/admin")
    page.wait_for_selector(".rung.current")
    page.wait_for_selector("text=rorqual-pocket")
    page.click(".rung >> nth=3")
    page.wait_for_selector(".rung.current >> text=Queue only")
    page.click("text=Automatic")
    page.wait_for_selector(".rung.current >> text=Normal")


def sign_up(page: Any, server: RealServer, name: str) -> None:
    """Through the page: the proof of work is found by the page's own worker."""
    page.goto(server.url)
    page.click("text=Sign in to chat")
    page.click("text=I have no account yet")
    page.fill("[name=username]", name)
    page.fill("[name=password]", f"correct horse {name}")
    page.click("button >> text=Create an account")
    page.wait_for_selector(f".who >> text={name}")


def test_a_newcomer_signs_up_makes_a_key_calls_the_api_by_curl_and_sees_what_it_cost(
    page: Any, platform: RealServer
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.method} {request.url}"))
    sign_up(page, platform, "ada")
    assert any("/api/challenge?for=register" in one for one in asked)
    page.click(".who")
    page.click("[role=menuitem]")
    page.click(".sidebar-foot >> text=Sign in")
    page.fill("[name=username]", "ada")
    page.fill("[name=password]", "correct horse ada")
    page.press("[name=password]", "Enter")
    page.wait_for_selector(".who >> text=ada")

    page.goto(f"{platform.url}/#/account")
    page.wait_for_selector(".stat >> text=US$2.00")
    page.click("text=New key")
    page.fill("dialog input >> nth=0", "laptop")
    page.click("dialog .primary")
    secret = page.wait_for_selector(".secret code").inner_text()
    page.click("dialog [aria-label=Close]")
    command = page.locator(".code-block code").inner_text()
    assert secret in command
    done = subprocess.run(
        [*shlex.split(command.replace("\\\n", " ")), "--silent", "--show-error"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.rstrip().endswith("data: [DONE]")
    assert '"content"' in done.stdout

    page.reload()
    cells = page.wait_for_selector(".table tbody tr").inner_text().split("\t")
    assert cells[1:3] == ["rorqual-pocket", "1"]
    with platform.platform() as books:
        user = books.accounts.by_name("ada")
        (row,) = books.usage.by_day(user.id, "2000-01-01", "2999-01-01")
        balance = books.ledger.balance(user.id)
        assert balance.available_nano == 2 * 10**9 - row.charge_nano
        assert row.charge_nano > 0 and balance.reserved_nano == 0
        assert books.usage.audit() == []
    spent = page.locator(".stat").last.inner_text()
    assert float(re.findall(r"[\d.]+$", spent.strip())[0]) == pytest.approx(
        row.charge_nano / 1e9, rel=0.1
    )


def test_a_server_killed_in_the_middle_of_an_answer_keeps_the_text_and_bills_it(
    page: Any, platform: RealServer
) -> None:
    sign_up(page, platform, "grace")
    with platform.stepped() as step:
        ask(page, BALL)
        step.until(page, ".answer .code-block", 0.008)
        early = last_answer(platform, page)
        platform.kill()
    assert early["state"] == "streaming" and early["content"]
    page.wait_for_selector("text=Reconnecting")
    assert page.locator(".answer .code-block").count() == 1  # what was shown stays
    platform.start()
    page.wait_for_selector(".message.assistant[data-state=interrupted]", timeout=60_000)
    page.wait_for_selector("text=Interrupted: the server stopped in the middle")
    told = last_answer(platform, page)
    assert told["state"] == "interrupted"
    assert told["content"].startswith(early["content"])
    assert told["reasoning"] == early["reasoning"]
    shown = page.locator(".code-block code").last.inner_text()
    assert squeezed(shown) == squeezed(told["content"].partition("\n")[2])
    with platform.platform() as books:
        user = books.accounts.by_name("grace")
        balance = books.ledger.balance(user.id)
        (row,) = books.usage.by_day(user.id, "2000-01-01", "2999-01-01")
        assert balance.reserved_nano == 0
        assert balance.available_nano == 2 * 10**9 - row.charge_nano
        assert row.counts.output_tokens > 0 and row.counts.reasoning_tokens > 0
        assert books.usage.audit() == []
    # Whoever goes on gets a whole answer.
    page.click("[aria-label=Regenerate]")
    finished(page)
    page.wait_for_selector(".message.assistant .branches >> text=2/2")


def test_nothing_of_one_account_is_another_s(open_page: PagesIn, platform: RealServer) -> None:
    mine, other = open_page(), open_page()
    sign_up(mine, platform, "alan")
    ask(mine, "What is 38 + 47?")
    finished(mine)
    sign_up(other, platform, "eve")
    told = last_answer(platform, mine)
    conversation = mine.url.rsplit("/", 1)[-1]
    cookies = {one["name"]: one["value"] for one in mine.context.cookies()}
    with platform.client(cookies) as http:
        key = http.post("/api/keys", json={"name": "alan's"}).json()["id"]
        problem = http.post("/api/tutor/problems", json={"family": "equations", "level": 1}).json()[
            "problem_id"
        ]
    body = {"parent_id": told["id"], "content": "and now?", "thinking": False}
    rows: list[tuple[str, str, object]] = [
        ("GET", f"/api/conversations/{conversation}", None),
        ("PATCH", f"/api/conversations/{conversation}", {"title": "mine now"}),
        ("DELETE", f"/api/conversations/{conversation}", None),
        ("GET", f"/api/conversations/{conversation}/export?format=json", None),
        ("GET", f"/api/conversations/{conversation}/export?format=markdown", None),
        ("POST", f"/api/conversations/{conversation}/runs", body),
        ("GET", f"/api/runs/{told['run_id']}/events", None),
        ("POST", f"/api/runs/{told['run_id']}/stop", {}),
        ("DELETE", f"/api/keys/{key}", None),
        ("POST", f"/api/tutor/problems/{problem}/hint", {"step": 0}),
        ("POST", f"/api/tutor/problems/{problem}/check", {"answer": "1"}),
    ]
    stolen = {one["name"]: one["value"] for one in other.context.cookies()}
    with platform.client(stolen) as http:
        got = {
            f"{method} {path}": http.request(method, path, json=content).status_code
            for method, path, content in rows
        }
        assert got == dict.fromkeys(got, 404)
        assert http.get("/api/conversations?query=38").json()["items"] == []
        assert http.get("/api/keys").json()["keys"] == []
        for method, path, content in (
            ("GET", "/api/admin/overview", None),
            ("GET", "/api/admin/users", None),
            ("POST", "/api/admin/level", {"level": "closed"}),
            ("POST", "/api/lab/runs", {"preset": "tiny", "overrides": []}),
        ):
            assert http.request(method, path, json=content).status_code == 403, path
        foreign = {"Origin": "http://attacker.example", "Sec-Fetch-Site": "cross-site"}
        assert http.post("/api/keys", json={"name": "x"}, headers=foreign).status_code == 403
        assert (
            http.post("/api/keys", json={"name": "x"}, headers={"X-Rorqual": ""}).status_code == 403
        )
    with httpx.Client(base_url=platform.url) as stranger:
        assert stranger.get(f"/api/conversations/{conversation}").status_code == 401
    other.goto(f"{platform.url}/#/c/{conversation}")
    other.wait_for_selector("text=does not exist, or is not yours")
    other.goto(f"{platform.url}/#/admin")
    other.wait_for_selector("text=For administrators only")
    assert last_answer(platform, mine) == told


def test_about_shows_whose_signature_the_model_carries(page: Any, local: RealServer) -> None:
    with local.client() as http:
        (model,) = http.get("/.well-known/release.json").json()["models"]
    page.goto(f"{local.url}/#/about")
    page.wait_for_selector(".fingerprint")
    shown = page.locator(".fingerprint").all_inner_texts()
    assert shown == [model["signature"]["digest"], model["signature"]["fingerprint"]]
    assert page.locator(f"text={model['signature']['label']}").is_visible()
