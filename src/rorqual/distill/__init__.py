"""Distillation: what a teacher can do, handed to a smaller student (torch).

method     who writes          what is learnt per completion token
traces     teacher, if right   cross entropy of the token
logits     teacher             KL(teacher, student), whole vocabulary
on_policy  student             KL(student, teacher), whole vocabulary
"""

from rorqual.distill.opening import open_trainer
from rorqual.distill.progress import DistillProgress
from rorqual.distill.run import run_distill
from rorqual.distill.trainer import DistillResult, DistillTrainer

__all__ = ["DistillProgress", "DistillResult", "DistillTrainer", "open_trainer", "run_distill"]
