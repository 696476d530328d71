"""Users, sessions, keys, and what a flood of logins or registrations has to pay."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from rorqual.config.server import PriceConfig
from rorqual.errors import ConfigError, RequestError
from rorqual.platform import (
    Busy,
    Level,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Platform,
    Price,
    Proof,
    RegistrationClosed,
    TokenCounts,
    TooManyAttempts,
)
from rorqual.platform.challenge import solve
from rorqual.platform.secret_text import KEY_PATTERN, looks_like_key, new_key
from rorqual.platform.tables import metadata
from tests.platform.conftest import ManualClock, OpenPlatform

PASSWORD = "call me ishmael"
EASY = {"challenge_bits": 6, "attempts_burst": 5, "attempts_per_minute": 60.0, "free_failures": 2}


def proof_of(challenge: str | None, bits: int) -> Proof:
    assert challenge is not None
    return Proof(challenge, solve(challenge, bits))


def register(platform: Platform, name: str, address: str = "192.0.2.1") -> str:
    demand = platform.accounts.gate.registration_demand()
    proof = proof_of(demand.challenge, demand.bits)
    return platform.register(name, PASSWORD, address=address, proof=proof).id


def test_a_user_registers_logs_in_and_out(open_platform: OpenPlatform) -> None:
    platform = open_platform(accounts=EASY | {"starting_balance": "1.5"})
    user_id = register(platform, "Ishmael@Pequod.example")
    assert platform.ledger.balance(user_id).available_nano == 1_500_000_000
    login = platform.accounts.login("ishmael@PEQUOD.example ", PASSWORD, address="192.0.2.9")
    assert platform.accounts.session(login.token).id == user_id
    platform.accounts.logout(login.token)
    with pytest.raises(NotAuthenticated):
        platform.accounts.session(login.token)
    assert platform.usage.audit() == []


def test_unknown_name_and_wrong_password_are_told_apart_by_nobody(platform: Platform) -> None:
    platform.accounts.create("ahab", PASSWORD)
    platform.accounts.create("keys only", None)
    errors = []
    for name in ("ahab", "nobody", "keys only", ""):
        with pytest.raises(NotAuthenticated) as refusal:
            platform.accounts.login(name, "wrong password", address="192.0.2.1")
        errors.append((str(refusal.value), refusal.value.code))
    assert len(set(errors)) == 1


def test_sessions_end_by_time_by_password_and_by_lock(
    open_platform: OpenPlatform, clock: ManualClock
) -> None:
    platform = open_platform(accounts={"session_days": 1.0})
    user = platform.accounts.create("ahab", PASSWORD)

    def login() -> str:
        return platform.accounts.login("ahab", PASSWORD, address="192.0.2.1").token

    old = login()
    clock.advance(86_401)
    kept = login()
    with pytest.raises(NotAuthenticated):
        platform.accounts.session(old)
    platform.accounts.set_password(user.id, PASSWORD + "!")
    with pytest.raises(NotAuthenticated):
        platform.accounts.session(kept)
    fresh = platform.accounts.open_session(user.id).token
    key = platform.keys.create(user.id, "laptop").secret
    platform.accounts.set_locked(user.id, True)
    for attempt in (
        lambda: platform.accounts.session(fresh),
        lambda: platform.keys.authenticate(key),
        lambda: platform.accounts.login("ahab", PASSWORD + "!", address="192.0.2.1"),
        lambda: platform.ledger.reserve(
            "r", user.id, "whale", prompt_tokens=0, max_output_tokens=0
        ),
    ):
        with pytest.raises(NotAllowed) as refusal:
            attempt()
        assert refusal.value.code == "account_locked"
    platform.accounts.set_locked(user.id, False)
    assert platform.accounts.session(fresh).id == user.id


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 255, "local", "AHAB"])
def test_a_bad_or_taken_name_is_refused(platform: Platform, name: str) -> None:
    platform.accounts.create("ahab", None)
    with pytest.raises(RequestError) as refusal:
        platform.accounts.create(name, None)
    assert refusal.value.param == "name"


def test_password_hashes_are_argon2id_and_few_at_a_time(open_platform: OpenPlatform) -> None:
    platform = open_platform(accounts={"hash_wait_seconds": 0.05})
    with pytest.raises(RequestError, match="10 to 1024"):
        platform.accounts.create("ahab", "short")
    platform.accounts.create("ahab", PASSWORD)
    users = metadata.tables["users"]
    stored = platform.database.read(lambda c: c.execute(select(users.c.password_hash)).scalar())
    assert stored is not None and stored.startswith("$argon2id$")
    slots = platform.accounts._passwords._slots  # pyright: ignore[reportPrivateUsage]
    with slots, slots, pytest.raises(Busy):
        platform.accounts.login("ahab", PASSWORD, address="192.0.2.1")


def test_roles_and_listing(platform: Platform) -> None:
    ahab, starbuck = (platform.accounts.create(name, None) for name in ("starbuck", "ahab"))
    assert platform.accounts.set_role(ahab.id, "admin").role == "admin"
    assert [user.name for user in platform.accounts.page()] == ["ahab", "starbuck"]
    assert platform.accounts.page(limit=1, offset=1)[0].id == ahab.id
    assert platform.accounts.by_name("AHAB").id == starbuck.id
    for missing in (lambda: platform.accounts.get("x"), lambda: platform.accounts.by_name("x")):
        with pytest.raises(NotFound):
            missing()


def test_local_mode_has_one_user_and_no_login(open_platform: OpenPlatform) -> None:
    assert open_platform().local_user() is None
    local = open_platform(mode="local")
    user = local.local_user()
    assert user is not None and user == local.local_user() and user.role == "admin"
    with pytest.raises(NotAuthenticated):
        local.accounts.login("local", "", address="127.0.0.1")


# Throttling


def test_registration_needs_work_once_each(open_platform: OpenPlatform) -> None:
    platform = open_platform(accounts=EASY)
    demand = platform.accounts.gate.registration_demand()
    proof = proof_of(demand.challenge, demand.bits)
    for bad in (None, Proof(proof.challenge, "x"), Proof("x" + proof.challenge, proof.nonce)):
        with pytest.raises(NotAllowed) as refusal:
            platform.register("a", PASSWORD, address="192.0.2.1", proof=bad)
        assert refusal.value.code == "challenge_required"
    platform.register("a", PASSWORD, address="192.0.2.2", proof=proof)
    with pytest.raises(NotAllowed, match="used before"):
        platform.register("b", PASSWORD, address="192.0.2.2", proof=proof)


def test_a_spent_proof_is_spent_on_every_server(open_platform: OpenPlatform) -> None:
    first, second = open_platform(accounts=EASY), open_platform(accounts=EASY)
    demand = first.accounts.gate.registration_demand()
    proof = proof_of(demand.challenge, demand.bits)
    second.register("a", PASSWORD, address="192.0.2.2", proof=proof)
    with pytest.raises(NotAllowed, match="used before"):
        first.register("b", PASSWORD, address="192.0.2.2", proof=proof)


def test_a_proof_expires_is_for_one_purpose_and_hard_enough(
    open_platform: OpenPlatform, clock: ManualClock
) -> None:
    platform = open_platform(accounts=EASY)
    gate = platform.accounts.gate
    old = gate.registration_demand()
    stale = proof_of(old.challenge, old.bits)
    clock.advance(301)
    with pytest.raises(NotAllowed, match="expired"):
        gate.pass_registration("192.0.2.1", stale)
    for _ in range(3):
        gate.note_failure("ahab")
    other = gate.login_demand("ahab", "192.0.2.1")
    with pytest.raises(NotAllowed, match="something else"):
        gate.pass_registration("192.0.2.1", proof_of(other.challenge, other.bits))
    easy = gate.registration_demand()
    platform.hold_level(Level.SHORTER_THINKING)
    with pytest.raises(NotAllowed, match="too easy: 6 bits, 7"):
        gate.pass_registration("192.0.2.1", proof_of(easy.challenge, easy.bits))


def test_registrations_of_one_address_are_throttled(
    open_platform: OpenPlatform, clock: ManualClock
) -> None:
    platform = open_platform(accounts=EASY)
    for index in range(5):
        register(platform, f"user {index}", f"2001:db8::{index}")
    with pytest.raises(TooManyAttempts) as refusal:
        register(platform, "user 5", "2001:db8::ffff")
    assert refusal.value.retry_after_seconds == pytest.approx(1.0)
    register(platform, "user 5", "2001:db8:0:1::1")
    clock.advance(1.0)
    register(platform, "user 6", "2001:db8::ffff")


def test_nobody_is_locked_out_by_the_failures_of_others(open_platform: OpenPlatform) -> None:
    platform = open_platform(accounts=EASY)
    user = platform.accounts.create("ahab", PASSWORD)
    gate = platform.accounts.gate
    for index in range(40):  # an attacker with many addresses, who also pays the proofs
        address = f"198.51.100.{index}"
        demand = gate.login_demand("ahab", address)
        proof = proof_of(demand.challenge, demand.bits) if demand.bits else None
        with pytest.raises(NotAuthenticated):
            platform.accounts.login("ahab", "guess", address=address, proof=proof)
    with pytest.raises(NotAllowed) as refusal:
        platform.accounts.login("ahab", PASSWORD, address="192.0.2.7")
    assert refusal.value.code == "challenge_required"
    demand = gate.login_demand("ahab", "192.0.2.7")
    proof = proof_of(demand.challenge, demand.bits)
    login = platform.accounts.login("ahab", PASSWORD, address="192.0.2.7", proof=proof)
    assert login.user.id == user.id
    assert gate.login_demand("starbuck", "192.0.2.7").bits == 0


def test_a_busy_address_pays_more_and_still_gets_in(open_platform: OpenPlatform) -> None:
    platform = open_platform(accounts=EASY)
    platform.accounts.create("ahab", PASSWORD)
    for index in range(5):  # somebody behind the same address
        with pytest.raises(NotAuthenticated):
            platform.accounts.login(f"guess {index}", "guess", address="192.0.2.7")
    demand = platform.accounts.gate.login_demand("ahab", "192.0.2.7")
    assert demand.bits == 10
    proof = proof_of(demand.challenge, demand.bits)
    assert platform.accounts.login("ahab", PASSWORD, address="192.0.2.7", proof=proof)


def test_failures_are_forgotten(open_platform: OpenPlatform, clock: ManualClock) -> None:
    gate = open_platform(accounts=EASY).accounts.gate
    for _ in range(3):
        gate.note_failure("ahab")
    assert gate.login_demand("ahab", "192.0.2.1").bits == 6
    clock.advance(901)
    assert gate.login_demand("ahab", "192.0.2.1").bits == 0


def test_registration_closes_by_configuration_and_under_load(open_platform: OpenPlatform) -> None:
    closed = open_platform(accounts={"registration": "closed"})
    with pytest.raises(RegistrationClosed):
        closed.register("a", PASSWORD, address="192.0.2.1", proof=None)
    platform = open_platform(accounts=EASY)
    user = platform.accounts.create("ahab", PASSWORD)
    platform.hold_level(Level.REGISTRATION_CLOSED)
    with pytest.raises(RegistrationClosed):
        register(platform, "a")
    login = platform.accounts.login("ahab", PASSWORD, address="192.0.2.1")
    assert login.user.id == user.id
    platform.hold_level(None)
    register(platform, "a")


# Keys


def test_a_key_is_shown_once_and_stored_hashed(platform: Platform, tmp_path: Path) -> None:
    user = platform.accounts.create("ahab", PASSWORD)
    made = platform.keys.create(user.id, "laptop", models=["whale"], cap_nano=5)
    login = platform.accounts.login("ahab", PASSWORD, address="192.0.2.1")
    assert re.fullmatch(KEY_PATTERN, made.secret) and made.secret.endswith(made.key.hint)
    caller = platform.keys.authenticate(made.secret)
    assert (caller.user.id, caller.key) == (user.id, made.key)
    caller.key.require_model("whale")
    with pytest.raises(NotAllowed):
        caller.key.require_model("squid")
    everything = platform.database.read(
        lambda c: [str(c.execute(select(table)).all()) for table in metadata.sorted_tables]
    )
    for secret in (made.secret, login.token, PASSWORD):
        assert secret not in "".join(everything)
    assert made.secret[-4:] in "".join(everything)


def test_keys_end_by_revocation_and_by_time(platform: Platform, clock: ManualClock) -> None:
    user, other = (platform.accounts.create(name, None) for name in ("ahab", "starbuck"))
    made = platform.keys.create(user.id, "laptop", expires_seconds=clock.now + 60)
    with pytest.raises(NotFound):
        platform.keys.revoke(other.id, made.key.id)
    known = platform.keys.authenticate(made.secret).key
    platform.keys.use(known)
    clock.advance(60)
    with pytest.raises(NotAuthenticated):
        platform.keys.authenticate(made.secret)
    with pytest.raises(NotAuthenticated):
        platform.keys.use(known)
    lasting = platform.keys.create(user.id, "server")
    platform.keys.revoke(user.id, lasting.key.id)
    platform.keys.revoke(user.id, lasting.key.id)
    with pytest.raises(NotAuthenticated):
        platform.keys.authenticate(lasting.secret)
    assert [key.revoked_seconds for key in platform.keys.of_user(user.id)] == [clock.now, None]
    with pytest.raises(NotFound):
        platform.keys.create("user_nobody", "x")


def test_the_last_use_of_keys_is_written_now_and_then(
    open_platform: OpenPlatform, clock: ManualClock
) -> None:
    platform, other = open_platform(), open_platform()
    user = platform.accounts.create("ahab", None)
    used, unused = (platform.keys.create(user.id, name) for name in ("used", "unused"))

    def last_uses() -> dict[str, float | None]:
        return {key.name: key.last_used_seconds for key in platform.keys.of_user(user.id)}

    platform.keys.authenticate(used.secret)
    clock.advance(5)
    other.keys.authenticate(used.secret)
    assert last_uses() == {"used": None, "unused": None}, "a request costs no write"
    other.keys.note_uses()
    platform.keys.note_uses()  # an older use of a slower server does not undo it
    assert last_uses() == {"used": clock.now, "unused": None}
    commits = platform.database.commit_counts
    platform.keys.note_uses()
    assert platform.database.commit_counts == commits, "nothing was used, nothing is written"
    with pytest.raises(NotAuthenticated):
        platform.keys.authenticate(unused.secret[:-1] + "~")


def test_a_mistyped_key_does_not_reach_the_database(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform.database, "read", None)
    with pytest.raises(NotAuthenticated, match="checksum"):
        platform.keys.authenticate(new_key()[:-1] + "~")


@settings(deadline=None)
@given(st.data())
def test_one_wrong_character_is_always_noticed(data: st.DataObject) -> None:
    key = new_key()
    assert looks_like_key(key)
    index = data.draw(st.integers(0, len(key) - 1))
    character = data.draw(st.characters().filter(lambda c: c != key[index]))
    assert not looks_like_key(key[:index] + character + key[index + 1 :])
    swapped = key[:index] + key[index + 1 : index + 2] + key[index] + key[index + 2 :]
    assert looks_like_key(swapped) == (swapped == key)


@settings(deadline=None)
@given(st.text(max_size=80))
def test_no_text_breaks_the_key_check(text: str) -> None:
    assert not looks_like_key(text)


def test_keys_do_not_repeat() -> None:
    assert len({new_key() for _ in range(1000)}) == 1000


# Prices


def price(**changes: object) -> PriceConfig:
    values: dict[str, object] = {"model": "squid", "cache_hit": 1, "input": 2, "output": 3}
    return PriceConfig.model_validate(values | changes)


def test_a_price_counts_from_its_date_and_never_changes(
    platform: Platform, clock: ManualClock
) -> None:
    later = datetime.fromtimestamp(clock.now + 100, UTC)
    platform.prices.add_all([price(), price(), price(effective=later, output="0.000000001")])
    user = platform.accounts.create("ahab", None)
    platform.ledger.top_up(user.id, 10**9, "p")
    platform.ledger.reserve("r", user.id, "squid", prompt_tokens=1000, max_output_tokens=1000)
    current = platform.prices.current("squid")
    assert current is not None
    assert (current.reasoning_nano, current.charge_nano(TokenCounts(1, 1, 1, 1))) == (
        3 * 10**9,
        9000,
    )
    clock.advance(100)
    current = platform.prices.current("squid")
    assert current is not None and current.output_nano == 1
    assert current.charge_nano(TokenCounts(output_tokens=1)) == 1  # rounded up
    bill = platform.ledger.settle("r", TokenCounts(output_tokens=1))
    assert bill.charge_nano == 3000  # at the price of its reservation
    with pytest.raises(ConfigError, match="never edited"):
        platform.prices.add(price(output="3.5"))
    with pytest.raises(ConfigError, match="nano-unit"):
        platform.prices.add(price(model="krill", input="0.0000000001"))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**4), st.data())
def test_no_charge_exceeds_the_reservation(
    prompt: int, output: int, nano: int, data: st.DataObject
) -> None:
    nanos = [data.draw(st.integers(0, 10**10)) for _ in range(3)]
    made = Price(1, "m", 0.0, nano, *nanos)
    hit = data.draw(st.integers(0, prompt))
    reasoning = data.draw(st.integers(0, output))
    counts = TokenCounts(hit, prompt - hit, output - reasoning, reasoning)
    assert made.charge_nano(counts) <= made.worst_nano(prompt, output)
