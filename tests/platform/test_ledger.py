"""Money on both databases: reserve, log, settle, and what is refused."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, text, update
from sqlalchemy.exc import DBAPIError

from rorqual.errors import RequestError
from rorqual.platform import (
    InsufficientBalance,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Platform,
    RequestClosed,
    ReservationExceeded,
    TokenCounts,
)
from rorqual.platform.tables import ledger, users
from tests.platform.conftest import ManualClock, OpenPlatform

# whale: 0.27 a million prompt tokens, 2.19 a million reasoning tokens: 270 and 2190 nano each.
WORST_NANO = 100 * 270 + 50 * 2190


def funded(platform: Platform, amount_nano: int, name: str = "ahab") -> str:
    user = platform.accounts.create(name, None)
    if amount_nano:
        platform.ledger.top_up(user.id, amount_nano, f"payment-{name}")
    return user.id


def reserve(platform: Platform, request_id: str, user_id: str, **changes: object) -> int:
    values: dict[str, object] = {"prompt_tokens": 100, "max_output_tokens": 50} | changes
    held = platform.ledger.reserve(request_id, user_id, "whale", **values)  # type: ignore[arg-type]
    return held.reserved_nano


def test_a_request_costs_its_logged_tokens_and_no_more(platform: Platform) -> None:
    user = funded(platform, 10**9)
    assert reserve(platform, "r1", user) == WORST_NANO
    balance = platform.ledger.balance(user)
    assert (balance.available_nano, balance.reserved_nano) == (10**9 - WORST_NANO, WORST_NANO)
    platform.ledger.log("r1", TokenCounts(40, 60, 0, 10))
    platform.ledger.log("r1", TokenCounts(40, 60, 5, 10))
    bill = platform.ledger.settle("r1", TokenCounts(40, 60, 7, 10))
    charge = 40 * 70 + 60 * 270 + 7 * 1100 + 10 * 2190
    assert (bill.charge_nano, bill.released_nano) == (charge, WORST_NANO - charge)
    balance = platform.ledger.balance(user)
    assert (balance.available_nano, balance.reserved_nano) == (10**9 - charge, 0)
    kinds = [(entry.kind, entry.amount_nano) for entry in platform.ledger.entries(user)]
    assert kinds == [
        ("settle", -charge),
        ("release", WORST_NANO),
        ("reserve", -WORST_NANO),
        ("topup", 10**9),
    ]
    assert platform.usage.audit() == []


def test_repeating_any_step_changes_nothing(platform: Platform) -> None:
    user = funded(platform, 10**9)
    platform.ledger.top_up(user, 10**9, "payment-ahab")
    for _ in range(3):
        reserve(platform, "r1", user)
    for _ in range(3):
        platform.ledger.log("r1", TokenCounts(0, 100, 5, 0))
    first = platform.ledger.settle("r1")
    again = platform.ledger.settle("r1", TokenCounts(0, 100, 50, 0))
    assert (first.repeated, again.repeated) == (False, True)
    assert again.charge_nano == first.charge_nano == 100 * 270 + 5 * 1100
    assert platform.ledger.release("r1").repeated
    assert platform.ledger.balance(user).available_nano == 10**9 - first.charge_nano
    assert len(platform.ledger.entries(user)) == 4
    assert platform.usage.audit() == []


def test_release_is_free_and_only_for_what_delivered_nothing(platform: Platform) -> None:
    user = funded(platform, 10**9)
    reserve(platform, "r1", user)
    assert platform.ledger.release("r1").charge_nano == 0
    assert platform.ledger.balance(user).available_nano == 10**9
    reserve(platform, "r2", user)
    platform.ledger.log("r2", TokenCounts(0, 100, 1, 0))
    with pytest.raises(RequestError, match="101 tokens"):
        platform.ledger.release("r2")
    platform.ledger.settle("r2", outcome="failed")
    assert platform.usage.audit() == []


def test_a_balance_that_does_not_cover_the_worst_case_is_refused(platform: Platform) -> None:
    user = funded(platform, 2 * WORST_NANO - 1)
    reserve(platform, "r1", user)
    with pytest.raises(InsufficientBalance) as refusal:
        reserve(platform, "r2", user)
    assert refusal.value.code == "insufficient_balance"
    assert [entry.kind for entry in platform.ledger.entries(user)] == ["reserve", "topup"]
    with pytest.raises(NotFound):
        platform.ledger.settle("r2")


def test_a_key_spends_up_to_its_cap_and_belongs_to_its_owner(platform: Platform) -> None:
    user, other = funded(platform, 10**9), funded(platform, 10**9, "queequeg")
    key = platform.keys.create(user, "laptop", cap_nano=WORST_NANO).key
    reserve(platform, "r1", user, key_id=key.id)
    with pytest.raises(InsufficientBalance) as refusal:
        reserve(platform, "r2", user, key_id=key.id)
    assert refusal.value.code == "key_cap_reached"
    platform.ledger.settle("r1", TokenCounts(0, 10, 0, 0))
    assert platform.keys.of_user(user)[0].spent_nano == 2700
    assert platform.ledger.balance(user).available_nano == 10**9 - 2700
    with pytest.raises(NotAuthenticated):
        reserve(platform, "r3", other, key_id=key.id)
    platform.keys.revoke(user, key.id)
    with pytest.raises(NotAuthenticated):
        reserve(platform, "r4", user, key_id=key.id, max_output_tokens=0)
    assert platform.usage.audit() == []


def test_a_log_beyond_the_reservation_or_backwards_is_refused(platform: Platform) -> None:
    user = funded(platform, 10**9)
    reserve(platform, "r1", user)
    platform.ledger.log("r1", TokenCounts(0, 100, 20, 20))
    for counts in (
        TokenCounts(0, 101, 20, 20),
        TokenCounts(0, 100, 31, 20),
        TokenCounts(0, 100, 19, 20),
        TokenCounts(0, 99, 20, 20),
    ):
        with pytest.raises(ReservationExceeded):
            platform.ledger.log("r1", counts)
    with pytest.raises(ReservationExceeded):  # a refused settle closes nothing
        platform.ledger.settle("r1", TokenCounts(0, 100, 51, 0))
    assert platform.ledger.settle("r1").counts == TokenCounts(0, 100, 20, 20)
    with pytest.raises(RequestClosed):
        platform.ledger.log("r1", TokenCounts(0, 100, 21, 20))


def test_a_request_id_names_one_request(platform: Platform) -> None:
    user, other = funded(platform, 10**9), funded(platform, 10**9, "queequeg")
    reserve(platform, "r1", user)
    for changes in ({"user": other}, {"max_output_tokens": 51}):
        owner = str(changes.pop("user", user))
        with pytest.raises(RequestError, match="other values"):
            reserve(platform, "r1", owner, **changes)
    platform.ledger.settle("r1")
    with pytest.raises(RequestClosed):
        reserve(platform, "r1", user)
    with pytest.raises(RequestError, match="another user or amount"):
        platform.ledger.top_up(other, 1, "payment-ahab")
    with pytest.raises(RequestError, match="characters"):
        reserve(platform, "r" * 65, user)


def test_adjustments_reach_zero_and_not_below(platform: Platform) -> None:
    user = funded(platform, 100)
    with pytest.raises(InsufficientBalance):
        platform.ledger.adjust(user, -101, "refund-1", note="too much")
    assert platform.ledger.adjust(user, -100, "refund-1", note="right") == 0
    assert platform.ledger.adjust(user, -100, "refund-1", note="again") == 0
    with pytest.raises(RequestError):
        platform.ledger.top_up(user, 0, "nothing")
    assert platform.usage.audit() == []


def test_a_model_without_a_price_is_refused_or_free(open_platform: OpenPlatform) -> None:
    strict = open_platform()
    user = funded(strict, 0)
    with pytest.raises(NotAllowed) as refusal:
        strict.ledger.reserve("r1", user, "squid", prompt_tokens=1, max_output_tokens=1)
    assert refusal.value.code == "no_price"
    free = open_platform(metering={"unpriced": "free"})
    free.ledger.reserve("r1", user, "squid", prompt_tokens=10**9, max_output_tokens=1)
    assert free.ledger.settle("r1", TokenCounts(0, 5, 1, 0)).charge_nano == 0
    assert free.usage.audit() == []


def test_the_database_itself_refuses_to_change_the_ledger_or_overdraw(platform: Platform) -> None:
    user = funded(platform, 100)
    forbidden = [
        update(ledger).values(amount_nano=0),
        delete(ledger),
        update(users).where(users.c.id == user).values(balance_nano=-1),
    ]
    for statement in forbidden:
        with pytest.raises(DBAPIError, match=r"append-only|balance"):
            platform.database.write(lambda connection, s=statement: connection.execute(s).rowcount)
    assert platform.ledger.balance(user).available_nano == 100


def test_usage_counts_by_day_key_and_model(platform: Platform, clock: ManualClock) -> None:
    user = funded(platform, 10**9)
    key = platform.keys.create(user, "laptop").key
    for index, key_id in enumerate((None, key.id, key.id)):
        reserve(platform, f"r{index}", user, key_id=key_id)
        platform.ledger.settle(f"r{index}", TokenCounts(1, 2, 3, 4))
    clock.advance(86_400)
    reserve(platform, "r9", user)
    platform.ledger.settle("r9", TokenCounts(0, 2, 0, 0))
    rows = platform.usage.by_day(user, "2027-01-01", "2027-01-31")
    charge = 70 + 2 * 270 + 3 * 1100 + 4 * 2190
    assert sorted((r.day, r.key_id or "", r.num_requests, r.charge_nano) for r in rows) == [
        ("2027-01-15", "", 1, charge),
        ("2027-01-15", key.id, 2, 2 * charge),
        ("2027-01-16", "", 1, 540),
    ]
    assert next(r for r in rows if r.key_id == key.id).counts == TokenCounts(2, 4, 6, 8)
    assert platform.usage.by_day(user, "2027-01-16", "2027-01-16")[0].day == "2027-01-16"


def test_audit_sees_a_balance_that_does_not_add_up(platform: Platform) -> None:
    user = funded(platform, 100)
    wrong = update(users).where(users.c.id == user).values(balance_nano=101)
    platform.database.write(lambda connection: connection.execute(wrong).rowcount)
    assert platform.usage.audit() == [f"user {user}: balance 101, ledger 100"]


def test_concurrent_reserves_never_overdraw(platform: Platform) -> None:
    user = funded(platform, 10 * WORST_NANO + WORST_NANO // 2)
    key = platform.keys.create(user, "laptop", cap_nano=7 * WORST_NANO).key
    barrier = threading.Barrier(16)

    def compete(worker: int) -> int:
        barrier.wait()
        won = 0
        for attempt in range(4):
            key_id = key.id if (worker + attempt) % 2 else None
            try:
                reserve(platform, f"r{worker}-{attempt}", user, key_id=key_id)
                won += 1
            except InsufficientBalance:
                continue
        return won

    with ThreadPoolExecutor(16) as pool:
        won = sum(pool.map(compete, range(16)))
    assert won == 10
    balance = platform.ledger.balance(user)
    assert (balance.available_nano, balance.reserved_nano) == (WORST_NANO // 2, 10 * WORST_NANO)
    assert platform.keys.of_user(user)[0].spent_nano <= 7 * WORST_NANO
    assert platform.usage.audit() == []


def test_settle_log_and_sweep_may_race(platform: Platform) -> None:
    user = funded(platform, 100 * WORST_NANO)
    with ThreadPoolExecutor(8) as pool:
        for index in range(12):
            request_id = f"r{index}"
            reserve(platform, request_id, user)
            bills = [pool.submit(platform.ledger.settle, request_id) for _ in range(3)]
            log = pool.submit(platform.ledger.log, request_id, TokenCounts(0, 100, 5, 0))
            settled = [bill.result() for bill in bills]
            assert sum(not bill.repeated for bill in settled) == 1
            logged = log.exception() is None
            assert {bill.counts.output_tokens for bill in settled} == {5 if logged else 0}
    assert platform.usage.audit() == []


def test_two_connections_share_one_balance(open_platform: OpenPlatform) -> None:
    """Two servers on one database; on SQLite two writers that wait for each other."""
    first, second = open_platform(), open_platform()
    user = funded(first, 20 * WORST_NANO)

    def spend(server: Platform, name: str) -> int:
        won = 0
        for index in range(30):
            try:
                reserve(server, f"{name}{index}", user)
                won += 1
            except InsufficientBalance:
                continue
        return won

    with ThreadPoolExecutor(2) as pool:
        a, b = pool.submit(spend, first, "a"), pool.submit(spend, second, "b")
        assert a.result() + b.result() == 20
    assert first.ledger.balance(user).available_nano == 0
    assert second.usage.audit() == []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "log", "settle", "release", "topup", "adjust"]),
        st.integers(0, 5),
        st.integers(0, 120),
        st.integers(0, 60),
    ),
    max_size=40,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_the_books_add_up_after_any_sequence(platform: Platform, steps: list[tuple]) -> None:
    user = platform.accounts.create(f"user {platform.accounts.count()}", None).id
    platform.ledger.top_up(user, 3 * WORST_NANO, f"first {user}")
    for kind, slot, prompt, output in steps:
        request_id = f"{user[-12:]}-{slot}"
        try:
            if kind == "reserve":
                reserve(platform, request_id, user, prompt_tokens=prompt, max_output_tokens=output)
            elif kind == "log":
                platform.ledger.log(request_id, TokenCounts(0, prompt, output, 0))
            elif kind == "settle":
                platform.ledger.settle(request_id, TokenCounts(prompt, 0, 0, output))
            elif kind == "release":
                platform.ledger.release(request_id)
            elif kind == "topup":
                platform.ledger.top_up(user, prompt + 1, request_id)
            else:
                platform.ledger.adjust(user, output - prompt, request_id, note="")
        except RequestError:
            continue
        finally:
            assert platform.ledger.balance(user).available_nano >= 0
    assert platform.usage.audit() == []


def test_a_failed_operation_takes_only_itself_back(platform: Platform) -> None:
    """Operations that share a commit do not share their fate."""

    def insert_then_fail(connection: object) -> None:
        connection.execute(text("INSERT INTO settings VALUES ('a', 'b')"))  # type: ignore[attr-defined]
        raise ValueError("no")

    good = [
        platform.database.submit(
            lambda connection, i=i: (
                connection.execute(text(f"INSERT INTO settings VALUES ('good{i}', '1')")).rowcount
            )
        )
        for i in range(5)
    ]
    bad = [platform.database.submit(insert_then_fail) for _ in range(5)]
    assert [future.result() for future in good] == [1] * 5
    assert all(isinstance(future.exception(), ValueError) for future in bad)
    count = text("SELECT count(*) FROM settings WHERE name LIKE 'good%' OR name = 'a'")
    assert platform.database.read(lambda connection: connection.execute(count).scalar()) == 5
