"""`rorqual.LLM`: a model in this process, for scripts, evaluation and rollouts.

    llm = LLM("path/to/model")
    for output in llm.generate(["Once upon a time"], SamplingParams(max_tokens=64)):
        print(output.outputs[0].text)

Calls are synchronous: they step the engine until their requests have ended. Several threads may
call at once; their requests are batched together.
"""

import itertools
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rorqual.checkpoint import model_directory
from rorqual.checkpoint.models import resolve_model
from rorqual.checkpoint.weights import open_weights
from rorqual.config.engine import EngineConfig
from rorqual.config.model import first_error
from rorqual.engine.engine import Engine
from rorqual.engine.loading import Source, begin_ids, end_token_ids, open_runner
from rorqual.engine.outputs import RequestOutput
from rorqual.engine.requests import Delta, EngineStats, Request, SamplingParams
from rorqual.engine.runner import ReadTensor
from rorqual.engine.texts import Texts
from rorqual.errors import ConfigError, RequestError
from rorqual.tokenizer import Message, Tokenizer, Tools

Prompt = str | Sequence[int]
"""A text, which gets the begin token of models that have one, or ids, taken as they are."""

_RECOMMENDED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class LLM:
    """A model with its engine: a directory, a run's folder, a .gguf file or a known name.

    Options are the fields of config/engine.py's EngineConfig.
    """

    def __init__(self, model: str | Path, **options: Any):
        weights = open_weights(model_directory(resolve_model(model)))
        self._open(weights, weights.tokenizer(), options)

    @classmethod
    def from_source(cls, source: Source, tokenizer: Tokenizer | None, **options: Any) -> "LLM":
        """An engine over weights that are in memory already: a trainer's, for rollouts."""
        llm = cls.__new__(cls)
        llm._open(source, tokenizer, options)
        return llm

    def _open(self, source: Source, tokenizer: Tokenizer | None, options: dict[str, Any]) -> None:
        try:
            config = EngineConfig(**options)
        except ValidationError as error:
            raise ConfigError(f"LLM: {first_error(error)}") from error
        self._source, self._tokenizer = source, tokenizer
        end_ids = end_token_ids(source, tokenizer)
        texts = None
        if tokenizer is not None:
            texts = Texts(tokenizer, source.config.vocab_size, end_ids)
        self.engine = Engine(open_runner(source, config), config, end_ids=end_ids, texts=texts)
        self._lock = threading.Lock()
        self._names = itertools.count()

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        if self._tokenizer is None:
            raise RequestError("this engine has no tokenizer; pass token ids instead of text")
        return self._tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's generation_config.json recommends, where it says something."""
        recommended = self._source.generation()
        fields: dict[str, Any] = {
            name: recommended[name] for name in _RECOMMENDED if recommended.get(name)
        }
        if recommended.get("do_sample") is False:
            fields = {"temperature": 0.0}
        return SamplingParams(**fields)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        cache_salt: bytes = b"",
        record_routes: bool = False,
    ) -> list[RequestOutput]:
        """Continue each prompt; answers in the order of the prompts.

        sampling_params: one for all or one for each; None: the model's recommended ones.
        """
        listed = [prompts] if _is_prompt(prompts) else list(cast("Sequence[Prompt]", prompts))
        chosen = self._params_for(len(listed), sampling_params)
        requests: list[tuple[Request, str | None]] = []
        for prompt, params in zip(listed, chosen, strict=True):
            text = prompt if isinstance(prompt, str) else None
            request = self._request(self._encode(prompt), params, cache_salt, record_routes)
            requests.append((request, text))
        return self._run(requests)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Tools | None = None,
        thinking: bool | None = None,
        cache_salt: bytes = b"",
    ) -> list[RequestOutput]:
        """Answer a conversation, or each of several."""
        listed = [messages] if _is_conversation(messages) else list(messages)
        chosen = self._params_for(len(listed), sampling_params)
        requests: list[tuple[Request, str | None]] = []
        for one, params in zip(cast("list[Sequence[Message]]", listed), chosen, strict=True):
            ids = self._encode_messages(one, tools, thinking)
            requests.append((self._request(ids, params, cache_salt, False), None))
        return self._run(requests)

    def stream(
        self,
        prompt: Prompt | Sequence[Message],
        sampling_params: SamplingParams | None = None,
        *,
        tools: Tools | None = None,
        thinking: bool | None = None,
        cache_salt: bytes = b"",
    ) -> Iterator[Delta]:
        """Continue a prompt or answer a conversation, piece by piece.

        Ends after the last delta of every answer; leaving the loop early cancels the request.
        """
        if _is_conversation(prompt):
            ids = self._encode_messages(prompt, tools, thinking)
        else:
            ids = self._encode(cast("Prompt", prompt))
        params = sampling_params or self.get_default_sampling_params()
        request = self._request(ids, params, cache_salt, False)
        arrived: deque[Delta] = deque()
        with self._lock:
            self.engine.submit(request, arrived.extend)
        num_open = params.n
        try:
            while num_open:
                while not arrived:
                    self._step()
                delta = arrived.popleft()
                num_open -= delta.finish_reason is not None
                yield delta
        finally:
            if num_open:
                with self._lock:
                    self.engine.cancel(request.id)

    def score(self, prompts: Sequence[Prompt]) -> list[NDArray[np.float64]]:
        """Log-probability of every token given those before it: [T - 1] per prompt of T tokens."""
        params = SamplingParams(max_tokens=0, prompt_logprobs=0, temperature=0.0)
        scored = self.generate(prompts, params)
        return [
            np.array([one.logprob for one in output.prompt_logprobs or [] if one is not None])
            for output in scored
        ]

    def update_weights(self, read: ReadTensor) -> None:
        """Take new weights by published name, in place; cached prefixes are dropped."""
        with self._lock:
            self.engine.update(read)

    def stats(self) -> EngineStats:
        """The engine's load and totals."""
        return self.engine.stats()

    def close(self) -> None:
        """End what is in flight and give back the memory."""
        with self._lock:
            self.engine.fail_all("the engine was closed")
            self.engine.runner.close()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encode(self, prompt: Prompt) -> list[int]:
        if not isinstance(prompt, str):
            return list(prompt)
        return [*begin_ids(self.tokenizer), *self.tokenizer.encode(prompt)]

    def _encode_messages(
        self, messages: Sequence[Message], tools: Tools | None, thinking: bool | None
    ) -> list[int]:
        return self.tokenizer.encode_messages(
            messages, tools=tools, add_generation_prompt=True, thinking=thinking
        )

    def _params_for(
        self, count: int, params: SamplingParams | Sequence[SamplingParams] | None
    ) -> list[SamplingParams]:
        if params is None:
            params = self.get_default_sampling_params()
        if isinstance(params, SamplingParams):
            return [params] * count
        if len(params) != count:
            raise RequestError(
                f"{len(params)} sampling_params for {count} prompts; give one for all or one each",
                param="sampling_params",
            )
        return list(params)

    def _request(
        self, ids: list[int], params: SamplingParams, cache_salt: bytes, record_routes: bool
    ) -> Request:
        return Request(
            id=f"llm-{next(self._names)}",
            prompt_ids=ids,
            params=params,
            cache_salt=cache_salt,
            record_routes=record_routes,
        )

    def _run(self, requests: list[tuple[Request, str | None]]) -> list[RequestOutput]:
        """Serve requests, a window of them at a time; the first that fails ends the call."""
        outputs = [RequestOutput.of(request, prompt) for request, prompt in requests]
        pending = deque(zip((request for request, _ in requests), outputs, strict=True))
        window = 2 * self.engine.config.max_num_seqs
        try:
            for output in outputs:
                while not output.finished:
                    with self._lock:
                        while pending and self.engine.num_requests < window:
                            request, taker = pending.popleft()
                            self.engine.submit(request, taker.add)
                    self._step()
        finally:
            with self._lock:
                for output in outputs:
                    if not output.finished:
                        self.engine.cancel(output.request_id)
        for output in outputs:
            for completion in output.outputs:
                if completion.error is not None:
                    raise completion.error
        return outputs

    def _step(self) -> None:
        with self._lock:
            self.engine.step()


def _is_prompt(prompts: object) -> TypeGuard[Prompt]:
    """A single prompt: a text, or ids."""
    if isinstance(prompts, str):
        return True
    first = next(iter(cast("Sequence[object]", prompts)), None)
    return isinstance(first, int | np.integer)


def _is_conversation(value: object) -> TypeGuard[Sequence[Message]]:
    """Messages, and not a text, ids or several conversations."""
    if isinstance(value, str):
        return False
    first = next(iter(cast("Sequence[object]", value)), None)
    return isinstance(first, Mapping)
