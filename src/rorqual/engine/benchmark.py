"""Speed of the native runtime's steps, beside what the machine was just measured to do.

Decoding is teacher-forced: each step feeds the next tokens of a given text, never the model's own
choice, because a model that repeats itself keeps the same experts in the caches. The limit of a
decoding step is the read speed of a buffer as large as what the step touches, that of a prompt the
fastest matrix product; both are measured in the same run. The whole step is timed, from arrays of
ids to logits in memory; scheduling and sampling are not.
"""

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from rorqual.config import DenseConfig, ModelConfig
from rorqual.engine.workload import step_flops, touched_weight_bytes
from rorqual.errors import ConfigError
from rorqual.kernels.library import Library
from rorqual.kernels.machine import gemm_flops_per_second, read_bytes_per_second
from rorqual.kernels.runtime import ReadTensor, Runtime
from rorqual.kernels.runtime_layout import Precision
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch
from rorqual.tasks import list_tasks, load_task
from rorqual.tokenizer import Tokenizer

DECODE_WINDOW: Final = 32
"""Positions that decoding steps walk through, again and again, after the context."""

_FEWEST_REPEATS: Final = 3
_MOST_FED: Final = 4096
_LARGEST_BUFFER_BYTES: Final = 512 << 20  # far beyond every cache; larger ones read no slower


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed: a decoding step of sequences at a context, or prompts of that length."""

    kind: Literal["decode", "prefill"]
    sequences: int
    context: int

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.context < 1:
            raise ConfigError(
                f"{self.kind} of {self.sequences} sequences at context {self.context}: both must "
                "be at least 1"
            )

    @property
    def name(self) -> str:
        """As tables show it: `decode 16 @ 512`, `prefill 8 x 512`."""
        return (
            f"{self.kind} {self.sequences} {'@' if self.kind == 'decode' else 'x'} {self.context}"
        )

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one step feeds."""
        return self.sequences * (1 if self.kind == "decode" else self.context)


@dataclass(frozen=True, slots=True)
class Measured:
    """One case's times, and what a step of it reads and computes.

    experts_touched: of each routed layer, the mean over the steps; 0 for models that do not route.
    """

    case: Case
    seconds: tuple[float, ...]
    experts_touched: float
    touched_bytes: float
    flops: float

    @property
    def step_seconds(self) -> float:
        """The median step."""
        return statistics.median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """At the median step."""
        return self.case.tokens_per_step / self.step_seconds


class StepBench:
    """A runtime large enough for its cases, and the text that they are fed."""

    def __init__(
        self,
        config: ModelConfig | DenseConfig,
        read: ReadTensor,
        *,
        precision: Precision,
        library: Library,
        cases: Sequence[Case],
        token_ids: NDArray[np.int32],
    ):
        longest = max(case.context for case in cases) + DECODE_WINDOW
        if longest > config.max_position_embeddings:
            raise ConfigError(
                f"context={longest - DECODE_WINDOW} and {DECODE_WINDOW} decoded tokens exceed "
                f"max_position_embeddings={config.max_position_embeddings}; lower the context"
            )
        self.config: ModelConfig | DenseConfig = config
        self.precision: Precision = precision
        self.library = library
        self._ids = token_ids
        self._cursor = 0
        num_blocks = max(case.sequences * _blocks(case) for case in cases)
        fed = max(case.tokens_per_step for case in cases)
        self.runtime = Runtime(
            config, read, precision=precision, num_blocks=num_blocks, library=library,
            max_batch_tokens=max(fed, min(_MOST_FED, longest)),
        )  # fmt: skip

    def measure(self, case: Case, seconds: float) -> Measured:
        """Repeat the case's step for `seconds`, at least a few times, after uncounted ones."""
        if case.kind == "prefill":
            self._prefill(case)
            times = self._repeat(case, seconds)
            flops = step_flops(self.config, case.sequences, case.context, 0)
            return Measured(case, times, 0.0, 0.0, flops)
        self._fill_cache(case)
        experts = self._experts_touched(case)
        times = self._repeat(case, seconds)
        middle = case.context + DECODE_WINDOW // 2
        touched = touched_weight_bytes(self.config, self.precision, experts)
        touched += self._cache_bytes_per_token * middle * case.sequences
        flops = step_flops(self.config, case.sequences, 1, middle)
        return Measured(case, times, experts, touched, flops)

    def close(self) -> None:
        """Give back weights and cache."""
        self.runtime.close()

    @property
    def _cache_bytes_per_token(self) -> float:
        """Of the model itself: MTP modules have layers in the cache that decoding does not read."""
        num_layers = self.config.num_hidden_layers
        all_layers = num_layers + getattr(self.config, "num_nextn_predict_layers", 0)
        return self.runtime.cache_bytes_per_block / BLOCK_TOKENS * num_layers / all_layers

    def _repeat(self, case: Case, seconds: float) -> tuple[float, ...]:
        times: list[float] = []
        until = time.perf_counter() + seconds
        while len(times) < _FEWEST_REPEATS or time.perf_counter() < until:
            batch = self._next_batch(case, len(times))
            start = time.perf_counter()
            self.runtime.step(batch)
            times.append(time.perf_counter() - start)
        return tuple(times)

    def _next_batch(self, case: Case, step: int) -> StepBatch:
        if case.kind == "prefill":
            return self._batch(case, case.context, 0)
        return self._batch(case, 1, case.context + step % DECODE_WINDOW)

    def _prefill(self, case: Case) -> None:
        self.runtime.step(self._batch(case, case.context, 0))

    def _fill_cache(self, case: Case) -> None:
        """The context of every sequence, one after the other, in pieces that the runtime takes."""
        most = self.runtime.max_batch_tokens
        for sequence in range(case.sequences):
            for begin in range(0, case.context, most):
                fed = min(most, case.context - begin)
                self.runtime.step(self._batch(case, fed, begin, only=sequence))

    def _experts_touched(self, case: Case) -> float:
        """Distinct experts of a routed layer in one step, the mean over a window. Warms up, too."""
        counts: list[int] = []
        for step in range(DECODE_WINDOW):
            routes = self.runtime.step(self._next_batch(case, step), record_routes=True).routes
            assert routes is not None  # [sequences, layers, K]
            counts += [len(np.unique(routes[:, layer])) for layer in range(routes.shape[1])]
        return statistics.fmean(counts) if counts else 0.0

    def _batch(self, case: Case, fed: int, cached: int, only: int | None = None) -> StepBatch:
        """The next tokens of the text for every sequence, or for one."""
        chosen = range(case.sequences) if only is None else range(only, only + 1)
        count = len(chosen) * fed
        ids = np.take(self._ids, np.arange(self._cursor, self._cursor + count), mode="wrap")
        self._cursor = (self._cursor + count) % len(self._ids)
        rows = np.arange(0, count + 1, fed, dtype=np.int32)
        width = _blocks(case)
        tables = np.arange(case.sequences * width, dtype=np.int32).reshape(-1, width)
        return StepBatch(
            ids,
            rows,
            np.full(len(chosen), cached, np.int32),
            np.ascontiguousarray(tables[chosen.start : chosen.stop]),
            rows[1:] - np.int32(1),
        )


def _blocks(case: Case) -> int:
    """Cache blocks of one sequence of the case."""
    return -(-(case.context + DECODE_WINDOW) // BLOCK_TOKENS)


def limit_bytes_per_second(library: Library, touched_bytes: float) -> float:
    """How fast this machine reads a buffer of that size, now."""
    return read_bytes_per_second(library, min(int(touched_bytes), _LARGEST_BUFFER_BYTES), 15)


def fastest_gemm(library: Library) -> tuple[str, float]:
    """Name and FLOP/s of the fastest square matrix product, now."""
    speeds = gemm_flops_per_second(library)
    return max(speeds.items(), key=lambda item: item[1])


def text_ids(
    tokenizer: Tokenizer | None, vocab_size: int, count: int, seed: int = 0
) -> NDArray[np.int32]:
    """`count` token ids of varied text: worked problems of all tasks; random without a tokenizer.

    A shorter text than `count` is impossible: problems are drawn until there are enough.
    """
    if tokenizer is None:
        return np.random.default_rng(seed).integers(0, vocab_size, count, dtype=np.int32)
    rng = random.Random(seed)
    tasks = [load_task(name) for name in list_tasks()]
    found: list[int] = []
    while len(found) < count:
        task = rng.choice(tasks)
        problem = task.make(rng, rng.randint(1, task.num_levels))
        solution = task.solve(problem, rng)
        found += tokenizer.encode(f"{problem.prompt}\n{solution.thinking}\n{solution.content}\n\n")
    return np.asarray(found[:count], np.int32)
