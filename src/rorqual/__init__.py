"""Rorqual: the DeepSeek system as open software, from one laptop's CPU to a cluster."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rorqual.engine.llm import LLM
    from rorqual.engine.requests import SamplingParams

__version__ = "0.1.0"

__all__ = ["LLM", "SamplingParams", "__version__"]

# Resolved on first use (PEP 562): importing rorqual loads nothing.
_LAZY = {"LLM": "rorqual.engine.llm", "SamplingParams": "rorqual.engine.requests"}


def __getattr__(name: str) -> Any:
    """LLM and SamplingParams, imported when first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
