"""A long thread and a long thought: frames stay short while 100 tokens a second stream in."""

import statistics
from typing import Any

import pytest

from tests.web.conftest import ask
from tests.web.fake_server import FakeServer
from tests.web.recorded import SYSTEM_ANSWER

WATCH = """() => {
  window.longTasks = [];
  new PerformanceObserver(list => list.getEntries().forEach(e => window.longTasks.push(e.duration)))
    .observe({ type: 'longtask', buffered: false });
  window.frames = [];
  let last = performance.now();
  const look = now => { window.frames.push(now - last); last = now; requestAnimationFrame(look); };
  requestAnimationFrame(look);
}"""
SECONDS = 10


def scripting_seconds(session: Any) -> float:
    metrics = {
        one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]
    }
    return metrics["ScriptDuration"]


@pytest.mark.soak
def test_a_200_message_thread_with_30000_tokens_of_thinking_stays_smooth(
    page: Any, fake: FakeServer
) -> None:
    conversation, parent = fake.state.create("Long"), None
    for number in range(100):
        parent = fake.state.add(conversation, "user", f"Question {number}", parent)["id"]
        parent = fake.state.add(conversation, "assistant", SYSTEM_ANSWER, parent, reasoning="Hm.")[
            "id"
        ]
    page.goto(f"{fake.url}/#/c/{conversation['id']}")
    page.wait_for_selector(".message >> nth=10")
    ask(page, "LONG")
    page.wait_for_selector(".thinking.live .prose")
    (run,) = fake.state.runs.values()
    run.started -= 300 - 5 * (SECONDS + 4)  # as if most of it had streamed already
    page.wait_for_timeout(4000)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    worst, a_flush = [], []
    for _ in range(3):
        page.evaluate(WATCH)
        before = scripting_seconds(session)
        page.wait_for_timeout(SECONDS * 1000 // 3)
        used = scripting_seconds(session) - before
        frames = page.evaluate("window.frames")
        worst.append(max(page.evaluate("window.longTasks"), default=0))
        a_flush.append(1000 * used / (SECONDS / 3 * 60))
        print(
            f"longest task {worst[-1]:.0f} ms, scripting {a_flush[-1]:.1f} ms a flush, "
            f"frames median {statistics.median(frames):.1f} ms, longest {max(frames):.0f} ms"
        )
    assert statistics.median(worst) <= 50
    assert statistics.median(a_flush) < 8
