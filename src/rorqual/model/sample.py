"""Many completions at once over the latent cache: what rollouts and evaluations sample with.

Every row has its own seed and draws one uniform number a token from it (inverse transform over the
cumulated probabilities), so what a row says does not depend on its neighbours. Equal prompts are
read once and their cache copied; rows that have ended leave the batch. Nothing truncates the
distribution: top-k or top-p here would bias every importance ratio computed later (rl: trl#7269).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rorqual.errors import RequestError
from rorqual.model.cache import LatentCache
from rorqual.model.transformer import Transformer

_COMPACT_BELOW = 0.8  # share of rows still writing at which ended ones are taken out
_LARGEST_SEED = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Completion:
    """What one row wrote.

    ids holds the end token if it came (`ended`); logprobs the natural log of each id's probability
    under the distribution it was drawn from; entropy that distribution's mean, in nats. routes
    [tokens fed, MoE layers, K] int16: which experts each id went to as it was fed (all but the
    last), None unless asked for.
    """

    ids: list[int]
    logprobs: list[float]
    ended: bool
    entropy: float
    routes: Tensor | None = None


def sample_completions(
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
    """One completion per prompt and seed, `max_rows` at a time.

    temperature 0 is greedy. A row ends at eos_token_id, after max_new_tokens, or at the context's
    end. When `should_stop` turns true, the rows of unfinished batches come back as far as they got.
    """
    check_sampling(model, prompts, seeds, max_new_tokens, temperature)
    found: list[Completion] = []
    for begin in range(0, len(prompts), max_rows):
        chunk = slice(begin, begin + max_rows)
        rows = _Rows(model, prompts[chunk], seeds[chunk], max_new_tokens, temperature, dtype)
        if record_routes:
            rows.record_routes()
        found += rows.run(should_stop)
    return found


def check_sampling(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    max_new_tokens: int,
    temperature: float,
) -> None:
    """RequestError unless these can be asked of the model."""
    limit = model.config.max_position_embeddings
    if len(prompts) != len(seeds):
        raise RequestError(
            f"{len(seeds)} seeds for {len(prompts)} prompts; give one each", param="seeds"
        )
    if seeds and not 0 <= min(seeds) <= max(seeds) <= _LARGEST_SEED:
        raise RequestError("a seed is outside 0 to 2^64 - 1; choose others", param="seeds")
    if max_new_tokens < 1:
        raise RequestError(
            f"max_new_tokens={max_new_tokens}; ask for at least 1", param="max_new_tokens"
        )
    if temperature < 0:
        raise RequestError(
            f"temperature={temperature} is negative; use 0 for greedy", param="temperature"
        )
    for prompt in prompts:
        if not 0 < len(prompt) <= limit:
            raise RequestError(
                f"prompt of {len(prompt)} tokens; expected 1 to max_position_embeddings={limit}",
                param="prompt",
            )


class _Rows:
    """One batch on its way; `alive` maps the rows still in the cache to the prompts' order."""

    def __init__(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        dtype: torch.dtype,
    ):
        self.model, self.temperature, self.dtype = model, temperature, dtype
        self.prompts = prompts
        self.device = model.lm_head.weight.device
        context = model.config.max_position_embeddings
        self.room = torch.tensor([min(max_new_tokens, context - len(p) + 1) for p in prompts])
        steps = int(self.room.max())
        uniform = np.stack([_uniform(seed, steps) for seed in seeds])  # [B, steps]
        self.uniform = torch.from_numpy(uniform).to(self.device)
        self.ids = torch.zeros(len(prompts), steps, dtype=torch.long)
        self.logprobs = torch.zeros(len(prompts), steps)
        self.entropy = torch.zeros(len(prompts))
        self.lengths = torch.zeros(len(prompts), dtype=torch.long)
        self.ended = torch.zeros(len(prompts), dtype=torch.bool)
        self.routes: Tensor | None = None

    def record_routes(self) -> None:
        """Keep what the routers choose for every token that is fed back."""
        config = self.model.config
        layers = sum(config.is_moe_layer(i) for i in range(config.num_hidden_layers))
        shape = (*self.ids.shape, layers, config.num_experts_per_tok)
        self.routes = torch.zeros(shape, dtype=torch.int16)  # [B, steps, L, K]

    @torch.inference_mode()
    def run(self, should_stop: Callable[[], bool]) -> list[Completion]:
        """Write until every row has ended."""
        eos = self.model.config.eos_token_id
        cache, logits = self._read_prompts()  # [B, V]
        alive = torch.arange(len(self.prompts))
        writing = torch.ones(len(self.prompts), dtype=torch.bool)
        for step in range(self.ids.shape[1]):
            picked, logprob, entropy = self._draw(logits, alive, step)  # 3 x [B]
            now = alive[writing]
            self.ids[now, step] = picked[writing]
            self.logprobs[now, step] = logprob[writing]
            self.entropy[now] += entropy[writing]
            self.lengths[now] += 1
            self.ended[now] = picked[writing] == eos
            writing = writing & (picked != eos) & (self.room[alive] > step + 1)
            if not writing.any() or should_stop():
                break
            if writing.float().mean() < _COMPACT_BELOW:
                cache.keep_rows(writing.to(self.device))
                alive, picked = alive[writing], picked[writing]
                writing = torch.ones(len(alive), dtype=torch.bool)
            column = picked.to(self.device)[:, None]  # [B, 1]
            valid = writing.long().to(self.device)
            cache.routes = None if self.routes is None else []
            logits = self.model.decode(column, cache, valid, self.dtype)[:, -1]  # [B, V]
            if self.routes is not None and cache.routes:
                chosen = torch.cat(cache.routes, dim=1)  # [B, L, K]
                self.routes[alive, step] = chosen.to(torch.int16).cpu()
        return self._completions()

    def _read_prompts(self) -> tuple[LatentCache, Tensor]:
        """Feed each different prompt once; the cache and the last logits of every row [B, V]."""
        first: dict[tuple[int, ...], int] = {}
        which = [first.setdefault(tuple(prompt), len(first)) for prompt in self.prompts]
        lengths = torch.tensor([len(prompt) for prompt in first], device=self.device)
        longest = int(lengths.max())
        tokens = torch.full((len(first), longest), self.model.config.eos_token_id)
        for row, prompt in enumerate(first):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
        # One slot more than the context: where ended rows put their filler.
        max_tokens = longest + int(self.room.max()) + 1
        cache = LatentCache(
            self.model.config, len(first), max_tokens, dtype=self.dtype, device=self.device
        )
        last = self.model.decode_last(tokens.to(self.device), cache, lengths, self.dtype)  # [P, V]
        rows = torch.tensor(which, device=self.device)
        cache.keep_rows(rows)
        return cache, last[rows]

    def _draw(self, logits: Tensor, alive: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids [B], their log-probabilities [B] and the entropies [B], on the host."""
        logits = logits.float()
        if self.temperature not in (0.0, 1.0):
            logits = logits / self.temperature
        shifted = logits - logits.amax(dim=-1, keepdim=True)  # [B, V]
        weight = shifted.exp()  # [B, V], p times an unknown
        cumulated = weight.cumsum(dim=-1, dtype=torch.float64)  # [B, V]
        total = cumulated[:, -1]  # [B]
        if self.temperature == 0:
            picked = logits.argmax(dim=-1)  # [B]
        else:
            point = self.uniform[alive.to(self.device), step] * total  # [B]
            picked = torch.searchsorted(cumulated, point[:, None], right=True)[:, 0]
            picked = picked.clamp(max=logits.shape[1] - 1)
        # log p = shifted - log total, and so the entropy is log total - sum p shifted.
        log_total = total.log()  # [B]
        chosen = (shifted.gather(1, picked[:, None])[:, 0] - log_total).float()  # [B]
        mean = (weight * shifted.clamp(min=-1e4)).sum(dim=-1) / total  # [B]
        entropy = (log_total - mean).float()
        return picked.cpu(), chosen.cpu(), entropy.cpu()

    def _completions(self) -> list[Completion]:
        return [
            Completion(
                ids=self.ids[row, :length].tolist(),
                logprobs=self.logprobs[row, :length].tolist(),
                ended=bool(self.ended[row]),
                entropy=float(self.entropy[row]) / max(length, 1),
                routes=None if self.routes is None else self.routes[row, : max(length - 1, 0)],
            )
            for row, length in enumerate(self.lengths.tolist())
        ]


def _uniform(seed: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) that depend on the seed alone. [count] float64"""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)
