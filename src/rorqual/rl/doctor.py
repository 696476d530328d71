"""The RL doctor: reads a run's figures while it goes and says in words what they mean.

Each rule looks at a window of steps and names a known failure, its likely cause and what to
change (the complaints and ablations gathered in TRL's, verl's and open-r1's threads). Loss is not
among them: with one update per batch it is near zero whatever happens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

WINDOW = 10  # steps a rule averages over
_MANY_ZERO = 0.8
_MANY_TRUNCATED = 0.3
_MANY_UNANSWERED = 0.5
_LOW_ENTROPY = 0.02  # nats; below it nothing new is tried
_LARGE_GAP = 1e-3  # log-probability difference that fp32 on one machine does not make
_COLLAPSED_SHARE = 0.5  # of the best windowed accuracy
_WORTH_PROTECTING = 0.15

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, why it may be, and what to do. severity collapse stops the run."""

    code: str
    severity: Literal["notice", "warning", "collapse"]
    meaning: str
    advice: str

    def __str__(self) -> str:
        return f"{self.meaning} {self.advice}"


def _mean(window: Sequence[Figures], name: str) -> float | None:
    values = [float(figures[name]) for figures in window if figures.get(name) is not None]
    return sum(values) / len(values) if values else None


def _zero_variance(history: Sequence[Figures]) -> Finding | None:
    window = history[-WINDOW:]
    share, accuracy = _mean(window, "frac_reward_zero_std"), _mean(window, "accuracy")
    if share is None or accuracy is None or share <= _MANY_ZERO:
        return None
    if accuracy > 0.5:
        return Finding(
            "solved",
            "notice",
            f"{share:.0%} of the groups are equal because nearly all answers are right.",
            "The level is learnt: raise the level or stop.",
        )
    return Finding(
        "too_hard",
        "warning",
        f"{share:.0%} of the groups are equal because nearly all answers are wrong: nothing to "
        "learn from.",
        "Lower the level, add worked examples before RL, or raise num_generations.",
    )


def _truncation(history: Sequence[Figures]) -> Finding | None:
    share = _mean(history[-WINDOW:], "completions/clipped_ratio")
    if share is None or share <= _MANY_TRUNCATED:
        return None
    return Finding(
        "truncated",
        "warning",
        f"{share:.0%} of the completions hit max_completion_length without an end token and earn "
        "nothing.",
        "Raise max_completion_length, set overlong_buffer_tokens, or train the base to end.",
    )


def _unanswered(history: Sequence[Figures]) -> Finding | None:
    window = history[-WINDOW:]
    share, truncated = _mean(window, "share_no_answer"), _mean(window, "completions/clipped_ratio")
    if share is None or share <= _MANY_UNANSWERED:
        return None
    return Finding(
        "no_answer",
        "warning",
        f"{share:.0%} of the completions that end give no \\boxed{{}} answer"
        + (f" ({truncated:.0%} never end)." if truncated else "."),
        "Show the format in the base's data or add a short SFT before RL.",
    )


def _format_without_accuracy(history: Sequence[Figures]) -> Finding | None:
    if len(history) < 2 * WINDOW:
        return None
    before, after = history[-2 * WINDOW : -WINDOW], history[-WINDOW:]
    names = ("rewards/format/mean", "accuracy")
    (form0, right0), (form1, right1) = (
        tuple(_mean(window, name) for name in names) for window in (before, after)
    )
    if form0 is None or form1 is None or right0 is None or right1 is None:
        return None
    if form1 - form0 > 0.01 and right1 < right0 - 0.05:
        return Finding(
            "format_hacking",
            "warning",
            f"the format reward rises while accuracy fell from {right0:.0%} to {right1:.0%}.",
            "Lower the weight of format, or pay it only with a right answer.",
        )
    return None


def _entropy(history: Sequence[Figures]) -> Finding | None:
    window = history[-WINDOW:]
    entropy, accuracy = _mean(window, "entropy"), _mean(window, "accuracy")
    if entropy is None or accuracy is None or entropy > _LOW_ENTROPY or accuracy > 0.9:
        return None
    return Finding(
        "entropy_collapse",
        "warning",
        f"entropy is down to {entropy:.3f} nats at {accuracy:.0%} right: the model repeats itself "
        "and tries nothing new.",
        "Lower the learning rate, raise epsilon_high, or start again from an earlier checkpoint.",
    )


def _gap(history: Sequence[Figures]) -> Finding | None:
    gap = _mean(history[-WINDOW:], "sampling/sampling_logp_difference/mean")
    if gap is None or gap <= _LARGE_GAP:
        return None
    return Finding(
        "logp_gap",
        "warning",
        f"sampler and trainer disagree by {gap:.1e} nats a token on what was written.",
        "Use one dtype for both; with a separate engine check weight sync and routing.",
    )


def _trace_ignored(history: Sequence[Figures]) -> Finding | None:
    window = history[-WINDOW:]
    share = _mean(window, "completions/thinking_share")
    thinking, direct = _mean(window, "accuracy/thinking"), _mean(window, "accuracy/direct")
    if share is None or thinking is None or direct is None or not 0.05 < share < 0.95:
        return None
    if thinking >= direct + 0.02:
        return None
    return Finding(
        "trace_ignored",
        "notice",
        f"answers after thinking are right {thinking:.0%} of the time, direct ones {direct:.0%}: "
        "the reward gives no reason to think.",
        "Expect thinking to be pruned; use a level at which answering at once fails.",
    )


def _collapse(history: Sequence[Figures]) -> Finding | None:
    if len(history) < 3 * WINDOW:
        return None
    now = _mean(history[-WINDOW:], "accuracy")
    windows = range(WINDOW, len(history) - WINDOW + 1)
    best = max(_mean(history[end - WINDOW : end], "accuracy") or 0.0 for end in windows)
    if now is None or best < _WORTH_PROTECTING or now >= _COLLAPSED_SHARE * best:
        return None
    return Finding(
        "collapse",
        "collapse",
        f"accuracy fell from {best:.0%} to {now:.0%}: the policy has collapsed.",
        "The best checkpoint is kept; start from it with a lower learning rate.",
    )


_RULES: tuple[Callable[[Sequence[Figures]], Finding | None], ...] = (
    _collapse,
    _zero_variance,
    _truncation,
    _unanswered,
    _format_without_accuracy,
    _entropy,
    _gap,
    _trace_ignored,
)


def diagnose(history: Sequence[Figures]) -> list[Finding]:
    """Findings about the latest steps, worst first. history: one dict of figures a step."""
    if len(history) < WINDOW:
        return []
    return [finding for rule in _RULES if (finding := rule(history)) is not None]
