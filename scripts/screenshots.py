"""Pictures of the app's main pages in eight dresses, from a real server over the shipped model.

python scripts/screenshots.py OUT: desktop and phone, English and Chinese, light and dark, each page
once. The Lab shows the runs of RUNS (second argument, default runs/) if there are any. With --docs
only the pictures that the READMEs show: python scripts/screenshots.py docs/img RUNS --docs.
"""

import argparse
import contextlib
import itertools
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL = REPOSITORY / "models" / "rorqual-pocket"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
PATIENCE_MS = 180_000
Shot = Callable[[Any], None]


@contextlib.contextmanager
def served(runs: Path) -> Iterator[str]:
    """The address of a server of our own, with an empty database."""
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        settings = Path(name) / "server.toml"
        settings.write_text(
            f'[http]\nport = {port}\n[database]\nurl = "sqlite:///{name}/server.db"\n'
            f'[lab]\nruns_folder = "{runs.resolve()}"\n'
        )
        command = [sys.executable, "-m", "rorqual.cli.main", "serve", str(MODEL)]
        with (Path(name) / "log").open("wb") as log:
            process = subprocess.Popen([*command, "--config", str(settings)], stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/ready", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Returns when the server has loaded its model."""
    until = time.monotonic() + 600
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError):
            if urllib.request.urlopen(url).status == 200:
                return
        time.sleep(0.3)
    sys.exit("the server does not start")


def ask(page: Any, prompt: str) -> None:
    page.fill(".composer textarea", prompt)
    page.press(".composer textarea", "Enter")
    page.wait_for_selector(".message.assistant[data-state=complete]")


def problem(page: Any) -> str:
    """One in the language of the page."""
    chinese = page.evaluate("document.documentElement.lang") == "zh-CN"
    return "解方程6x+12=66。" if chinese else "Solve 6x+12=66 for x."


def thinking(page: Any, prompt: str | None = None) -> None:
    """An answer with its thinking open."""
    ask(page, prompt or problem(page))
    page.click(".thinking-head")
    page.wait_for_selector(".thinking-body .prose")


def search(page: Any) -> None:
    """A problem that takes some trying."""
    thinking(page, "Make 32 from 1, 9, 4 with + - × ÷, each number at most once.")


def preview(page: Any, suggestion: int = 0) -> None:
    """The model's own program, running beside it."""
    page.click(f".suggestion >> nth={suggestion}")
    page.wait_for_selector(".message.assistant[data-state=complete]")
    page.locator(".code-action.run").last.click()
    page.wait_for_selector("[data-phase=running]")
    page.wait_for_timeout(1500)


def python(page: Any) -> None:
    """The same in Python."""
    preview(page, 1)


def tutor(page: Any) -> None:
    """A problem of one's own, judged."""
    page.click("[role=radio] >> nth=1")
    page.fill(".ask-row textarea", problem(page))
    page.press(".ask-row textarea", "Enter")
    page.wait_for_selector("[data-verdict]")


def practice(page: Any) -> None:
    page.wait_for_selector(".problem .prose")
    page.click(".problem .row-buttons .button")
    page.wait_for_selector(".hints li")


def example(page: Any) -> None:
    page.click(".example >> nth=0 >> .button.primary")
    page.wait_for_selector("[data-phase=running]")
    page.wait_for_timeout(1500)


def curves(page: Any) -> None:
    """The oldest run that learns by reinforcement, or else the first, if there is one."""
    page.wait_for_timeout(500)
    runs = page.locator("main a[href*='#/lab/']")
    reinforced = runs.filter(has_text=re.compile("reinforcement|强化"))
    if runs.count():
        (reinforced.last if reinforced.count() else runs.first).click()
        page.wait_for_selector(".chart")
        page.fill(".controls input[type=range]", "0.8")


def still(page: Any) -> None:
    page.wait_for_timeout(500)


PAGES: dict[str, tuple[str, Shot]] = {
    "empty": ("", still),
    "thinking": ("", thinking),
    "preview": ("", preview),
    "tutor": ("tutor", tutor),
    "practice": ("tutor", practice),
    "examples": ("examples", example),
    "lab": ("lab", curves),
    "compare": ("compare", still),
    "account": ("account", still),
    "admin": ("admin", still),
    "status": ("status", still),
    "about": ("about", still),
}


# What the READMEs show, each in one dress: file, page, what to do, phone, Chinese.
DOCS: tuple[tuple[str, str, Shot, bool, bool], ...] = (
    ("app-thinking", "", search, False, False),
    ("chat", "", python, False, False),
    ("app-lab", "lab", curves, False, False),
    ("app-phone", "", thinking, True, False),
    ("app-preview", "", preview, False, True),
    ("app-tutor", "tutor", tutor, False, True),
)


@dataclass(frozen=True)
class Dress:
    """What the visitor sees it on, in which language, by which light."""

    phone: bool
    chinese: bool
    dark: bool

    def __str__(self) -> str:
        device, light = "phone" if self.phone else "desktop", "dark" if self.dark else "light"
        return f"{device}-{'zh' if self.chinese else 'en'}-{light}"


def picture(browser: Any, url: str, shoot: Shot, dress: Dress, path: Path) -> None:
    """One page for a fresh visitor."""
    context = browser.new_context(
        viewport={"width": 390, "height": 844} if dress.phone else {"width": 1280, "height": 820},
        has_touch=dress.phone,
        is_mobile=dress.phone,
        color_scheme="dark" if dress.dark else "light",
        locale="zh-CN" if dress.chinese else "en-GB",
        service_workers="block",
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(":is(.page, .empty-state)")
    shoot(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    context.close()
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="?", default=REPOSITORY / "runs")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--pages", nargs="+", choices=PAGES, help="all, if left out")
    chosen.add_argument("--docs", action="store_true", help="the pictures of the READMEs instead")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or "/usr/bin/chromium"
    with served(given.runs) as url, sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        if given.docs:
            for name, route, shoot, phone, chinese in DOCS:
                path = given.out / f"{name}.png"
                picture(browser, f"{url}/#/{route}", shoot, Dress(phone, chinese, False), path)
        else:
            for flags in itertools.product((False, True), repeat=3):
                dress = Dress(*flags)
                for name in given.pages or PAGES:
                    route, shoot = PAGES[name]
                    path = given.out / f"{name}-{dress}.png"
                    picture(browser, f"{url}/#/{route}", shoot, dress, path)
        browser.close()


if __name__ == "__main__":
    main()
