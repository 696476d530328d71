"""An exact checker of homework: rational arithmetic, our own bounded parsers, the sandbox for
programs; never a model."""

from rorqual.server.solver.exercises import judge_program, read_exercise
from rorqual.server.solver.verify import Step, Verdict, verify

__all__ = ["Step", "Verdict", "judge_program", "read_exercise", "verify"]
