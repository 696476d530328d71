"""The model picker: a model that is not here yet is fetched, cancelled, tried again, chosen."""

from typing import Any

from tests.web.conftest import PagesIn, ask, axe_violations, expect, finished
from tests.web.fake_server import FakeServer
from tests.web.fake_state import FETCHABLE

TITLE = FETCHABLE["title"]
FETCH = f"/api/models/{FETCHABLE['id']}/fetch"


def item(page: Any, text: str) -> Any:
    """The menu's line that begins with a text, whatever its kind."""
    return page.locator("[role^=menuitem]", has_text=text).first


def progressing(fake: FakeServer, share: float) -> None:
    received = int(share * FETCHABLE["bytes"])
    fake.state.fetch = {"state": "fetching", "received": received, "error": None}


def test_a_model_is_fetched_with_its_progress_shown_and_then_chosen(
    page: Any, fake: FakeServer
) -> None:
    page.goto(fake.url)
    page.click(".picker")
    expect(item(page, TITLE)).to_contain_text("can be fetched, 92 MB · 8.2k context")
    item(page, TITLE).click()
    expect(item(page, TITLE)).to_contain_text("fetching: 0 % of 92 MB")
    progressing(fake, 0.5)
    expect(item(page, TITLE)).to_contain_text("fetching: 50 % of 92 MB")
    expect(item(page, TITLE)).to_have_attribute("aria-disabled", "true")
    assert axe_violations(page) == []
    page.reload()  # the server goes on, and the page follows it again
    bar = page.get_by_role("progressbar", name=TITLE)
    assert float(bar.get_attribute("value")) == 0.5
    fake.state.fetch = {"state": "loading", "received": FETCHABLE["bytes"], "error": None}
    page.click(".picker")
    expect(item(page, TITLE)).to_contain_text("being loaded")
    fake.state.is_fetched = True
    expect(page.locator(".picker-name")).to_have_text(TITLE)
    expect(page.locator(".toast")).to_contain_text("is ready and chosen")
    expect(bar).to_have_count(0)
    assert fake.requests.count(f"POST {FETCH}") == 1
    page.keyboard.press("Escape")
    ask(page, "Solve it")
    finished(page)
    (conversation,) = fake.state.conversations.values()
    assert conversation["messages"][-1]["model"] == FETCHABLE["id"]


def test_a_fetch_is_cancelled_and_tried_again_by_the_keyboard(page: Any, fake: FakeServer) -> None:
    page.goto(fake.url)
    expect(page.locator(".picker-name")).to_have_text("Rorqual Pocket")  # they have come
    page.focus(".picker")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowUp")  # from the first to the last
    page.keyboard.press("Enter")
    expect(item(page, TITLE)).to_contain_text("fetching")
    page.keyboard.press("ArrowDown")
    expect(item(page, "Cancel fetching")).to_be_focused()
    page.keyboard.press("Enter")
    expect(item(page, TITLE)).to_contain_text("can be fetched")
    assert fake.requests.count(f"DELETE {FETCH}") == 1
    expect(page.locator("[role^=menuitem]:focus")).to_have_count(1)  # not lost with its line
    item(page, TITLE).press("Enter")
    expect(item(page, TITLE)).to_contain_text("fetching")  # the server has it, before it fails
    error = {"code": "unreachable", "message": "no network"}
    fake.state.fetch = {"state": "failed", "received": 0, "error": error}
    expect(item(page, TITLE)).to_contain_text("does not reach the package index")
    expect(page.locator(".toast.error")).to_contain_text("does not reach the package index")
    assert axe_violations(page) == []
    item(page, "Try again").press("Enter")
    expect(item(page, TITLE)).to_contain_text("fetching")
    assert fake.requests.count(f"POST {FETCH}") == 2 + 1
    page.keyboard.press("Escape")
    expect(page.locator(".menu")).to_have_count(0)


def test_a_picker_that_is_opened_early_has_its_keys_when_the_models_come(
    page: Any, fake: FakeServer
) -> None:
    held: list[Any] = []
    page.route("**/api/models", lambda route: held.append(route))
    page.goto(fake.url)
    page.focus(".picker")
    page.keyboard.press("Enter")
    expect(page.locator(".menu")).to_have_count(1)
    expect(page.locator("[role^=menuitem]")).to_have_count(0)
    page.wait_for_timeout(50)
    assert held, "the page has asked for its models"
    for route in held:
        route.continue_()
    expect(page.locator("[role^=menuitem]").first).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(item(page, TITLE)).to_be_focused()


def test_a_phone_in_chinese_is_told_how_far_it_is(open_page: PagesIn, fake: FakeServer) -> None:
    page = open_page(phone=True, chinese=True)
    progressing(fake, 0.25)
    page.goto(fake.url)
    page.tap(".picker")
    expect(item(page, TITLE)).to_contain_text("正在下载：25 %，共 92 MB")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    fake.state.fetch = None
    expect(item(page, TITLE)).to_contain_text("可下载，92 MB")
