"""How good a model is: baselines and reports."""

from rorqual.eval.ngram import KneserNey

__all__ = ["KneserNey"]
