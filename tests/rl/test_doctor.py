"""Every rule of the doctor fires on a history made for it, and on nothing healthy."""

from typing import Any

import pytest

from rorqual.rl.doctor import WINDOW, Finding, diagnose

HEALTHY: dict[str, Any] = {
    "frac_reward_zero_std": 0.3,
    "accuracy": 0.5,
    "completions/clipped_ratio": 0.05,
    "share_no_answer": 0.02,
    "rewards/format/mean": 0.09,
    "entropy": 0.4,
    "sampling/sampling_logp_difference/mean": 1e-7,
    "completions/thinking_share": 0.6,
    "accuracy/thinking": 0.55,
    "accuracy/direct": 0.4,
}


def steps(count: int = WINDOW, **changes: Any) -> list[dict[str, Any]]:
    """Equal steps; names with a slash come as `a__b`."""
    changed = {name.replace("__", "/"): value for name, value in changes.items()}
    return [HEALTHY | changed for _ in range(count)]


def only(history: list[dict[str, Any]]) -> Finding:
    (finding,) = diagnose(history)
    return finding


def test_a_healthy_run_hears_nothing() -> None:
    rising = [HEALTHY | {"accuracy": 0.3 + 0.005 * step} for step in range(60)]
    for length in (1, WINDOW, 2 * WINDOW, len(rising)):
        assert diagnose(rising[:length]) == []


@pytest.mark.parametrize(
    ("history", "code"),
    [
        (steps(frac_reward_zero_std=0.9, accuracy=0.95), "solved"),
        (steps(frac_reward_zero_std=0.9, accuracy=0.02), "too_hard"),
        (steps(completions__clipped_ratio=0.4), "truncated"),
        (steps(share_no_answer=0.6), "no_answer"),
        (steps(entropy=0.01), "entropy_collapse"),
        (steps(sampling__sampling_logp_difference__mean=0.01), "logp_gap"),
        (steps(accuracy__thinking=0.4, accuracy__direct=0.45), "trace_ignored"),
        (
            steps(accuracy=0.5, rewards__format__mean=0.03)
            + steps(accuracy=0.4, rewards__format__mean=0.09),
            "format_hacking",
        ),
        (steps(2 * WINDOW, accuracy=0.6) + steps(accuracy=0.2), "collapse"),
    ],
)
def test_each_failure_is_named(history: list[dict[str, Any]], code: str) -> None:
    finding = only(history)
    assert finding.code == code
    assert finding.advice and str(finding).endswith(finding.advice)
    assert (finding.severity == "collapse") == (code == "collapse")


@pytest.mark.parametrize(
    "history",
    [
        steps(WINDOW - 1, entropy=0.001),  # too short to say
        steps(entropy=0.001, accuracy=0.95),  # certain because it is right
        steps(accuracy__thinking=0.4, completions__thinking_share=0.98),  # hardly any direct
        steps(accuracy__thinking=None, completions__thinking_share=0.5),
        steps(2 * WINDOW, accuracy=0.1) + steps(accuracy=0.02),  # it never was any good
        steps(WINDOW, accuracy=0.6) + steps(WINDOW, accuracy=0.2),  # shorter than a collapse
        steps(WINDOW, rewards__format__mean=0.03) + steps(WINDOW),  # format rises, accuracy stays
    ],
)
def test_what_is_no_failure_is_not_named(history: list[dict[str, Any]]) -> None:
    assert diagnose(history) == []


def test_missing_figures_are_passed_over() -> None:
    assert diagnose([{"accuracy": None, "entropy": 0.001}] * 40) == []


def test_only_the_latest_steps_count() -> None:
    ill = steps(completions__clipped_ratio=0.9)
    assert only(ill).code == "truncated"
    assert diagnose(ill + steps()) == []


def test_the_worst_comes_first() -> None:
    fallen = {"accuracy": 0.1, "frac_reward_zero_std": 0.9, "entropy": 0.001}
    found = diagnose(steps(2 * WINDOW) + steps(**fallen))
    assert [finding.code for finding in found] == ["collapse", "too_hard", "entropy_collapse"]


def test_percentages_are_the_windows_own() -> None:
    history = steps(5, completions__clipped_ratio=0.5) + steps(5, completions__clipped_ratio=0.3)
    assert "40%" in only(history).meaning
