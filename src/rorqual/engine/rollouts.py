"""A trainer's model sampled by the engine: what rollouts and evaluations draw with (torch).

Same call and same draws as `model.sample_completions`, its plain twin, which still serves other
devices, other dtypes and machines without the native library. The trainer's parameters are packed
into the engine's memory at every call, in place; nothing goes through a file.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from rorqual.checkpoint import placements
from rorqual.checkpoint.hf import Placement
from rorqual.config import ModelConfig
from rorqual.config.engine import EngineConfig
from rorqual.engine.engine import Engine
from rorqual.engine.loading import open_runner
from rorqual.engine.outputs import CompletionOutput, RequestOutput
from rorqual.engine.requests import MAX_SAMPLES, Request, SamplingParams
from rorqual.kernels.library import native_library
from rorqual.model import Completion, Transformer, sample_completions
from rorqual.model.sample import check_sampling

_QUEUED_PER_ROW: Final = 2
_MOST_MODELS: Final = 2  # a teacher and its student take turns


class TrainerWeights:
    """A Transformer's parameters by published name, as the engine reads them; without MTP."""

    def __init__(self, model: Transformer):
        self.config: ModelConfig = model.config.model_copy(update={"num_nextn_predict_layers": 0})
        self._model = model
        self._placements: dict[str, Placement] = {
            place.name: place for place in placements(self.config) if not place.copy
        }

    def names(self) -> list[str]:
        """Every tensor."""
        return list(self._placements)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self._placements[name].shape

    def reader(self) -> Callable[[str], NDArray[np.float32]]:
        """Reads the parameters as they are now, without copying them."""
        state = self._model.state_dict()

        def read(name: str) -> NDArray[np.float32]:
            place = self._placements[name]
            return state[place.parameter][place.index].detach().numpy()

        return read

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor in published orientation."""
        return self.reader()(name)

    def generation(self) -> dict[str, Any]:
        """A trainer recommends nothing."""
        return {}


class EngineSampler:
    """`sample_completions` on the engine, with as many threads as torch.

    Keeps the engines of the last models that it was called with.
    """

    def __init__(self) -> None:
        self._engines: dict[tuple[int, int, int], tuple[Engine, TrainerWeights]] = {}

    def __call__(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
        max_rows: int = 256,
        dtype: torch.dtype = torch.float32,
        record_routes: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Completion]:
        """One completion per prompt and seed; see `model.sample_completions`."""
        if not _on_the_engine(model, dtype):
            return sample_completions(
                model,
                prompts,
                seeds=seeds,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                max_rows=max_rows,
                dtype=dtype,
                record_routes=record_routes,
                should_stop=should_stop,
            )
        check_sampling(model, prompts, seeds, max_new_tokens, temperature)
        engine = self._open(model, max_rows)
        requests = [
            Request(
                id=str(number),
                prompt_ids=prompts[rows.start],
                params=SamplingParams(
                    n=len(rows),
                    temperature=temperature,
                    seeds=tuple(int(seeds[row]) for row in rows),
                    max_tokens=max_new_tokens,
                    policy_stats=True,
                    skip_special_tokens=False,
                ),
                record_routes=record_routes,
            )
            for number, rows in enumerate(_runs_of_equals(prompts))
        ]
        outputs = _serve(engine, requests, _QUEUED_PER_ROW * max_rows, should_stop)
        return [_completion(one) for output in outputs for one in output.outputs]

    def end_ids(self, model: Transformer) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return (model.config.eos_token_id,)

    def _open(self, model: Transformer, max_rows: int) -> Engine:
        """The engine for this model, with its present weights."""
        key = (id(model), max_rows, torch.get_num_threads())
        if key in self._engines:
            engine, weights = self._engines[key] = self._engines.pop(key)  # the newest last
            engine.update(weights.reader())
            return engine
        while len(self._engines) >= _MOST_MODELS:
            oldest, _ = self._engines.pop(next(iter(self._engines)))
            oldest.runner.close()
        weights = TrainerWeights(model)
        config = EngineConfig(
            precision="fp32", num_threads=torch.get_num_threads(), max_num_seqs=max_rows
        )  # pyright: ignore[reportCallIssue]
        engine = Engine(open_runner(weights, config), config, end_ids=self.end_ids(model))
        self._engines[key] = engine, weights
        return engine


def _on_the_engine(model: Transformer, dtype: torch.dtype) -> bool:
    weight = model.lm_head.weight
    is_plain = weight.device.type == "cpu" and weight.dtype == dtype == torch.float32
    return is_plain and native_library() is not None


def _runs_of_equals(prompts: Sequence[Sequence[int]]) -> Iterator[range]:
    """Rows one after another with the same prompt, which the engine then reads once."""
    begin = 0
    for row in range(1, len(prompts) + 1):
        is_next = row < len(prompts) and row - begin < MAX_SAMPLES
        if not (is_next and list(prompts[row]) == list(prompts[begin])):
            yield range(begin, row)
            begin = row


def _serve(
    engine: Engine, requests: Sequence[Request], window: int, should_stop: Callable[[], bool]
) -> list[RequestOutput]:
    """Answers in order; when `should_stop` turns true, as far as they got."""
    outputs = [RequestOutput.of(request, None) for request in requests]
    pending = deque(zip(requests, outputs, strict=True))
    try:
        while (pending or engine.has_work) and not should_stop():
            while pending and engine.num_requests < window:
                request, output = pending.popleft()
                engine.submit(request, output.add)
            engine.step()
    finally:
        for output in outputs:
            if not output.finished:
                engine.cancel(output.request_id)
    for output in outputs:
        for one in output.outputs:
            if one.error is not None:
                raise one.error
    return outputs


def _completion(output: CompletionOutput) -> Completion:
    stats = output.policy_stats or []
    ids = output.token_ids
    return Completion(
        ids=ids,
        logprobs=[one.logprob for one in stats],
        ended=output.finish_reason == "stop",
        entropy=sum(one.entropy for one in stats) / max(len(stats), 1),
        routes=None if output.routes is None else torch.from_numpy(output.routes),
    )
