"""Sampling from the model one token at a time over the latent cache: the reference decode path.

Rows of a batch are independent: a row's random draws depend on its own seed alone, so a prompt
gives the same tokens whether it is decoded alone or among others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rorqual.errors import RequestError
from rorqual.model.cache import LatentCache
from rorqual.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. temperature 0 is greedy; top_p keeps the likeliest mass."""

    max_new_tokens: int = 128
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise RequestError(
                f"max_new_tokens={self.max_new_tokens}; ask for at least 1", param="max_new_tokens"
            )
        if self.temperature < 0:
            raise RequestError(
                f"temperature={self.temperature} is negative; use 0 for greedy", param="temperature"
            )
        if not 0 < self.top_p <= 1:
            raise RequestError(f"top_p={self.top_p} is not in (0, 1]; 1 keeps all", param="top_p")


def pick_token(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One id from logits [V]."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    probabilities = (logits.double() / sampling.temperature).softmax(dim=-1)  # [V]
    if sampling.top_p < 1:
        sorted_p, order = probabilities.sort(descending=True, stable=True)
        outside = sorted_p.cumsum(-1) - sorted_p >= sampling.top_p
        probabilities[order[outside]] = 0.0
    return int(torch.multinomial(probabilities, 1, generator=generator))


def generate_stream(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    dtype: torch.dtype = torch.float32,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[list[int | None]]:
    """Yield, step by step, the next id of each prompt's row (None once the row has ended).

    A row ends at eos_token_id (yielded), after max_new_tokens, or at the context's end.
    RequestError on an empty prompt or one longer than max_position_embeddings.
    """
    config = model.config
    limit = config.max_position_embeddings
    lengths = [len(prompt) for prompt in prompts]
    for length in lengths:
        if not 0 < length <= limit:
            raise RequestError(
                f"prompt of {length} tokens; expected 1 to max_position_embeddings={limit}",
                param="prompt",
            )
    longest = max(lengths)
    device = model.lm_head.weight.device
    tokens = torch.full((len(prompts), longest), config.eos_token_id, device=device)
    for row, prompt in enumerate(prompts):
        tokens[row, : lengths[row]] = torch.tensor(prompt, device=device)
    # One slot more than the context: where ended rows put their filler.
    room = min(limit, longest + sampling.max_new_tokens) + 1
    cache = LatentCache(config, len(prompts), room, dtype=dtype, device=device)
    generators = [torch.Generator().manual_seed(sampling.seed) for _ in prompts]
    valid = torch.tensor(lengths, device=device)
    budget = [min(sampling.max_new_tokens, limit - length + 1) for length in lengths]
    with torch.inference_mode():
        logits = model.decode(tokens, cache, valid, dtype)  # [B, T, V]
        last = logits[torch.arange(len(prompts)), valid - 1].cpu()  # [B, V]
        while any(budget) and not should_stop():
            step: list[int | None] = []
            for row, generator in enumerate(generators):
                picked = pick_token(last[row], sampling, generator) if budget[row] else None
                step.append(picked)
                budget[row] = 0 if picked in (None, config.eos_token_id) else budget[row] - 1
            yield step
            if any(budget):
                last = _advance(model, cache, step, budget, dtype)


def _advance(
    model: Transformer,
    cache: LatentCache,
    step: list[int | None],
    budget: list[int],
    dtype: torch.dtype,
) -> Tensor:
    """Feed one step; ended rows feed a filler that is not counted. logits [B, V]"""
    eos = model.config.eos_token_id
    column = [[eos if picked is None else picked] for picked in step]
    device = cache.lengths.device
    alive = torch.tensor([1 if left else 0 for left in budget], device=device)
    return model.decode(torch.tensor(column, device=device), cache, alive, dtype)[:, -1].cpu()


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    dtype: torch.dtype = torch.float32,
) -> list[list[int]]:
    """The new ids of each prompt, eos included where it came."""
    rows: list[list[int]] = [[] for _ in prompts]
    for step in generate_stream(model, prompts, sampling, dtype=dtype):
        for row, picked in zip(rows, step, strict=True):
            if picked is not None:
                row.append(picked)
    return rows
