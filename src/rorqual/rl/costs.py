"""What RL and distillation spend: tokens through each model, and the FLOPs they stand for.

A forward pass costs 2 FLOPs per active weight and token, a trained token 6 (planner/flops.py);
attention scores are left out, as in that rule. Counted is what really goes through a model: the
prompt tokens too (once per different prompt when sampling, once per row that shares them when
training or scoring), rejected samples too, the last token of a sequence not, since nothing is
predicted from it. The head counts for every token, though it is only applied where something is
predicted. Padding and evaluations are not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from rorqual.config import ModelConfig
from rorqual.planner import count_parameters

_FORWARD, _TRAINED = 2, 6


@dataclass(slots=True)
class Tokens:
    """Tokens that passed through each model, for each purpose."""

    student_training: int = 0
    student_sampling: int = 0
    teacher_sampling: int = 0
    teacher_scoring: int = 0

    def add(self, other: "Tokens") -> None:
        """Add what another part of the run spent."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def sampled_tokens(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> int:
    """Tokens fed to write these: each different prompt once, each completion but its last id."""
    different = {tuple(prompt) for prompt in prompts}
    return sum(map(len, different)) + sum(len(ids) - 1 for ids in completions)


class FlopCounter:
    """FLOPs of a student and a teacher. teacher None: behind an endpoint, of unknown size."""

    def __init__(self, student: ModelConfig, teacher: ModelConfig | None):
        self.student_active = count_parameters(student).active_matmul
        self.teacher_active = None if teacher is None else count_parameters(teacher).active_matmul

    def flops(self, tokens: Tokens) -> dict[str, int | None]:
        """By purpose, the student's alone (`student`), and everything (`total`)."""
        training = _TRAINED * self.student_active * tokens.student_training
        sampling = _FORWARD * self.student_active * tokens.student_sampling
        found: dict[str, int | None] = {
            "student_training": training,
            "student_sampling": sampling,
            "student": training + sampling,
            "teacher_sampling": None,
            "teacher_scoring": None,
            "total": None,
        }
        if self.teacher_active is not None:
            per_token = _FORWARD * self.teacher_active
            asked, scored = per_token * tokens.teacher_sampling, per_token * tokens.teacher_scoring
            found |= {"teacher_sampling": asked, "teacher_scoring": scored}
            found["total"] = training + sampling + asked + scored
        return found
