"""One GRPO update: rollouts in, one or more optimizer steps out, with the figures that describe it.

The router's selection bias is not touched. Where rollouts record their routes, the share of
tokens that the trainer routes differently is reported: on one machine in fp32 it stays near 0.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from rorqual.config.rl import RLConfig
from rorqual.model import Completion, Transformer
from rorqual.rl.advantages import group_advantages
from rorqual.rl.losses import aggregation_weights, clip_fractions, clipped_surrogate, k3_kl
from rorqual.rl.packing import PackedSequences, ScoredTokens, pack_sequences, score_tokens
from rorqual.rl.rollout import Group
from rorqual.train.balance import LoadCounter, max_violation
from rorqual.train.optimizer import RunOptimizer
from rorqual.train.schedule import learning_rate_of_step


@dataclass(slots=True)
class _Sums:
    """Running sums of one update, over tokens."""

    loss: float = 0.0
    kl: float = 0.0
    clip_low: float = 0.0
    clip_high: float = 0.0
    gap_sum: float = 0.0
    gap_max: float = 0.0
    routes: int = 0
    routes_differ: int = 0


class _Sampled:
    """What the sampler says of a step's completions, one after another.

    first [sequences]: where each begins in logp [M]; lengths [sequences]; routes [M - sequences, L,
    K] without each one's last token, None if they were not recorded.
    """

    def __init__(self, completions: Sequence[Completion]):
        self.lengths = torch.tensor([len(completion.ids) for completion in completions])
        self.first = self.lengths.cumsum(0) - self.lengths
        self.logp = torch.tensor([p for c in completions for p in c.logprobs])
        routes = [c.routes for c in completions if c.routes is not None]
        self.routes = torch.cat(routes) if len(routes) == len(completions) else None


class GRPOUpdate:
    """The policy, its optimizer and, if beta > 0, the reference."""

    def __init__(
        self,
        model: Transformer,
        config: RLConfig,
        dtype: torch.dtype,
        reference: Transformer | None = None,
    ):
        assert (reference is not None) == (config.beta > 0)
        self.model, self.config, self.dtype, self.reference = model, config, dtype, reference
        self.optimizer = RunOptimizer(model, config, with_mtp=False)
        self.load = LoadCounter(model)

    def run(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """Learn from groups; TRL's names for the figures."""
        started = time.perf_counter()
        config = self.config
        rewards = torch.stack([group.rewards for group in groups])  # [P, G]
        advantages = group_advantages(rewards, config.scale_rewards).flatten()  # [P*G]
        prompts = [group.prompt_ids for group in groups for _ in group.completions]
        completions = [completion for group in groups for completion in group.completions]
        batches = list(
            pack_sequences(
                prompts,
                [completion.ids for completion in completions],
                row_tokens=config.row_tokens,
                rows_per_batch=config.rows_per_micro_batch,
                pad_token_id=self.model.config.eos_token_id,
            )
        )
        weights = self._token_weights(batches, completions)
        old = self._old_logps(batches) if config.num_iterations > 1 else None
        sampled, sums, norms = _Sampled(completions), _Sums(), []
        for iteration in range(config.num_iterations):
            for index, batch in enumerate(batches):
                old_logp = None if old is None else old[index]
                unmoved = sampled if iteration == 0 else None
                self._accumulate(batch, advantages, weights[index], old_logp, sums, unmoved)
            norms.append(self._finish(step))
        self.maybe_sync_reference(step)
        num_tokens = sum(len(batch.target) for batch in batches)
        passes = num_tokens * config.num_iterations
        fed = sum(batch.num_fed for batch in batches)
        reference_passes = 0 if self.reference is None else config.num_iterations
        figures = {
            "loss": sums.loss / config.num_iterations,
            "grad_norm": sum(norms) / len(norms),
            "learning_rate": learning_rate_of_step(config, step),
            "clip_ratio/low_mean": sums.clip_low / passes,
            "clip_ratio/high_mean": sums.clip_high / passes,
            "clip_ratio/region_mean": (sums.clip_low + sums.clip_high) / passes,
            "sampling/sampling_logp_difference/mean": sums.gap_sum / num_tokens,
            "sampling/sampling_logp_difference/max": sums.gap_max,
            "moe/load_violation": max_violation(self.load.counts),
            "moe/route_mismatch": sums.routes_differ / max(sums.routes, 1),
            "tokens/trained": float(fed * config.num_iterations),
            "tokens/scored": float(fed * (reference_passes + (old is not None))),
            "time/train": time.perf_counter() - started,
        }
        self.load.counts.zero_()
        if self.reference is not None:
            figures["kl"] = sums.kl / passes
        return figures

    def maybe_sync_reference(self, step: int) -> None:
        """Replace the reference by the policy every ref_sync_steps (R1-Zero: 400)."""
        every = self.config.ref_sync_steps
        if self.reference is not None and every is not None and (step + 1) % every == 0:
            self.reference.load_state_dict(self.model.state_dict())

    def _token_weights(
        self, batches: Sequence[PackedSequences], completions: Sequence[Completion]
    ) -> list[Tensor]:
        """Each micro-batch's share of the step's mean, one number a token."""
        config = self.config
        sequence = torch.cat([batch.sequence for batch in batches])  # [M of the step]
        counted = torch.ones(len(sequence), dtype=torch.bool)
        if config.mask_truncated_completions:
            counted = torch.tensor([completion.ended for completion in completions])[sequence]
        weights = torch.zeros(len(sequence))
        weights[counted] = aggregation_weights(
            sequence[counted], len(completions), config.max_completion_length, config.loss_type
        )
        return list(weights.split([len(batch.sequence) for batch in batches]))

    @torch.no_grad()
    def _old_logps(self, batches: Sequence[PackedSequences]) -> list[Tensor]:
        return [score_tokens(self.model, batch, self.dtype).logp for batch in batches]

    def _accumulate(
        self,
        batch: PackedSequences,
        advantages: Tensor,
        weights: Tensor,
        old_logp: Tensor | None,
        sums: _Sums,
        sampled: _Sampled | None,
    ) -> None:
        """Forward and backward of one micro-batch; sampled: to compare with, before any update."""
        config = self.config
        scored = score_tokens(self.model, batch, self.dtype)
        now = scored.logp.detach()
        old = now if old_logp is None else old_logp
        advantage = advantages[batch.sequence]  # [M]
        per_token = clipped_surrogate(
            scored.logp, old, advantage, config.epsilon, config.epsilon_high
        )
        if self.reference is not None:
            with torch.no_grad():
                ref = score_tokens(self.reference, batch, self.dtype).logp
            kl = k3_kl(scored.logp, ref)
            per_token = per_token + config.beta * kl
            sums.kl += float(kl.detach().sum())
        loss = (per_token * weights).sum()
        loss.backward()
        sums.loss += float(loss.detach())
        low, high = clip_fractions(now, old, advantage, config.epsilon, config.epsilon_high)
        sums.clip_low += low * len(now)
        sums.clip_high += high * len(now)
        if sampled is not None:
            self.load.add(self.load.of(scored.routing))
            self._compare(batch, sampled, scored, sums)

    def _compare(
        self, batch: PackedSequences, sampled: _Sampled, scored: ScoredTokens, sums: _Sums
    ) -> None:
        """How far the trainer is from the sampler, before any update: probabilities and routes."""
        place = sampled.first[batch.sequence] + batch.order  # [M]
        gap = (scored.logp.detach() - sampled.logp[place]).abs()
        sums.gap_sum += float(gap.sum())
        sums.gap_max = max(sums.gap_max, float(gap.max()))
        if sampled.routes is None or not scored.routing:
            return
        fed = batch.order < sampled.lengths[batch.sequence] - 1  # [M]; the last is never fed
        # Where the completion token itself is the input: where the next one is predicted.
        inputs = batch.position[1:][fed[:-1]]
        # Routes lack the last token of every completion before this one.
        wanted = sampled.routes[place[fed] - batch.sequence[fed]]  # [M, L, K]
        chosen = torch.stack([s.routing.expert_idx[inputs] for s in scored.routing], dim=1)
        same = wanted.long().sort(dim=-1).values == chosen.sort(dim=-1).values
        sums.routes += len(inputs)
        sums.routes_differ += int((~same.all(dim=-1).all(dim=-1)).sum())

    def _finish(self, step: int) -> float:
        norm = float(clip_grad_norm_(self.model.parameters(), self.config.clip_grad_norm))
        if math.isfinite(norm):
            self.optimizer.step(learning_rate_of_step(self.config, step))
        else:
            self.optimizer.zero_grad()
        return norm
