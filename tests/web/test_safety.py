"""What must not happen: scripts from answers, and programs that leave their sandbox."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.web.conftest import Attacker, PagesIn, ask, expect, finished
from tests.web.fake_server import FakeServer
from tests.web.recorded import XSS

FOLDER = Path(__file__).parent
PROBES: dict[str, str] = tomllib.loads((FOLDER / "probes.toml").read_text("utf-8"))
HTML_PROBE = (FOLDER / "escape.html").read_text("utf-8")
POLICY = (
    "default-src 'self'",
    "script-src 'self'",
    "object-src 'none'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "frame-src 'self'",
    "require-trusted-types-for 'script'",
)


def test_nothing_in_an_answer_thought_or_title_runs_or_loads(
    page: Any, fake: FakeServer, attacker: Attacker
) -> None:
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    fake.state.create(XSS.replace("{port}", str(attacker.port)))
    page.goto(fake.url)
    ask(page, "XSS: show me <img src=x onerror=window.pwned=99> **bold**")
    answer = finished(page)
    answer.locator(".thinking-head").click()
    page.wait_for_selector(".thinking-body .code-block")
    page.wait_for_timeout(700)
    assert page.evaluate("window.pwned") is None
    assert page.locator("main :is(script, iframe, object, embed, style, link, img)").count() == 0
    hrefs = page.eval_on_selector_all(".prose a", "all => all.map(a => a.href)")
    assert hrefs
    assert all(href.startswith(("http://", "https://", "mailto:")) for href in hrefs)
    attributes = page.evaluate(
        "[...document.querySelectorAll('main *')]"
        ".flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))"
    )
    assert attributes == []
    assert [url for url in loaded if not url.startswith(fake.url)] == []
    assert attacker.hits == []


def test_the_page_is_served_under_the_strict_policy(open_page: PagesIn, base_url: str) -> None:
    page = open_page(strict=False)
    headers = page.goto(base_url).headers
    policy = headers["content-security-policy"]
    for part in POLICY:
        assert part in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    page.wait_for_selector("#app .shell")
    setting = "document.body.innerHTML = '<b>x</b>'"
    tried = f"(() => {{ try {{ {setting}; return 'set' }} catch (e) {{ return e.name }} }})()"
    assert page.evaluate(tried) == "TypeError"


def test_a_canvas_program_finds_no_way_out(page: Any, fake: FakeServer, attacker: Attacker) -> None:
    program = "const tell = console.log;\n" + "\n".join(
        f"{{ const log = what => tell({json.dumps(name)} + ': ' + what);\n"
        f"try {{ {code} }} catch (e) {{ log('blocked') }} }}"
        for name, code in PROBES.items()
    )
    program = program.replace("{port}", str(attacker.port)).replace("{origin}", fake.url)
    said = run_program(page, fake, "javascript", program, len(PROBES))
    assert {name: said.get(name) for name in PROBES} == dict.fromkeys(PROBES, "blocked")
    assert attacker.hits == []
    assert not any(request.endswith("/api/secret") for request in fake.requests)


def run_program(
    page: Any, fake: FakeServer, language: str, program: str, num_lines: int
) -> dict[str, str]:
    """Run it beside a message; the lines `name: result` that it prints."""
    page.goto(fake.url)
    ask(page, f"CODE:{language}\n{program}")
    finished(page)
    page.click(".code-action.run")
    output = page.locator(".preview-output")
    for _ in range(100):
        lines = output.inner_text().splitlines() if output.count() else []
        if len(lines) >= num_lines:
            break
        page.wait_for_timeout(100)
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def test_a_whole_page_runs_only_on_a_click_and_reaches_nothing(
    open_page: PagesIn, fake: FakeServer, attacker: Attacker
) -> None:
    page = open_page(strict=False)  # what it tries is reported as violations, as it should be
    page.goto(fake.url)
    ask(page, "CODE:html\n" + HTML_PROBE.replace("{port}", str(attacker.port)))
    finished(page)
    page.click(".code-action.run")
    page.wait_for_selector(".preview-idle")
    assert page.locator(".preview-frame").count() == 0
    page.click(".preview-idle .button")
    page.wait_for_selector(".preview-frame")
    page.wait_for_timeout(1500)
    # A navigation that the policy stops still opens an empty connection: Chromium dials ahead of
    # the check. Nothing is sent over it. The app says so before such a page runs.
    assert [hit for hit in attacker.hits if hit != "tcp"] == []
    assert len(page.context.pages) == 1
    assert page.url.startswith(fake.url)


@pytest.mark.parametrize(
    "loop", ["while (true) {}", "requestAnimationFrame(function f() { while (true) {} })"]
)
def test_an_endless_loop_blocks_neither_the_page_nor_the_next_program(
    page: Any, fake: FakeServer, loop: str
) -> None:
    page.goto(fake.url)
    ask(page, f"CODE:javascript\n{loop}")
    finished(page)
    page.click(".code-action.run")
    page.wait_for_selector("[data-phase=running]")
    page.click("[aria-label='Preview'] [aria-label=Stop]")
    page.wait_for_selector("[data-phase=stopped]", timeout=2000)
    ask(page, "CODE:javascript\nconsole.log('next: fine')")
    expect(page.locator(".message.assistant[data-state=complete]")).to_have_count(2)
    page.locator(".code-action.run").last.click()
    page.wait_for_selector(".preview-output >> text=next: fine")


def test_an_error_goes_back_to_the_model_on_a_click(page: Any, fake: FakeServer) -> None:
    page.goto(fake.url)
    ask(page, "CODE:javascript\nctx.fillRect(0, 0, 9, 9);\nmissing();")
    finished(page)
    page.click(".code-action.run")
    error = page.wait_for_selector(".preview-error pre").inner_text()
    assert error == "ReferenceError: missing is not defined (line 2)"
    page.click("text=Ask the model to fix it")
    expect(page.locator(".message.user")).to_have_count(2)
    assert "missing is not defined" in page.locator(".message.user").last.inner_text()


@pytest.mark.parametrize("origin", ["null", "http://attacker.example"])
def test_a_foreign_window_cannot_speak_as_the_preview(
    page: Any, fake: FakeServer, origin: str
) -> None:
    """The port goes to the app's own frame alone, whatever an event says of its origin."""
    page.route(
        "**/preview", lambda route: route.fulfill(body="<p>silent</p>", content_type="text/html")
    )
    page.goto(f"{fake.url}/#/examples")
    page.click(".example >> nth=0 >> .button.primary")
    page.wait_for_selector(".preview-frame")
    answered = page.evaluate(
        """origin => new Promise(resolve => {
          const channel = new MessageChannel();
          channel.port1.onmessage = () => resolve('answered');
          addEventListener('message', event => {
            if (event.data === 'rorqual-preview-port') resolve('got a port');
          });
          const ports = [channel.port2];
          const fields = {data: 'rorqual-preview-hello', origin, source: window, ports};
          dispatchEvent(new MessageEvent('message', fields));
          setTimeout(() => resolve('silence'), 400);
        })""",
        origin,
    )
    assert answered == "silence"
    assert page.locator("[data-phase=loading]").count() == 1
