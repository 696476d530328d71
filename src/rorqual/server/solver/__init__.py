"""An exact checker of homework: rational arithmetic and our own bounded parsers, never a model."""

from rorqual.server.solver.verify import Step, Verdict, verify

__all__ = ["Step", "Verdict", "verify"]
