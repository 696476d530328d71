"""A browser, a server to look at, and pages in every dress.

Without RORQUAL_TEST_URL the pages are looked at on the fake server of this folder; with it on the
server that runs there, and tests that need recorded streams are skipped.
"""

import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.fake_server import DIST, FakeServer

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
_PATIENCE_MS = 60_000  # a busy machine is slow; a page that waits in vain still fails
expect.set_options(timeout=_PATIENCE_MS)
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
BUILT = (DIST / "headers.json").is_file()
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser or a built app there is nothing to look at."""
    missing = None if BUILT else "web/dist is not built: npm run build in web/"
    missing = missing if Path(CHROMIUM).is_file() else "no Chromium on this machine"
    for item in items:
        if (
            missing
            and "web" in Path(item.fspath).parts
            and "page" in getattr(item, "fixturenames", [])
        ):
            item.add_marker(pytest.mark.skip(reason=missing))


class Attacker:
    """Counts connections and datagrams at a port that no page may reach."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()
        threading.Thread(target=self._receive, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                try:
                    self.hits.append(
                        "tcp " + connection.recv(200).decode("latin-1").split("\r\n")[0]
                    )
                except OSError:
                    self.hits.append("tcp")

    def _receive(self) -> None:
        while True:
            try:
                self._udp.recvfrom(2048)
            except OSError:
                return
            self.hits.append("udp")

    def close(self) -> None:
        self._tcp.close()
        self._udp.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        launched = engine.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def attacker() -> Iterator[Attacker]:
    listening = Attacker()
    yield listening
    listening.close()


@pytest.fixture
def fake(attacker: Attacker) -> Iterator[FakeServer]:
    if "RORQUAL_TEST_URL" in os.environ:
        pytest.skip("needs the fake server's recorded streams")
    server = FakeServer(attacker_port=attacker.port).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def base_url(request: pytest.FixtureRequest) -> str:
    """Where the app is."""
    return os.environ.get("RORQUAL_TEST_URL") or request.getfixturevalue("fake").url


PagesIn = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[PagesIn]:
    """`open_page(phone=..., dark=..., chinese=...)`: a page of a fresh visitor. Any uncaught error
    or policy violation on it fails the test, unless `strict=False`."""
    contexts: list[Any] = []
    troubles: list[str] = []

    def open_one(
        phone: bool = False, dark: bool = False, chinese: bool = False, strict: bool = True
    ) -> Any:
        context = browser.new_context(
            viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 820},
            has_touch=phone,
            is_mobile=phone,
            color_scheme="dark" if dark else "light",
            locale="zh-CN" if chinese else "en-GB",
            service_workers="block",
        )
        context.set_default_timeout(_PATIENCE_MS)
        contexts.append(context)
        one = context.new_page()
        if strict:
            one.on("pageerror", lambda error: troubles.append(f"error: {error.message}"))
            one.on("console", lambda message: note(message))
        return one

    def note(message: Any) -> None:
        if message.type == "error" and (
            "Content Security" in message.text or "Trusted" in message.text
        ):
            troubles.append(message.text)

    yield open_one
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def page(open_page: PagesIn) -> Any:
    """A desktop page, light, English."""
    return open_page()


def ask(page: Any, prompt: str) -> None:
    """Type a message and send it."""
    page.fill(".composer textarea", prompt)
    page.press(".composer textarea", "Enter")


def finished(page: Any) -> Any:
    """The last answer once it is complete."""
    page.wait_for_selector(".message.assistant[data-state=complete] >> nth=-1")
    return page.locator(".message.assistant").last


def axe_violations(page: Any) -> list[str]:
    """What axe finds against WCAG A and AA."""
    source = (DIST.parent / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")
    # Playwright evaluates outside the page's policy, so nothing has to be loosened for it.
    page.evaluate(source)
    found = page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})"
        ".then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 160))]))"
        ".then(JSON.stringify)"
    )
    return [f"{name}: {nodes[:3]}" for name, nodes in json.loads(found)]
