"""Kept responses: owned, followed along their ids, bounded in age and number."""

import pytest

from rorqual.errors import RequestError
from rorqual.platform import NotFound, Platform, StoredResponse
from tests.platform.conftest import ManualClock, OpenPlatform
from tests.platform.test_conversations import user_of

DAY = 86_400.0
ROOM = {"max_responses": 10, "max_bytes": 10_000}


def keep(platform: Platform, user_id: str, name: str, previous_id: str | None = None) -> None:
    asked, said = [{"text": f"{name}? 鲸\0"}], [{"text": f"{name}!"}]
    response = StoredResponse(name, asked, said, {"id": name})
    platform.responses.save(user_id, response, previous_id=previous_id)


def test_a_history_is_read_oldest_first(open_platform: OpenPlatform) -> None:
    writer, reader = open_platform(), open_platform()
    user = user_of(writer)
    for name, previous in (("a", None), ("b", "a"), ("c", "b"), ("other", "a")):
        keep(writer, user, name, previous)
    found = reader.responses.history(user, "c", **ROOM)
    assert [one.id for one in found] == ["a", "b", "c"]
    assert found[1] == reader.responses.get(user, "b")
    assert found[1].input == [{"text": "b? 鲸\0"}] and found[1].output == [{"text": "b!"}]


def test_a_history_with_a_gap_is_refused(platform: Platform) -> None:
    user = user_of(platform)
    for name, previous in (("a", None), ("b", "a"), ("c", "b")):
        keep(platform, user, name, previous)
    platform.responses.delete(user, "b")
    with pytest.raises(NotFound, match="response b does not exist") as raised:
        platform.responses.history(user, "c", **ROOM)
    assert raised.value.param == "previous_response_id"
    assert [one.id for one in platform.responses.history(user, "a", **ROOM)] == ["a"]


def test_a_history_is_bounded_before_it_is_read(platform: Platform) -> None:
    user = user_of(platform)
    for number in range(4):
        keep(platform, user, str(number), str(number - 1) if number else None)
    assert len(platform.responses.history(user, "3", max_responses=4, max_bytes=10_000)) == 4
    with pytest.raises(RequestError, match="more than 3 responses"):
        platform.responses.history(user, "3", max_responses=3, max_bytes=10_000)
    with pytest.raises(RequestError, match="at most 100") as raised:
        platform.responses.history(user, "3", max_responses=4, max_bytes=100)
    assert raised.value.code == "context_length_exceeded"
    with pytest.raises(RequestError, match="at most 50"):
        platform.responses.some(user, ["0", "1"], max_bytes=50)


def test_nothing_of_another_is_there(platform: Platform) -> None:
    owner, stranger = user_of(platform), user_of(platform, "starbuck")
    keep(platform, owner, "a")
    keep(platform, stranger, "b", "a")  # as if it had been let through
    for reach in (
        lambda: platform.responses.get(stranger, "a"),
        lambda: platform.responses.delete(stranger, "a"),
        lambda: platform.responses.history(stranger, "a", **ROOM),
        lambda: platform.responses.history(stranger, "b", **ROOM),
    ):
        with pytest.raises(NotFound):
            reach()
    assert set(platform.responses.some(stranger, ["a", "b"], max_bytes=10_000)) == {"b"}
    assert platform.responses.get(owner, "a").id == "a"


def test_the_oldest_makes_room_in_its_own_account(
    open_platform: OpenPlatform, clock: ManualClock
) -> None:
    platform = open_platform(responses={"max_per_account": 2})
    user, other = user_of(platform), user_of(platform, "starbuck")
    keep(platform, other, "theirs")
    for name in "abc":
        clock.advance(1)
        keep(platform, user, name)
    assert set(platform.responses.some(user, list("abc"), max_bytes=10_000)) == {"b", "c"}
    assert platform.responses.get(other, "theirs").id == "theirs"


def test_old_responses_are_swept_up(open_platform: OpenPlatform, clock: ManualClock) -> None:
    platform = open_platform(responses={"keep_days": 2})
    user = user_of(platform)
    keep(platform, user, "a")
    clock.advance(1.5 * DAY)
    keep(platform, user, "b")
    platform.sweeper.sweep()
    assert platform.responses.get(user, "a").id == "a"
    clock.advance(DAY)
    platform.sweeper.sweep()
    with pytest.raises(NotFound):
        platform.responses.get(user, "a")
    assert platform.responses.get(user, "b").id == "b"
