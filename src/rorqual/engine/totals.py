"""The engine's running totals."""

from dataclasses import dataclass


@dataclass(slots=True)
class Totals:
    """Sums since the engine started; meanings as in EngineStats."""

    num_steps: int = 0
    step_seconds: float = 0.0
    runner_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    recomputed_tokens: int = 0
    num_preemptions: int = 0
    num_finished: int = 0
    num_cancelled: int = 0
    num_failed: int = 0
    last_error: str | None = None
