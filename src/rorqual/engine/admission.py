"""From a request to sequences that can run: everything that can be refused is refused here.

Nothing here touches the engine's state, so a server may call it in the thread that took the
request: checking long prompts and compiling structures then costs the engine no step.
"""

from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from rorqual.engine.adjust import LogitAdjuster
from rorqual.engine.blocks import blocks_for
from rorqual.engine.requests import OnDelta, Request, SamplingParams
from rorqual.engine.runner import Runner
from rorqual.engine.sequence import Group, Sequence
from rorqual.engine.texts import Texts
from rorqual.errors import CapacityError, RequestError
from rorqual.kernels.step import BLOCK_TOKENS


class Admission:
    """Checks requests against a model, a context and a cache."""

    def __init__(
        self,
        runner: Runner,
        max_model_len: int,
        end_ids: tuple[int, ...],
        texts: Texts | None,
    ):
        self.vocab_size = runner.config.vocab_size
        self.num_blocks = runner.num_blocks
        self.max_model_len = max_model_len
        self.end_ids = end_ids
        self.texts = texts

    def prepare(self, request: Request, on_delta: OnDelta) -> Group:
        """The request's sequences, ready to be queued; RequestError or CapacityError if not."""
        params = request.params
        prompt = self._check_prompt(request)
        self._check_ids(params)
        total = self._max_tokens_total(len(prompt), params)
        group = Group(request, on_delta)
        for index in range(params.n):
            sequence = Sequence(group, index, prompt, total)
            structure = None
            if self.texts is not None:
                sequence.output = self.texts.make_output(request)
                structure = self.texts.make_structure(params, sequence.output)
            if LogitAdjuster.needed(params):
                sequence.adjuster = LogitAdjuster(
                    params, prompt, self.vocab_size, self._stop_ids(params), structure
                )
            if params.prompt_logprobs is not None and index == 0:
                sequence.prompt_logprobs = list(repeat(None, len(prompt)))
            group.add(sequence)
        return group

    def _stop_ids(self, params: SamplingParams) -> tuple[int, ...]:
        """What may not come before min_tokens."""
        return params.stop_token_ids + (() if params.ignore_eos else self.end_ids)

    def _check_prompt(self, request: Request) -> NDArray[np.int32]:
        size = len(request.prompt_ids)
        if not 0 < size <= self.max_model_len:
            raise RequestError(
                f"prompt of {size} tokens; expected 1 to {self.max_model_len}, the longest "
                "context; shorten it",
                code="context_length_exceeded" if size else "empty_prompt",
                param="prompt",
            )
        # Compared as Python numbers: a client may send one that no array holds.
        if min(request.prompt_ids) < 0 or max(request.prompt_ids) >= self.vocab_size:
            raise RequestError(
                f"the prompt has a token id outside 0 to {self.vocab_size - 1}, the vocabulary; "
                "encode it with this model's tokenizer",
                param="prompt",
            )
        return np.asarray(request.prompt_ids, dtype=np.int32)  # [T]

    def _check_ids(self, params: SamplingParams) -> None:
        for name, ids in (
            ("logit_bias", params.logit_bias),
            ("stop_token_ids", params.stop_token_ids),
        ):
            outside = [i for i in ids if not 0 <= i < self.vocab_size]
            if outside:
                raise RequestError(
                    f"{name}: token id {outside[0]} is outside 0 to {self.vocab_size - 1}, the "
                    "vocabulary; leave it out",
                    param=name,
                )
        for name, asked in (
            ("stop", bool(params.stop)),
            ("structure", params.structure is not None),
            ("thinking_budget", params.thinking_budget is not None),
        ):
            if asked and self.texts is None:
                raise RequestError(
                    f"{name} needs the text of tokens, but the engine runs without a tokenizer; "
                    f"leave {name} out or load a model directory with tokenizer.json",
                    param=name,
                )

    def _max_tokens_total(self, prompt_tokens: int, params: SamplingParams) -> int:
        """Tokens of prompt and answer at most; the last one of an answer needs no room."""
        cache_tokens = self.num_blocks * BLOCK_TOKENS
        total = self.max_model_len + 1
        if params.max_tokens is None:
            total = max(min(total, cache_tokens + 1), prompt_tokens + 1)
        else:
            total = min(total, prompt_tokens + params.max_tokens)
        needed = blocks_for(max(total - 1, prompt_tokens))
        if needed > self.num_blocks:
            raise CapacityError(
                f"a prompt of {prompt_tokens} tokens with max_tokens={params.max_tokens} needs "
                f"{needed} cache blocks, the engine has {self.num_blocks}; lower max_tokens or "
                "raise max_cache_bytes"
            )
        return total
