"""Inference: requests, cache blocks, scheduling, sampling, and the runners that compute steps.

Nothing here imports torch except torch_runner.py and its parts, which are imported by name where
the native runtime cannot serve.
"""

from rorqual.engine.engine import Engine
from rorqual.engine.requests import (
    Delta,
    EngineStats,
    Request,
    SamplingParams,
    TokenLogprobs,
    Usage,
)
from rorqual.engine.runner import Runner

__all__ = [
    "Delta",
    "Engine",
    "EngineStats",
    "Request",
    "Runner",
    "SamplingParams",
    "TokenLogprobs",
    "Usage",
]
