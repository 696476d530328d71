"""The engine's running totals."""

from dataclasses import dataclass

from rorqual.engine.requests import EngineStats
from rorqual.engine.scheduler import Scheduler


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
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    num_preemptions: int = 0
    num_finished: int = 0
    num_cancelled: int = 0
    num_failed: int = 0
    last_error: str | None = None

    def stats(
        self,
        scheduler: Scheduler,
        tokens_per_step: int,
        sampler_seconds: float,
        speculation_gain: float | None,
    ) -> EngineStats:
        """The totals beside the present load."""
        waiting = list(scheduler.waiting)
        return EngineStats(
            num_running=len(scheduler.running),
            num_waiting=len(waiting),
            total_blocks=scheduler.pool.num_blocks,
            free_blocks=scheduler.pool.num_available,
            prefix_blocks=len(scheduler.pool.prefixes),
            waiting_tokens=sum(sequence.num_tokens for sequence in waiting),
            tokens_per_step=tokens_per_step,
            num_steps=self.num_steps,
            step_seconds=self.step_seconds,
            runner_seconds=self.runner_seconds,
            sampler_seconds=sampler_seconds,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            recomputed_tokens=self.recomputed_tokens,
            num_preemptions=self.num_preemptions + scheduler.num_preemptions,
            num_finished=self.num_finished,
            num_cancelled=self.num_cancelled,
            num_failed=self.num_failed,
            last_error=self.last_error,
            drafted_tokens=self.drafted_tokens,
            accepted_tokens=self.accepted_tokens,
            speculation_gain=speculation_gain,
        )
