"""Small versions of the papers' ablations: several seeds, intervals, equal budgets, a page each.

A claim is a file of `configs/reproduce/`, committed before its runs. What comes out is reported as
it falls: a negative result is a result.
"""

from rorqual.reproduce.figures import Comparison, Outcome, collect
from rorqual.reproduce.report import table_row, write_claim_report
from rorqual.reproduce.run import load_claim, run_claim

__all__ = [
    "Comparison",
    "Outcome",
    "collect",
    "load_claim",
    "run_claim",
    "table_row",
    "write_claim_report",
]
