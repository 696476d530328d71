"""Pictures of the app's main pages in eight dresses, from a real server over the shipped model.

python scripts/screenshots.py OUT: desktop and phone, English and Chinese, light and dark, each page
once. The Lab shows the runs of RUNS (second argument, default runs/) if there are any.
"""

import argparse
import contextlib
import itertools
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
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
    return "解方程 6x+12=66" if chinese else "Solve 6x+12=66 for x."


def thinking(page: Any) -> None:
    """An answer with its thinking open."""
    ask(page, problem(page))
    page.click(".thinking-head")
    page.wait_for_selector(".thinking-body .prose")


def preview(page: Any) -> None:
    """The model's own program, running beside it."""
    page.click(".suggestion >> nth=0")
    page.wait_for_selector(".message.assistant[data-state=complete]")
    page.locator(".code-action.run").last.click()
    page.wait_for_selector("[data-phase=running]")
    page.wait_for_timeout(1500)


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
    """The first run, if there is one."""
    page.wait_for_timeout(500)
    runs = page.locator("main a[href*='#/lab/']")
    if runs.count():
        runs.first.click()
        page.wait_for_selector(".chart")


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


def picture(
    browser: Any, url: str, given: argparse.Namespace, phone: bool, chinese: bool, dark: bool
) -> None:
    """Every page in one dress, each for a fresh visitor."""
    dress = "-".join(
        ("phone" if phone else "desktop", "zh" if chinese else "en", "dark" if dark else "light")
    )
    for name in given.pages or PAGES:
        route, shoot = PAGES[name]
        context = browser.new_context(
            viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 820},
            has_touch=phone,
            is_mobile=phone,
            color_scheme="dark" if dark else "light",
            locale="zh-CN" if chinese else "en-GB",
            service_workers="block",
        )
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(f"{url}/#/{route}")
        page.wait_for_selector(":is(.page, .empty-state)")
        shoot(page)
        page.mouse.move(0, 0)
        page.wait_for_timeout(300)
        page.screenshot(path=given.out / f"{name}-{dress}.png")
        context.close()
        print(given.out / f"{name}-{dress}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="?", default=REPOSITORY / "runs")
    parser.add_argument("--pages", nargs="+", choices=PAGES, help="all, if left out")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or "/usr/bin/chromium"
    with served(given.runs) as url, sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for dress in itertools.product((False, True), repeat=3):
            picture(browser, url, given, *dress)
        browser.close()


if __name__ == "__main__":
    main()
