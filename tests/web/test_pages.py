"""The rooms beside the chat: tutor, compare, account, admin, lab, status; all dresses; weight."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.conftest import Attacker, PagesIn, axe_violations, expect
from tests.web.fake_server import DIST, FakeServer

PAGES = (
    "",
    "tutor",
    "compare",
    "examples",
    "lab",
    "lab/speedrun",
    "account",
    "signin",
    "admin",
    "status",
    "about",
)
WEB = Path(__file__).parents[2] / "web"


@pytest.fixture
def platform(attacker: Attacker) -> Iterator[FakeServer]:
    server = FakeServer("platform", attacker_port=attacker.port).start()
    yield server
    server.shutdown()
    server.server_close()


def test_practice_hints_before_it_solves_and_the_key_stays_on_the_server(
    page: Any, fake: FakeServer
) -> None:
    page.goto(f"{fake.url}/#/tutor")
    page.wait_for_selector(".problem .katex")
    page.fill(".problem textarea", "4")
    page.click("text=Check my answer")
    page.wait_for_selector(".verdict.bad")
    for _ in range(3):
        page.click(".problem .row-buttons .button >> nth=0")
    expect(page.locator(".hints li")).to_have_count(3)
    page.wait_for_selector(".hints >> text=Solution")
    page.fill(".problem textarea", "5")
    page.click("text=Check my answer")
    page.wait_for_selector(".verdict.good")
    assert not any("answer" in request for request in fake.requests)


@pytest.mark.parametrize(
    ("problem", "verdict"), [("x + y = 12, x - y = 4", "verified"), ("Is it nice?", "unverified")]
)
def test_ones_own_problem_is_judged_by_the_server_not_the_model(
    page: Any, fake: FakeServer, problem: str, verdict: str
) -> None:
    page.goto(f"{fake.url}/#/tutor")
    page.click("text=My own problem")
    page.fill(".ask-row textarea", problem)
    page.press(".ask-row textarea", "Enter")
    page.wait_for_selector(f"[data-verdict={verdict}]")


def test_two_models_answer_one_prompt_side_by_side(page: Any, fake: FakeServer) -> None:
    page.goto(f"{fake.url}/#/compare")
    page.fill(".ask-row textarea", "Solve it")
    page.press(".ask-row textarea", "Enter")
    expect(page.locator(".side .usage-line")).to_have_count(2)
    (conversation,) = fake.state.conversations.values()
    assert [one["model"] for one in conversation["messages"]] == [
        None,
        "rorqual-pocket",
        "rorqual-tiny",
    ]


def test_a_visitor_signs_up_makes_a_key_and_signs_out(page: Any, platform: FakeServer) -> None:
    slow: list[Any] = []  # the models come when the visitor is elsewhere
    page.route("**/models", lambda one: slow.append(one))
    page.goto(platform.url)
    page.click("text=Sign in to chat")
    page.click("text=I have no account yet")
    page.fill("[name=username]", "ada")
    page.fill("[name=password]", "correct horse battery")
    page.click("button >> text=Create an account")
    page.wait_for_selector(".who >> text=ada")
    page.goto(f"{platform.url}/#/account")
    page.wait_for_selector("text=New key")
    slow.pop().continue_()
    page.wait_for_load_state("networkidle")
    page.click("text=New key")
    page.fill("dialog input >> nth=0", "laptop")
    page.click("dialog .primary")
    secret = page.wait_for_selector(".secret code").inner_text()
    page.click("dialog [aria-label=Close]")
    assert secret in page.locator(".code-block").inner_text()
    page.wait_for_selector(".row >> text=laptop")
    page.wait_for_selector("table >> text=rorqual-pocket")
    page.click(".row >> text=Revoke")
    page.click("dialog .danger")
    page.wait_for_selector(".row.faded")
    page.click(".who")
    page.click("[role=menuitem]")
    page.wait_for_selector(".sidebar-foot >> text=Sign in")
    assert (
        page.evaluate("[localStorage, sessionStorage].some(s => JSON.stringify(s).includes('rq-'))")
        is False
    )


def test_the_admin_moves_the_ladder(page: Any, fake: FakeServer) -> None:
    page.goto(f"{fake.url}/#/admin")
    page.click(".rung >> nth=3")
    page.wait_for_selector(".rung.current >> text=Queue only")
    assert fake.state.level == "queue_only"


def test_the_lab_draws_curves_compares_runs_and_walks_through_samples(
    page: Any, fake: FakeServer
) -> None:
    page.goto(f"{fake.url}/#/lab")
    page.click("text=Laptop speedrun")
    page.wait_for_selector(".chart >> nth=5")
    assert page.locator(".chart-title").first.inner_text() == "train/loss"
    page.select_option(".controls select", "r1-zero")
    page.wait_for_selector(".chart .line-1 path")
    page.hover(".chart >> nth=0 >> svg")
    page.wait_for_selector(".chart .cursor", state="attached")
    page.click("text=Samples")
    page.wait_for_selector(".sample .badge.good")
    page.locator(".sample-slider input").fill("0")
    page.wait_for_selector(".sample .badge.bad")
    page.click("[role=radio] >> text=Settings")
    page.wait_for_selector("text=No spike above")


# What a finger has to meet is 44 px high; of a row of choices the row counts.
TOO_LOW = """() => [
    ...document.querySelectorAll('main :is(button, select, input, summary, a.button)'),
  ]
  .map((one) => one.closest('.segmented') ?? one)
  .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 43.9)
  .map((one) => one.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("phone", [False, True])
@pytest.mark.parametrize("chinese", [False, True])
def test_every_page_fits_and_is_clean_by_axe(
    open_page: PagesIn, fake: FakeServer, phone: bool, chinese: bool
) -> None:
    page = open_page(phone=phone, chinese=chinese)
    for index, name in enumerate(PAGES):
        dark = (index + phone + chinese) % 2 == 1
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.goto(f"{fake.url}/#/{name}")
        page.wait_for_selector(":is(.page, .empty-state)")
        page.wait_for_timeout(250)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert axe_violations(page) == [], name
        if phone:
            assert page.evaluate(TOO_LOW) == [], name


def test_the_first_load_is_within_its_budget() -> None:
    if not DIST.is_dir():
        pytest.skip("web/dist is not built: npm run build in web/")
    done = subprocess.run(
        ["node", "scripts/check_size.mjs"], cwd=WEB, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.splitlines()[-1].split()[0]) > 20_000  # it did find the files


def test_the_app_loads_nothing_lazy_at_first(page: Any, fake: FakeServer) -> None:
    page.goto(fake.url)
    page.wait_for_selector(".suggestion")
    page.wait_for_timeout(300)
    loaded = [line.rsplit("/", 1)[-1] for line in fake.requests if "/assets/" in line]
    assert not [
        name for name in loaded if name.startswith(("katex", "highlight", "pane", "lab", "KaTeX"))
    ]


def test_types_and_units_hold() -> None:
    if not (WEB / "node_modules" / ".bin" / "vitest").exists():
        pytest.skip("web/node_modules is not installed: npm ci --ignore-scripts in web/")
    for command in (["npm", "run", "-s", "check"], ["npm", "test", "-s"]):
        done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
