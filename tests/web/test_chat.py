"""The conversation: streaming, thinking, branches, stop, resume, threads, keys."""

from typing import Any

from tests.web.conftest import PagesIn, ask, axe_violations, expect, finished
from tests.web.fake_server import FakeServer
from tests.web.recorded import CHINESE_ANSWER, SYSTEM_ANSWER, SYSTEM_THINKING


def test_an_answer_streams_with_its_thinking_above_and_ends_rendered(
    page: Any, fake: FakeServer
) -> None:
    page.goto(fake.url)
    ask(page, "SLOW: solve x + y = 12, x - y = 4")
    page.wait_for_selector(".thinking.live .prose")
    assert page.locator(".thinking-head").get_attribute("aria-expanded") == "true"
    assert page.locator("[role=log]").get_attribute("aria-busy") == "true"
    answer = finished(page)
    assert answer.locator(".thinking-head").get_attribute("aria-expanded") == "false"
    page.wait_for_selector(".answer .katex")
    page.wait_for_selector(".hljs-keyword")
    assert answer.locator("table td").count() == 6
    assert "tok/s" in answer.locator(".usage-line").inner_text()
    answer.locator(".thinking-head").click()
    page.wait_for_selector(".thinking-body .prose")
    assert "no mathematics" in answer.locator(".thinking-body").inner_text()


def test_a_phone_in_chinese_and_dark_chats_as_well(open_page: PagesIn, base_url: str) -> None:
    page = open_page(phone=True, dark=True, chinese=True)
    page.goto(base_url)
    page.wait_for_selector("text=今天想一起思考什么")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.tap(".suggestion >> nth=2")
    answer = finished(page)
    assert answer.locator(".usage-line").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.tap(".show-sidebar")
    page.wait_for_selector(".drawer .thread-item")


def test_a_reload_in_the_middle_of_thinking_loses_no_byte(page: Any, fake: FakeServer) -> None:
    page.goto(fake.url)
    ask(page, "SLOW please")
    page.wait_for_selector(".thinking.live .prose")
    page.reload()
    page.wait_for_selector(".thinking.live .prose")
    finished(page)
    run = next(iter(fake.state.runs.values()))
    assert run.text("reasoning") == SYSTEM_THINKING * 6
    copied = page.evaluate(COPIED)
    assert copied == run.text("content") == SYSTEM_ANSWER


COPIED = """() => new Promise((resolve) => {
  const clipboard = { value: { writeText: async (text) => resolve(text) } };
  Object.defineProperty(navigator, 'clipboard', clipboard);
  document.querySelector('.message.assistant .message-actions .icon-button').click();
})"""


def test_a_lost_connection_resumes_after_the_last_event(page: Any, fake: FakeServer) -> None:
    page.goto(fake.url)
    ask(page, "SLOW please")
    page.wait_for_selector(".thinking.live .prose")
    fake.drop_streams()
    finished(page)
    assert page.evaluate(COPIED) == SYSTEM_ANSWER
    assert fake.resumed_after[0] == 0
    assert fake.resumed_after[1] > 0


def test_stop_ends_the_run_and_keeps_the_text(page: Any, fake: FakeServer) -> None:
    page.goto(fake.url)
    ask(page, "SLOW please")
    page.wait_for_selector(".thinking.live .prose")
    page.click(".send-button.stop")
    page.wait_for_selector(".message.assistant[data-state=stopped]")
    assert page.locator(".thinking-head").is_visible()
    assert page.locator(".send-button.stop").count() == 0


def test_regenerate_and_edit_make_branches_that_can_be_walked(page: Any, fake: FakeServer) -> None:
    page.goto(fake.url)
    ask(page, "Solve it")
    finished(page)
    page.click("[aria-label=Regenerate]")
    page.wait_for_selector(".message.assistant .branches >> text=2/2")
    finished(page)
    page.click(".message.assistant [aria-label='Previous version']")
    page.wait_for_selector(".message.assistant .branches >> text=1/2")
    page.hover(".message.user")
    page.click(".message.user [aria-label=Edit]")
    page.fill(".editor textarea", "Solve another")
    page.press(".editor textarea", "Enter")
    page.wait_for_selector(".message.user .branches >> text=2/2")
    finished(page)
    assert page.locator(".message.user").inner_text().startswith("Solve another")


def test_an_input_methods_enter_sends_nothing(page: Any, fake: FakeServer) -> None:
    page.goto(fake.url)
    page.fill(".composer textarea", "你好")
    for init in ("isComposing: true", "keyCode: 229"):
        page.eval_on_selector(
            ".composer textarea",
            "e => e.dispatchEvent(new KeyboardEvent('keydown', "
            f"{{key: 'Enter', bubbles: true, cancelable: true, {init}}}))",
        )
    page.wait_for_timeout(150)
    assert page.locator(".message").count() == 0
    page.press(".composer textarea", "Shift+Enter")
    assert page.input_value(".composer textarea") == "你好\n"
    page.press(".composer textarea", "Enter")
    assert (
        CHINESE_ANSWER.startswith("把")
        and finished(page).locator("strong").first.inner_text() == "相加"
    )


def test_the_queue_place_is_shown_and_a_busy_server_keeps_the_draft(
    page: Any, fake: FakeServer
) -> None:
    page.goto(fake.url)
    ask(page, "QUEUE please")
    page.wait_for_selector("[data-queue='2']")
    finished(page)
    fake.busy_seconds = 7
    ask(page, "again")
    page.wait_for_selector(".toast >> text=Try again in 7 s")
    assert page.input_value(".composer textarea") == "again"


def test_threads_can_be_found_renamed_and_deleted(page: Any, fake: FakeServer) -> None:
    for title in ("Whales", "Primes", "<img src=x onerror=alert(1)>"):
        fake.state.create(title)
    page.goto(fake.url)
    page.wait_for_selector(".thread-item >> nth=2")
    page.keyboard.press("Control+k")
    page.keyboard.type("whal")
    expect(page.locator(".thread-item")).to_have_count(1)
    page.hover(".thread-item")
    page.click(".thread-item [aria-haspopup]")
    page.click("[role=menuitem] >> text=Rename")
    page.fill("dialog input", "Rorquals")
    page.click("dialog >> text=Save")
    page.fill(".search input", "")
    page.wait_for_selector(".thread-item >> text=Rorquals")
    page.hover(".thread-item >> nth=0")
    page.click(".thread-item >> nth=0 >> [aria-haspopup]")
    assert "export?format=markdown" in (
        page.locator("a[role=menuitem]").first.get_attribute("href") or ""
    )
    page.click("[role=menuitem] >> text=Delete")
    page.click("dialog .danger")
    expect(page.locator(".thread-item")).to_have_count(2)


# A key, and what has the focus before anything else can happen: no timer, no frame in between.
PRESS = """async ([key, more]) => {
  const press = new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true, ...more});
  document.body.dispatchEvent(press);
  for (let turn = 0; turn < 8; turn++) await null;
  return document.activeElement.getAttribute('aria-label');
}"""


def test_keys_that_follow_a_shortcut_at_once_are_not_lost(
    open_page: PagesIn, fake: FakeServer
) -> None:
    for phone in (False, True):
        page = open_page(phone=phone)
        page.goto(f"{fake.url}/#/about")
        page.wait_for_selector(".page")
        for _ in range(2):  # the sidebar open, then folded
            assert page.evaluate(PRESS, ["k", {"ctrlKey": True}]) == "Search chats"
            page.evaluate("document.activeElement.blur()")
            page.keyboard.press("Control+b")
            page.wait_for_timeout(250)  # until it is out of sight
        assert page.evaluate(PRESS, ["o", {"ctrlKey": True, "shiftKey": True}]) == "Message Rorqual"
        page.evaluate("document.activeElement.blur()")
        assert page.evaluate(PRESS, ["/", {}]) == "Message Rorqual"


def test_of_two_conversations_opened_quickly_the_last_is_shown(page: Any, fake: FakeServer) -> None:
    first, second = fake.state.create("First"), fake.state.create("Second")
    for conversation in (first, second):
        fake.state.add(conversation, "user", f"in {conversation['title']}", None)
    held: list[Any] = []
    page.route(f"**/api/conversations/{first['id']}", lambda route: held.append(route))
    page.goto(f"{fake.url}/#/c/{first['id']}")
    page.click(".thread-item >> text=Second")
    page.wait_for_selector(".message.user >> text=in Second")
    (late,) = held
    with page.expect_response("**" + late.request.url.removeprefix(fake.url)):
        late.continue_()
    page.wait_for_timeout(100)
    assert page.locator(".message.user").inner_text().startswith("in Second")


def test_a_message_sent_before_its_thread_is_loaded_goes_there(page: Any, fake: FakeServer) -> None:
    conversation = fake.state.create("Slow to load")
    question = fake.state.add(conversation, "user", "first", None)
    fake.state.add(conversation, "assistant", "an answer", question["id"])
    held: list[Any] = []
    page.route(f"**/api/conversations/{conversation['id']}", lambda route: held.append(route))
    page.goto(f"{fake.url}/#/c/{conversation['id']}")
    page.wait_for_selector(".picker")
    ask(page, "second")
    while not held:
        page.wait_for_timeout(20)
    held[0].continue_()
    expect(page.locator(".message.user")).to_have_count(2)
    finished(page)
    assert len(fake.state.conversations) == 1
    assert [one["content"] for one in conversation["messages"]][:3:2] == ["first", "second"]


def test_a_reader_who_scrolled_up_is_left_there(page: Any, fake: FakeServer) -> None:
    page.set_viewport_size({"width": 1000, "height": 420})
    page.goto(fake.url)
    ask(page, "Solve it")
    finished(page)
    ask(page, "Solve it again")
    page.wait_for_selector(".message.assistant >> nth=1")
    page.hover(".thread-scroll")
    page.evaluate(
        """() => {
          const box = document.querySelector(".thread-scroll");
          const note = () => (box.dataset.wheeled = box.scrollTop);
          box.addEventListener("wheel", note, { once: true });
        }"""
    )
    page.mouse.wheel(0, -400)
    page.wait_for_selector(".jump")
    page.wait_for_function(  # the page scrolls after it has heard of the wheel
        """() => {
          const box = document.querySelector(".thread-scroll");
          return box.scrollTop <= Math.max(0, Number(box.dataset.wheeled) - 400);
        }"""
    )
    top = page.evaluate("document.querySelector('.thread-scroll').scrollTop")
    finished(page)
    expect(page.locator(".message.assistant[data-state=complete]")).to_have_count(2)
    assert page.evaluate("document.querySelector('.thread-scroll').scrollTop") == top
    page.click(".jump")
    page.wait_for_selector(".jump", state="detached")


def test_the_chat_is_clean_by_axe_in_both_themes(open_page: PagesIn, base_url: str) -> None:
    for dark in (False, True):
        page = open_page(dark=dark)
        page.goto(base_url)
        page.wait_for_selector(".suggestion")
        assert axe_violations(page) == []
        page.click(".suggestion >> nth=2")
        finished(page)
        page.wait_for_selector(".katex")
        assert axe_violations(page) == []
