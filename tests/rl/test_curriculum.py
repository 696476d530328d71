"""What is asked when, and how levels move."""

from pathlib import Path

import pytest

from rorqual.config.rl import RLConfig
from rorqual.config.tasks import TaskShare
from rorqual.rl.curriculum import Curriculum, derive_seed
from rorqual.tasks import load_task

SHARES = (
    TaskShare(name="running_state", levels=(1, 2, 3), weight=3.0),
    TaskShare(name="countdown", levels=(1,), languages=("en",)),
)
GROUPS = 16  # a pass rate is taken over so many


def curriculum(**fields: object) -> Curriculum:
    config = RLConfig.model_validate({"model": Path("m"), "curriculum": True} | fields)
    return Curriculum(config, SHARES, [load_task(share.name) for share in SHARES])


def feed(one: Curriculum, pass_rate: float, groups: int = GROUPS) -> None:
    for _ in range(groups):
        one.record(0, pass_rate)


def test_levels_rise_above_one_pass_rate_and_fall_below_another() -> None:
    one = curriculum()
    levels = [one.level(0)]
    for pass_rate in (0.8, 0.5, 0.9, 0.05, 0.0, 0.0):
        feed(one, pass_rate)
        levels.append(one.level(0))
    assert levels == [1, 2, 2, 3, 2, 1, 1]


def test_a_level_moves_one_step_and_waits_for_a_full_window() -> None:
    one = curriculum()
    feed(one, 1.0, GROUPS - 1)
    assert one.level(0) == 1
    feed(one, 1.0, 1)
    assert one.level(0) == 2
    feed(one, 1.0, GROUPS - 1)  # rates of the level below do not count here
    assert one.level(0) == 2
    feed(one, 1.0, 1 + 3 * GROUPS)
    assert one.level(0) == 3  # the hardest there is


def test_other_shares_stay_where_they_are() -> None:
    one = curriculum()
    feed(one, 1.0)
    assert (one.level(0), one.level(1)) == (2, 1)
    assert one.pass_rates() == {}
    one.record(1, 0.25)
    assert one.pass_rates() == {"countdown": 0.25}


def test_levels_stay_evenly_drawn_without_a_curriculum() -> None:
    one = curriculum(curriculum=False)
    feed(one, 1.0, 3 * GROUPS)
    assert one.level(0) == 1
    drawn = [one.draw(0, 0, index) for index in range(200)]
    assert {d.problem.level for d in drawn if d.share_idx == 0} == {1, 2, 3}


def test_draws_depend_on_their_place_alone() -> None:
    one, other = curriculum(), curriculum()
    places = [(step, attempt, index) for step in (0, 7) for attempt in (0, 1) for index in range(6)]
    forward = [one.draw(*place) for place in places]
    backward = [other.draw(*place) for place in reversed(places)]
    assert forward == backward[::-1]
    assert len({drawn.problem.key for drawn in forward}) > len(places) // 2
    assert [curriculum(seed=1).draw(*place) for place in places] != forward


def test_draws_follow_weights_levels_and_languages() -> None:
    one = curriculum()
    feed(one, 1.0)
    drawn = [one.draw(0, 0, index) for index in range(400)]
    first = [d.problem for d in drawn if d.share_idx == 0]
    assert len(first) / len(drawn) == pytest.approx(0.75, abs=0.08)
    assert {problem.level for problem in first} == {2}
    assert {problem.language for problem in first} == {"en", "zh"}
    assert {d.problem.language for d in drawn if d.share_idx == 1} == {"en"}
    assert not any(d.problem.held_out for d in drawn)


def test_a_saved_state_goes_on_as_if_nothing_happened() -> None:
    whole, part = curriculum(), curriculum()
    for one in (whole, part):
        feed(one, 0.9, GROUPS + 5)
    again = curriculum()
    again.load_state_dict(part.state_dict())
    for pass_rate in [1.0] * 11 + [0.0] * 40:
        whole.record(0, pass_rate)
        again.record(0, pass_rate)
        assert again.state_dict() == whole.state_dict()
    assert again.level(0) == 1


def test_seeds_differ_by_every_part_and_never_change() -> None:
    seeds = {derive_seed("a", step, row) for step in range(30) for row in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed("rollout", 0, 1) == derive_seed("rollout", 0, 1) != derive_seed("x", 0, 1)
