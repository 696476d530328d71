"""The queue: fairness, deadlines, limits, early refusals, the ladder. Time is a number here."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.config.server import AdmissionConfig, OverloadConfig
from rorqual.platform import (
    Admission,
    ConcurrencyLimited,
    DeadlineExceeded,
    DeadlineUnmeetable,
    Job,
    Level,
    QueueFull,
    RateLimited,
    Refused,
    Ticket,
)
from rorqual.platform.buckets import TokenBuckets, address_group
from rorqual.platform.fair_queue import Entry, FairQueue
from rorqual.platform.overload import OverloadLadder
from tests.platform.conftest import ManualClock

MakeAdmission = Callable[..., Admission]


@pytest.fixture
def make(clock: ManualClock) -> MakeAdmission:
    """An admission whose limits are wide except where the test narrows them."""

    def make_one(overload: dict[str, object] | None = None, **changes: object) -> Admission:
        values: dict[str, object] = {
            "max_running": 2,
            "request_overhead_tokens": 0,
            "initial_tokens_per_second": 1000.0,
            "quantum_tokens": 1000,
        }
        config = AdmissionConfig.model_validate(values | changes)
        return Admission(config, OverloadConfig.model_validate(overload or {}), clock)

    return make_one


def job(account_id: str = "a", tokens: int = 1000, **changes: object) -> Job:
    values: dict[str, object] = {
        "account_id": account_id,
        "address": "192.0.2.1",
        "prompt_tokens": tokens // 2,
        "max_output_tokens": tokens - tokens // 2,
    }
    return Job(**(values | changes))  # type: ignore[arg-type]


# The fair queue

COSTS = st.lists(st.integers(1, 1000), min_size=20, max_size=60)


@settings(deadline=None, max_examples=40)
@given(st.lists(COSTS, min_size=2, max_size=5))
def test_backlogged_accounts_differ_by_less_than_a_quantum_and_a_request(
    lanes: list[list[int]],
) -> None:
    """And at the end of each round by less than the largest request, which is within a quantum."""
    quantum = 1000
    queue: FairQueue[int] = FairQueue(quantum)
    for account, costs in enumerate(lanes):
        for cost in costs:
            queue.push(str(account), cost, cost)
    served = dict.fromkeys(map(str, range(len(lanes))), 0)
    last = "0"
    while all(queue.num_waiting(account) for account in served):
        entry = queue.pop()
        assert entry is not None
        if last != "0" and entry.account_id == "0":  # a round has ended: all had a turn each
            assert max(served.values()) - min(served.values()) < quantum
        served[entry.account_id] += entry.cost_tokens
        last = entry.account_id
        assert max(served.values()) - min(served.values()) < quantum + 1000


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.integers(0, 20_000), st.sampled_from([0.5, 1.0, 3.0])
        ),
        max_size=60,
    ),
    st.integers(1, 5000),
)
def test_every_request_is_taken_once_in_the_order_shown(
    pushed: list[tuple[str, int, float]], quantum: int
) -> None:
    queue: FairQueue[int] = FairQueue(quantum)
    for index, (account, cost, weight) in enumerate(pushed):
        queue.push(account, cost, index, weight=weight)
    shown = [entry.item for entry in queue.order()]
    taken: list[int] = []
    while (entry := queue.pop()) is not None:
        taken.append(entry.item)
    assert taken == shown and sorted(taken) == list(range(len(pushed)))
    for account in "abcd":  # first come, first served within an account
        own = [index for index in taken if pushed[index][0] == account]
        assert own == sorted(own)


def test_weights_are_shares() -> None:
    queue: FairQueue[None] = FairQueue(1000)
    for _ in range(400):
        queue.push("light", 500, None)
        queue.push("heavy", 500, None, weight=3.0)
    taken = Counter(entry.account_id for entry in queue.order()[:400])
    assert taken["heavy"] == pytest.approx(3 * taken["light"], abs=6)


def test_a_short_request_waits_one_turn_of_a_flooding_account() -> None:
    queue: FairQueue[str] = FairQueue(1000)
    for _ in range(500):
        queue.push("flood", 900, "flood")
    queue.push("small", 10, "small")
    assert [entry.item for entry in queue.order()[:2]] == ["flood", "small"]


def test_a_huge_request_costs_few_steps_and_is_not_starved() -> None:
    queue: FairQueue[str] = FairQueue(1)
    queue.push("huge", 10**9, "huge")
    for _ in range(3):
        queue.push("small", 10**8, "small")
    assert [entry.item for entry in queue.order()] == ["small"] * 3 + ["huge"]


def test_blocked_accounts_are_passed_over_and_gain_nothing() -> None:
    queue: FairQueue[str] = FairQueue(1000)
    for account in ("a", "b"):
        for _ in range(5):
            queue.push(account, 1000, account)
    taken: list[Entry[str] | None] = [queue.pop(lambda account: account == "a") for _ in range(5)]
    assert [entry.item for entry in taken if entry] == ["b"] * 5
    assert queue.pop(lambda account: account == "a") is None
    for _ in range(5):
        queue.push("b", 1000, "b")
    assert Counter(entry.item for entry in queue.order()[:4]) == {"a": 2, "b": 2}


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.01, 1.0), min_size=200, max_size=200))
def test_unused_tokens_count_for_the_account_that_left_them(used: list[float]) -> None:
    """One account asks for far more than it uses: in tokens really used the two come out even."""
    queue: FairQueue[None] = FairQueue(2000)
    for _ in range(200):
        queue.push("modest", 100, None)
        queue.push("greedy", 2000, None)
    served = {"modest": 0, "greedy": 0}
    for share in used:
        if not (queue.num_waiting("modest") and queue.num_waiting("greedy")):
            break
        entry = queue.pop()
        assert entry is not None
        really = 100 if entry.account_id == "modest" else max(1, int(2000 * share))
        queue.refund(entry.account_id, entry.cost_tokens - really)
        served[entry.account_id] += really
        assert abs(served["modest"] - served["greedy"]) <= 2 * 2000


# Limits


def test_requests_start_up_to_the_limit_and_then_in_turn(make: MakeAdmission) -> None:
    admission = make()
    tickets = [admission.enter(job(account)) for account in ("a", "a", "a", "a", "b")]
    assert [ticket.running for ticket in tickets] == [True, True, False, False, False]
    assert [admission.place(ticket).position for ticket in tickets] == [0, 0, 1, 3, 2]
    admission.finish(tickets[0], 1000)
    admission.finish(tickets[1], 1000)
    assert tickets[2].started.result(0) is None and tickets[4].started.result(0) is None
    assert not tickets[3].started.done()
    admission.finish(tickets[2], 1000)
    admission.finish(tickets[2], 1000)
    assert tickets[3].running and admission.stats().num_running == 2


def test_answers_that_nobody_takes_free_their_place_but_not_without_end(
    make: MakeAdmission,
) -> None:
    admission = make(max_running=1, max_running_per_account=1, max_per_account=3)
    unread: list[Ticket] = []
    for number in range(4):  # four answers a place, in all
        ticket = admission.enter(job(f"slow {number}"))
        assert ticket.started.done(), "the engine is free"
        admission.finish(ticket, 500, is_read=False)
        unread.append(ticket)
    last = admission.enter(job("b"))
    assert not last.started.done() and admission.stats().num_running == 0
    admission.finish(unread[0], 500)
    assert last.started.done()
    admission.finish(unread[0], 500)  # again does nothing
    for ticket in [*unread, last]:
        admission.finish(ticket, 500)
    assert admission.stats().num_running == 0 and admission.enter(job("c")).started.done()


def test_one_account_that_takes_nothing_leaves_places_to_others(make: MakeAdmission) -> None:
    admission = make(max_running=2, max_running_per_account=1, max_per_account=64)
    for _ in range(4):
        admission.finish(admission.enter(job("slow")), 500, is_read=False)
    waiting = admission.enter(job("slow"))
    assert not waiting.started.done(), "four a place of its own"
    assert admission.enter(job("b")).started.done() and admission.enter(job("c")).started.done()


def test_an_answer_that_is_not_taken_counts_against_its_account(make: MakeAdmission) -> None:
    admission = make(max_running=8, max_running_per_account=8, max_per_account=2)
    tickets = [admission.enter(job("a")) for _ in range(2)]
    for ticket in tickets:
        admission.finish(ticket, 500, is_read=False)
    with pytest.raises(ConcurrencyLimited):
        admission.enter(job("a"))
    admission.finish(tickets[0], 500)
    assert admission.enter(job("a")).started.done()


def test_one_account_runs_and_waits_up_to_its_limits(make: MakeAdmission) -> None:
    admission = make(max_running=4, max_running_per_account=1, max_per_account=3)
    own = [admission.enter(job("a")) for _ in range(3)]
    with pytest.raises(ConcurrencyLimited) as refusal:
        admission.enter(job("a"))
    assert refusal.value.retry_after_seconds > 0
    assert [ticket.running for ticket in own] == [True, False, False]
    assert admission.enter(job("b")).running
    admission.leave(own[1])
    admission.enter(job("a"))


def test_buckets_count_by_account_and_by_network(make: MakeAdmission, clock: ManualClock) -> None:
    admission = make(
        max_running=100,
        account_burst_tokens=2000,
        account_tokens_per_second=100.0,
        address_burst_tokens=3000,
        address_tokens_per_second=100.0,
    )
    admission.enter(job("a", 2000, address="2001:db8::1"))
    with pytest.raises(RateLimited, match="account") as refusal:
        admission.enter(job("a", 100, address="192.0.2.1"))
    assert refusal.value.retry_after_seconds == pytest.approx(1.0)
    limit = refusal.value.limit
    assert limit is not None and (limit.limit_tokens, limit.remaining_tokens) == (2000, 0)
    with pytest.raises(RateLimited, match="address"):
        admission.enter(job("b", 1500, address="2001:db8::2"))
    admission.enter(job("b", 1500, address="2001:db8:0:1::2"))
    clock.advance(1.0)
    admission.enter(job("a", 100, address="192.0.2.1"))
    assert admission.limit("a").remaining_tokens == 0


def test_what_was_not_used_returns_to_the_buckets(make: MakeAdmission) -> None:
    admission = make(account_burst_tokens=2000, request_overhead_tokens=10)
    ticket = admission.enter(job("a", 1000))
    assert admission.limit("a").remaining_tokens == 990
    admission.finish(ticket, 200)
    assert admission.limit("a").remaining_tokens == 1790


def test_a_request_above_the_burst_leaves_a_debt(make: MakeAdmission, clock: ManualClock) -> None:
    admission = make(account_burst_tokens=1000, account_tokens_per_second=100.0)
    admission.enter(job("a", 5000))
    with pytest.raises(RateLimited) as refusal:
        admission.enter(job("a", 100))
    assert refusal.value.retry_after_seconds == pytest.approx(41.0)


def test_a_flood_of_names_costs_bounded_memory() -> None:
    buckets = TokenBuckets(1.0, 10.0, 100)
    for index in range(10_000):
        buckets.spend(f"198.51.100.{index}", 1, 0.0)
    assert len(buckets) == 100


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_addresses_are_grouped_by_who_holds_them(address: str, group: str) -> None:
    assert address_group(address) == group


# Refusals and deadlines


def test_a_full_queue_refuses_at_once_but_not_the_modest(make: MakeAdmission) -> None:
    admission = make(max_running=1, max_queued=4, max_per_account=100, quantum_tokens=10)
    flood = [admission.enter(job("flood", 10)) for _ in range(5)]
    with pytest.raises(QueueFull):
        admission.enter(job("flood", 10))
    modest = admission.enter(job("modest", 10))  # the flood's newest makes room
    with pytest.raises(QueueFull):
        flood[-1].started.result(0)
    assert admission.stats().num_queued == 4
    admission.finish(flood[0], 10)
    admission.finish(flood[1], 10)
    assert modest.running


@pytest.mark.parametrize("how", ["refused", "asked", "displaced", "too late"])
def test_it_is_calm_until_somebody_is_refused_and_some_seconds_later(
    make: MakeAdmission, clock: ManualClock, how: str
) -> None:
    admission = make(max_running=1, max_queued=2, max_per_account=3, quantum_tokens=10)
    for _ in range(3):
        admission.enter(job("crowd", 10, max_wait_seconds=5.0))
        admission.tick()
    assert admission.is_calm, "waiting is no refusal"
    if how == "refused":
        with pytest.raises(ConcurrencyLimited):
            admission.enter(job("crowd", 10))
    elif how == "asked":
        with pytest.raises(ConcurrencyLimited):
            admission.check("crowd", "127.0.0.1")
    elif how == "displaced":
        admission.enter(job("modest", 10))
    else:
        clock.advance(5.0)
        admission.tick()
    assert not admission.is_calm
    clock.advance(60.0)
    assert admission.is_calm


def test_queued_tokens_are_capped(make: MakeAdmission) -> None:
    admission = make(max_running=1, max_queued_tokens=2500, initial_tokens_per_second=1e6)
    admission.enter(job("a"))
    admission.enter(job("b"))
    admission.enter(job("c"))
    with pytest.raises(QueueFull):
        admission.enter(job("d"))
    assert admission.enter(job("d", 500))


def test_a_deadline_that_cannot_be_met_is_refused_at_once(make: MakeAdmission) -> None:
    admission = make(max_running=1, initial_tokens_per_second=100.0)
    admission.enter(job("a", 1000))
    with pytest.raises(DeadlineUnmeetable) as refusal:
        admission.enter(job("b", 1000, max_wait_seconds=9.0))
    assert refusal.value.retry_after_seconds == pytest.approx(1.0)
    assert admission.stats().num_queued == 0
    waiting = admission.enter(job("b", 1000, max_wait_seconds=11.0))
    place = admission.place(waiting)
    assert (place.position, place.num_queued) == (1, 1)
    assert place.wait_seconds == pytest.approx(10.0)


def test_who_waited_until_the_deadline_is_told(make: MakeAdmission, clock: ManualClock) -> None:
    admission = make(max_running=1, account_burst_tokens=10_000, account_tokens_per_second=1e-9)
    running = admission.enter(job("a", 1000))
    waiting = admission.enter(job("b", 1000, max_wait_seconds=5.0))
    clock.advance(4.9)
    admission.tick()
    assert not waiting.started.done()
    clock.advance(0.1)
    admission.tick()
    assert isinstance(waiting.started.exception(0), DeadlineExceeded)
    assert admission.limit("b").remaining_tokens == 10_000
    admission.finish(waiting, 100)  # nothing to finish
    assert running.running and admission.stats().num_running == 1


def test_the_rate_is_measured(make: MakeAdmission, clock: ManualClock) -> None:
    admission = make(max_running=1, initial_tokens_per_second=10.0)
    ticket = admission.enter(job("a", 100_000))
    for second in range(1, 61):
        clock.advance(1.0)
        admission.progress(ticket, second * 500)
    assert admission.stats().tokens_per_second == pytest.approx(500, rel=0.1)
    admission.finish(ticket, 30_000)
    clock.advance(1000.0)  # idle time says nothing about the rate
    assert admission.stats().tokens_per_second == pytest.approx(500, rel=0.1)
    admission.enter(job("a", 10_000))
    wait = admission.place(admission.enter(job("b", 10_000))).wait_seconds
    assert wait == pytest.approx(10_000 * 0.3 / 500, rel=0.2)  # requests use 30 % of their cost


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "finish", "leave", "tick", "progress", "level"]),
        st.integers(0, 7),
        st.integers(1, 3000),
        st.floats(0, 3),
    ),
    max_size=120,
)


def refused(admission: Admission, account_id: str) -> bool:
    """Whether any request of this account would be, however small."""
    try:
        admission.check(account_id, "192.0.2.1")
    except Refused:
        return True
    return False


def test_a_flood_is_refused_before_it_is_read(make: MakeAdmission, clock: ManualClock) -> None:
    admission = make(max_running=1, max_queued=1, max_per_account=2, account_burst_tokens=10_000)
    assert not refused(admission, "a")
    first = admission.enter(job("a", 100))
    assert not refused(admission, "a") and not refused(admission, "b")
    admission.enter(job("a", 100))
    with pytest.raises(ConcurrencyLimited):
        admission.check("a", "192.0.2.1")
    with pytest.raises(QueueFull):
        admission.check("b", "192.0.2.1")
    admission.finish(first, 100)
    assert not refused(admission, "a") and admission.num_queued == 0


@settings(deadline=None, max_examples=60)
@given(EVENTS)
def test_every_accepted_request_starts_or_is_refused_by_its_deadline(
    events: list[tuple[str, int, int, float]],
) -> None:
    clock = ManualClock()
    config = AdmissionConfig(
        max_running=2, max_queued=6, quantum_tokens=500, account_burst_tokens=10_000
    )  # pyright: ignore[reportCallIssue]
    admission = Admission(config, OverloadConfig.model_validate({}), clock)
    tickets: list[Ticket] = []
    for kind, number, tokens, seconds in events:
        clock.advance(seconds)
        if kind == "enter":
            wait = 1.0 + 10 * seconds
            surely = refused(admission, f"account {number % 4}")
            try:
                tickets.append(
                    admission.enter(job(f"account {number % 4}", tokens, max_wait_seconds=wait))
                )
                assert not surely, "it was refused unread, and would have been taken"
            except Refused as refusal:
                assert refusal.retry_after_seconds > 0
        elif kind == "level":
            admission.hold_level(Level(number) if number < 5 else None)
        elif kind != "tick" and tickets:
            ticket = tickets[number % len(tickets)]
            if kind == "leave":
                admission.leave(ticket)
            else:
                getattr(admission, kind)(ticket, tokens)
        admission.tick()
        stats = admission.stats()
        running = [t for t in tickets if t.running]
        queued = [t for t in tickets if not t.running and not t.done]
        assert (stats.num_running, stats.num_queued) == (len(running), len(queued))
        assert stats.queued_tokens == sum(t.cost_tokens for t in queued)
        assert len(running) <= 2 and len(queued) <= 6
        assert all(clock.now < t.deadline_seconds for t in queued)
        assert all(t.started.done() for t in running)
    clock.advance(1000)
    admission.tick()
    for ticket in tickets:
        assert ticket.started.done()
        admission.leave(ticket)
    assert admission.stats().num_running == admission.stats().num_queued == 0


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(50, 1500), min_size=30, max_size=30), st.integers(1, 40))
def test_no_account_starves_under_a_flood(costs: list[int], flood: int) -> None:
    """One account refills the queue before every service; each other one keeps one waiting."""
    clock = ManualClock()
    values = {"max_running": 1, "max_queued": 50, "max_per_account": 60, "max_wait_seconds": 1e9}
    wide = {"account_burst_tokens": 10**9, "address_burst_tokens": 10**9}
    config = AdmissionConfig.model_validate(values | wide | {"quantum_tokens": 1500})
    admission = Admission(config, OverloadConfig.model_validate({}), clock)
    live: list[Ticket] = []
    served: Counter[str] = Counter()

    def enter(account: str, tokens: int) -> None:
        try:
            live.append(admission.enter(job(account, tokens, address=account)))
        except Refused:
            assert account == "flood"

    for cost in costs:
        while sum(t.job.account_id == "flood" and not t.done for t in live) < flood:
            enter("flood", cost)
        for account in ("x", "y"):
            if not any(t.job.account_id == account and not t.done for t in live):
                enter(account, cost)
        clock.advance(1.0)
        running = next(t for t in live if t.running)
        served[running.job.account_id] += running.cost_tokens
        admission.finish(running, running.cost_tokens)
        live = [t for t in live if not t.done]
    assert min(served["x"], served["y"]) > 0


# The ladder


def test_the_ladder_rises_at_once_and_falls_step_by_step(clock: ManualClock) -> None:
    ladder = OverloadLadder(OverloadConfig.model_validate({}), clock)
    assert ladder.update(0.8) == Level.QUEUE_ONLY
    assert ladder.update(0.46) == Level.QUEUE_ONLY  # above 0.6 of its rise: no calm
    clock.advance(9.0)
    assert ladder.update(0.1) == Level.QUEUE_ONLY
    levels: list[Level] = []
    for _ in range(25):
        clock.advance(2.0)
        levels.append(ladder.update(0.1))
    steps = [
        level
        for level, after in zip([Level.QUEUE_ONLY, *levels], levels, strict=False)
        if level != after
    ]
    assert steps == [Level.QUEUE_ONLY, Level.SMALLER_MODEL, Level.SHORTER_THINKING]
    assert levels[-1] == Level.NORMAL


@given(st.lists(st.floats(0, 1), min_size=1, max_size=100))
def test_the_ladder_falls_at_most_once_a_dwell(loads: list[float]) -> None:
    clock = ManualClock()
    config = OverloadConfig.model_validate({"dwell_seconds": 5.0})
    ladder = OverloadLadder(config, clock)
    before, fell = ladder.level, -100.0
    for load in loads:
        clock.advance(1.0)
        level = ladder.update(load)
        assert level >= sum(load >= mark for mark in config.rise)
        if level < before:
            assert level == before - 1 and clock.now - fell >= 5.0
            fell = clock.now
        before = level


def test_each_step_gives_something_up(clock: ManualClock) -> None:
    config = OverloadConfig.model_validate({"smaller_models": {"whale": "krill"}})
    ladder = OverloadLadder(config, clock)
    seen = []
    for level in Level:
        ladder.hold(level)
        ladder.update(0.0)
        seen.append((ladder.thinking_tokens(100), ladder.model("whale"), ladder.registration_open))
    assert seen == [
        (100, "whale", True),
        (50, "whale", True),
        (50, "krill", True),
        (50, "krill", True),
        (50, "krill", False),
    ]
    assert ladder.model("squid") == "squid"
    ladder.hold(None)
    assert ladder.level == Level.NORMAL


def test_load_moves_the_ladder_and_queue_only_serves_every_account_once_first(
    make: MakeAdmission, clock: ManualClock
) -> None:
    admission = make(max_running=2, max_queued=10)
    tickets = [admission.enter(job("a", 10)) for _ in range(10)]
    admission.tick()
    stats = admission.stats()
    assert (stats.level, stats.load) == (Level.QUEUE_ONLY, 0.8)
    other = admission.enter(job("b", 10))
    admission.finish(tickets[0], 10)
    assert other.running and admission.stats().num_running == 2
    third = admission.enter(job("c", 10))
    admission.finish(tickets[1], 10)
    assert tickets[2].running and not third.running  # a had none left, and came first
    admission.finish(other, 10)
    assert third.running  # before a's second
    admission.finish(third, 10)
    assert admission.stats().num_running == 2  # nobody else waits: no place is left empty
