"""Durable runs: numbered, resumable, owned, reaped; and the meter and sweeper around them."""

import threading
import time

import pytest

from rorqual.errors import RequestError
from rorqual.platform import (
    Level,
    NotFound,
    Platform,
    RequestClosed,
    Run,
    TokenCounts,
)
from tests.platform.conftest import ManualClock, OpenPlatform


def open_run(platform: Platform, user_id: str, request_id: str | None = None) -> Run:
    conversation = platform.conversations.create(user_id, "Whales")
    question = platform.conversations.add_message(
        user_id, conversation.id, "user", {"content": "What is a rorqual?"}
    )
    return platform.conversations.start_run(
        user_id, conversation.id, parent_id=question, request_id=request_id
    )


def text(kind: str, words: str) -> tuple[str, dict[str, str]]:
    return kind, {"text": words}


def user_of(platform: Platform, name: str = "ahab") -> str:
    return platform.accounts.create(name, None).id


def test_a_run_is_numbered_without_gaps_and_becomes_the_message(platform: Platform) -> None:
    user = user_of(platform)
    talks, run = platform.conversations, open_run(platform, user)
    talks.append(run.id, [text("reasoning", "A whale"), text("reasoning", "?")])
    talks.append(run.id, [text("content", "A baleen "), ("queue", {"position": 3})])
    assert talks.append(run.id, [text("content", "whale 鲸.")]).last_sequence == 5
    talks.finish(run.id)
    talks.finish(run.id, "failed")
    state, events = talks.read(user, run.id)
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6]
    assert (events[-1].kind, events[-1].data["state"]) == ("end", "finished")
    assert state.state == "finished"
    with pytest.raises(RequestClosed):
        talks.append(run.id, [text("content", "more")])
    _, (question, answer) = talks.get(user, run.conversation_id)
    assert answer.content == {"reasoning": "A whale?", "content": "A baleen whale 鲸."}
    assert (answer.parent_id, answer.run_state) == (question.id, "finished")


@pytest.mark.parametrize("seen", range(7))
def test_a_reader_resumes_after_any_event(open_platform: OpenPlatform, seen: int) -> None:
    writer, reader = open_platform(), open_platform()
    user = user_of(writer)
    run = open_run(writer, user)
    writer.conversations.append(run.id, [text("content", str(i)) for i in range(1, 6)])
    writer.conversations.finish(run.id)
    _, all_events = reader.conversations.read(user, run.id)
    _, rest = reader.conversations.read(user, run.id, after_sequence=seen)
    assert all_events[:seen] + rest == all_events


def test_a_waiting_reader_is_woken_and_sees_the_end(platform: Platform) -> None:
    user = user_of(platform)
    run = open_run(platform, user)
    seen: list[str] = []

    def read() -> None:
        after = 0
        while True:
            state, events = platform.conversations.wait(
                user, run.id, after_sequence=after, timeout_seconds=20
            )
            seen.extend(event.kind for event in events)
            after += len(events)
            if state.state != "running" and not events:
                return

    reader = threading.Thread(target=read)
    reader.start()
    for word in ("one", "two"):
        platform.conversations.append(run.id, [text("content", word)])
    platform.conversations.finish(run.id, "stopped")
    reader.join(30)
    assert seen == ["content", "content", "end"]


def test_waiting_ends_by_its_timeout(platform: Platform) -> None:
    user = user_of(platform)
    run = open_run(platform, user)
    started = time.monotonic()
    state, events = platform.conversations.wait(
        user, run.id, after_sequence=0, timeout_seconds=0.05
    )
    assert (state.state, events) == ("running", []) and time.monotonic() - started < 10


def test_nothing_of_another_account_is_there(platform: Platform) -> None:
    owner, thief = user_of(platform), user_of(platform, "flask")
    talks, run = platform.conversations, open_run(platform, owner)
    own = talks.create(thief)
    conversation, message = run.conversation_id, run.message_id
    for attempt in (
        lambda: talks.get(thief, conversation),
        lambda: talks.rename(thief, conversation, "mine"),
        lambda: talks.delete(thief, conversation),
        lambda: talks.add_message(thief, conversation, "user", {}),
        lambda: talks.add_message(thief, own.id, "user", {}, parent_id=message),
        lambda: talks.start_run(thief, conversation, parent_id=message),
        lambda: talks.start_run(thief, own.id, parent_id=message),
        lambda: talks.run(thief, run.id),
        lambda: talks.read(thief, run.id),
        lambda: talks.wait(thief, run.id, after_sequence=0, timeout_seconds=1),
        lambda: talks.request_stop(thief, run.id),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert [talk.id for talk in talks.page(thief)] == [own.id]
    assert not talks.run(owner, run.id).stop_requested


def test_conversations_are_listed_renamed_branched_and_deleted(
    platform: Platform, clock: ManualClock
) -> None:
    user = user_of(platform)
    talks, run = platform.conversations, open_run(platform, user)
    clock.advance(1)
    later = talks.create(user, "x" * 300)
    assert [talk.title for talk in talks.page(user)] == ["x" * 200, "Whales"]
    assert [talk.id for talk in talks.page(user, before_seconds=clock.now)] == [run.conversation_id]
    talks.rename(user, later.id, "Later")
    assert talks.get(user, later.id)[0].title == "Later"
    question = talks.get(user, run.conversation_id)[1][0]
    again = talks.start_run(user, run.conversation_id, parent_id=question.id)
    parents = [m.parent_id for m in talks.get(user, run.conversation_id)[1]]
    assert parents == [None, question.id, question.id] and again.message_id != run.message_id
    talks.append(run.id, [text("content", "a")])
    talks.delete(user, run.conversation_id)
    with pytest.raises(NotFound):
        talks.get(user, run.conversation_id)
    with pytest.raises(RequestClosed):
        talks.append(run.id, [text("content", "b")])


def test_stop_is_asked_once_or_often_and_reaches_the_writer(open_platform: OpenPlatform) -> None:
    writer, other = open_platform(), open_platform()
    user = user_of(writer)
    run = open_run(writer, user)
    assert not writer.conversations.append(run.id, [text("content", "a")]).stop_requested
    for _ in range(2):
        assert other.conversations.request_stop(user, run.id).stop_requested
    assert writer.conversations.append(run.id, [text("content", "b")]).stop_requested
    writer.conversations.finish(run.id, "stopped")
    with pytest.raises(RequestError):
        writer.conversations.finish(run.id, "running")


def test_events_and_token_counts_are_one_transaction(platform: Platform) -> None:
    user = user_of(platform)
    platform.ledger.top_up(user, 10**9, "p")
    platform.ledger.reserve("r", user, "whale", prompt_tokens=5, max_output_tokens=2)
    run = open_run(platform, user, "r")
    counts = TokenCounts(0, 5, 1, 0)
    platform.conversations.append(run.id, [text("content", "a")], counts=counts)
    with pytest.raises(RequestError):
        too_many = TokenCounts(0, 5, 3, 0)
        platform.conversations.append(run.id, [text("content", "b")], counts=too_many)
    assert platform.conversations.run(user, run.id).last_sequence == 1
    assert platform.ledger.settle("r").counts == counts


def test_the_events_of_a_run_are_kept_for_a_day(platform: Platform, clock: ManualClock) -> None:
    user = user_of(platform)
    run, going = open_run(platform, user), open_run(platform, user)
    for each in (run, going):
        platform.conversations.append(each.id, [text("content", "kept")])
    platform.conversations.finish(run.id, reason='{"usage": 7}')
    clock.advance(86_399)
    platform.conversations.forget_events()
    assert len(platform.conversations.read(user, run.id)[1]) == 2
    clock.advance(2)
    platform.conversations.forget_events()
    state, events = platform.conversations.read(user, run.id)
    assert (state.state, state.last_sequence, events) == ("finished", 2, [])
    message = platform.conversations.get(user, run.conversation_id)[1][1]
    assert (message.content["content"], message.run_reason) == ("kept", '{"usage": 7}')
    assert len(platform.conversations.read(user, going.id)[1]) == 1
    open_message = platform.conversations.get(user, going.conversation_id)[1][1]
    assert open_message.run_reason is None


# The sweeper


def test_a_dead_server_leaves_settled_requests_and_interrupted_runs(
    open_platform: OpenPlatform, clock: ManualClock
) -> None:
    dying, healthy = open_platform(), open_platform()
    user = user_of(dying)
    dying.ledger.top_up(user, 10**9, "p")
    dying.ledger.reserve("r", user, "whale", prompt_tokens=5, max_output_tokens=20)
    run = open_run(dying, user, "r")
    counts = TokenCounts(0, 5, 0, 7)
    dying.conversations.append(run.id, [text("reasoning", "half a th")], counts=counts)
    clock.advance(19)
    healthy.sweeper.beat()
    assert healthy.sweeper.sweep().num_requests == 0  # it may only be slow
    clock.advance(2)
    healthy.sweeper.beat()
    swept = healthy.sweeper.sweep()
    assert (swept.num_requests, swept.num_runs) == (1, 1)
    assert healthy.sweeper.sweep().num_requests == 0
    assert healthy.ledger.balance(user).available_nano == 10**9 - (5 * 270 + 7 * 2190)
    state, events = healthy.conversations.read(user, run.id)
    assert (state.state, events[-1].kind) == ("interrupted", "end")
    answer = healthy.conversations.get(user, run.conversation_id)[1][1]
    assert answer.content["reasoning"] == "half a th"
    # It was only slow after all: it may deliver nothing more.
    with pytest.raises(RequestClosed):
        dying.ledger.log("r", TokenCounts(0, 5, 0, 8))
    with pytest.raises(RequestClosed):
        dying.conversations.append(run.id, [text("reasoning", "ought")])
    assert dying.ledger.settle("r", TokenCounts(0, 5, 0, 9)).counts == counts
    assert healthy.usage.audit() == []


def test_a_restarted_single_server_need_not_wait(open_platform: OpenPlatform) -> None:
    before = open_platform()
    user = user_of(before)
    before.ledger.top_up(user, 10**9, "p")
    before.ledger.reserve("old", user, "whale", prompt_tokens=5, max_output_tokens=20)
    after = open_platform()
    after.ledger.reserve("new", user, "whale", prompt_tokens=5, max_output_tokens=20)
    assert after.sweeper.sweep().num_requests == 0
    assert after.sweeper.sweep(dead_after_seconds=0).num_requests == 1
    after.ledger.log("new", TokenCounts(0, 5, 1, 0))


def test_a_forgotten_request_of_a_living_server_is_settled(
    platform: Platform, clock: ManualClock
) -> None:
    user = user_of(platform)
    platform.ledger.top_up(user, 10**9, "p")
    platform.ledger.reserve(
        "r", user, "whale", prompt_tokens=5, max_output_tokens=20, expires_in_seconds=60
    )
    clock.advance(61)
    platform.sweeper.beat()
    assert platform.sweeper.sweep().num_requests == 1
    assert platform.ledger.balance(user).available_nano == 10**9


def test_the_keeper_ticks_beats_sweeps_and_follows_the_held_level(
    open_platform: OpenPlatform,
) -> None:
    metering = {"heartbeat_seconds": 0.05, "dead_after_seconds": 0.2}
    first, second = open_platform(metering=metering), open_platform()
    first.start()
    second.hold_level(Level.QUEUE_ONLY)
    until = time.monotonic() + 60
    while first.admission.stats().held_level != Level.QUEUE_ONLY and time.monotonic() < until:
        time.sleep(0.02)
    assert first.admission.stats().level == Level.QUEUE_ONLY
    second.hold_level(None)
    while first.admission.stats().held_level is not None and time.monotonic() < until:
        time.sleep(0.02)
    assert first.admission.stats().level == Level.NORMAL
    assert first.last_failure is None


# The meter


def test_the_meter_sends_nothing_that_is_not_committed(open_platform: OpenPlatform) -> None:
    platform = open_platform(metering={"flush_tokens": 4, "flush_seconds": 1000.0})
    user = user_of(platform)
    platform.ledger.top_up(user, 10**9, "p")
    platform.ledger.reserve("r", user, "whale", prompt_tokens=5, max_output_tokens=20)
    meter = platform.meter("r")
    meter.prompt(cache_hit_tokens=2, input_tokens=3)
    assert meter.due_seconds() == float("inf")
    sent = [meter.add(word, output_tokens=1) for word in "abcdefg"]
    assert sent == [["a"], [], [], [], ["b", "c", "d", "e"], [], []]
    assert 0 < meter.due_seconds() <= 1000
    assert meter.add("", output_tokens=0) == []
    assert meter.flush() == ["f", "g", ""]
    assert meter.add("h", reasoning_tokens=1) == []
    held, bill = meter.close()
    assert held == ["h"] and bill.counts == TokenCounts(2, 3, 7, 1) == meter.counts


def test_a_meter_whose_request_was_swept_sends_nothing_more(platform: Platform) -> None:
    user = user_of(platform)
    platform.ledger.top_up(user, 10**9, "p")
    platform.ledger.reserve("r", user, "whale", prompt_tokens=5, max_output_tokens=20)
    meter = platform.meter("r")
    meter.prompt(cache_hit_tokens=0, input_tokens=5)
    assert meter.add("a", output_tokens=1) == ["a"]
    meter.add("b", output_tokens=1)
    platform.ledger.settle("r", outcome="interrupted")
    for attempt in (meter.flush, meter.close):
        with pytest.raises(RequestClosed):
            attempt()
