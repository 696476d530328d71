"""One optimizer step: micro-batches in, one update out.

The gradient is that of one large batch whatever the number of micro-batches and processes: every
sum of losses is divided by the number of targets of the whole step. A step whose loss or gradient
norm is not finite, or whose norm spikes, changes nothing.

On one GPU, forward and backward of micro-batches of a recurring shape are replayed as a CUDA graph.
"""

import statistics
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_

from rorqual.config import TrainConfig
from rorqual.kernels.twins_moe import runs_grouped
from rorqual.model import IGNORED, LossTerms, PackedTokens, Transformer, loss_terms
from rorqual.parallel import Processes
from rorqual.train.balance import LoadCounter, max_violation
from rorqual.train.graphed import Graphed
from rorqual.train.optimizer import RunOptimizer
from rorqual.train.schedule import bias_update_speed, learning_rate, mtp_weight

_NORM_WINDOW = 64  # accepted gradient norms that a spike is measured against
_NORM_WARMUP = 16  # fewer than this say nothing yet
_RECURRING = 4  # steps of one shape after which it is worth a CUDA graph
_MOST_GRAPHS = 2  # each holds the memory of a step


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did. Losses are means per target in nats; skipped names why nothing changed."""

    loss: float
    mtp_loss: float
    balance_loss: float
    grad_norm: float
    learning_rate: float
    max_violation: float
    num_targets: int
    skipped: str | None


class TrainStep:
    """Holds the model, its optimizer and what a step needs to remember."""

    def __init__(
        self, model: Transformer, config: TrainConfig, processes: Processes, dtype: torch.dtype
    ):
        self.model, self.config, self.processes, self.dtype = model, config, processes, dtype
        self.optimizer = RunOptimizer(model, config)
        self.load = LoadCounter(model)
        self.recent_norms: deque[float] = deque(maxlen=_NORM_WINDOW)
        self._graphs: dict[tuple[torch.Size, bool], Graphed] = {}
        self._shapes_seen: Counter[tuple[torch.Size, bool]] = Counter()

    def run(self, micro_batches: Sequence[PackedTokens], progress: float) -> StepResult:
        """Train on this process's micro-batches of one step."""
        num_mtp = self.model.config.num_nextn_predict_layers
        targets = self._count_targets(micro_batches, num_mtp)  # [1 + num_mtp]
        num_rows = sum(batch.tokens.shape[0] for batch in micro_batches)
        sums = torch.zeros(3, dtype=torch.float64, device=self.processes.device)
        weight = mtp_weight(self.config, progress) if num_mtp else 0.0
        self._prepare_graph(micro_batches[0], targets)
        for batch in micro_batches:
            share = batch.tokens.shape[0] / num_rows / self.processes.world_size
            scales = torch.tensor([weight, share], device=sums.device)
            parts, counts = self._gradients(batch, targets, scales)
            self.load.add(counts)
            sums += parts
        return self._finish(self.processes.sum(sums), progress, int(targets[0]))

    def rehearse(self, micro_batches: Sequence[PackedTokens]) -> None:
        """The work of a step at learning rate 0, for timing; `forget` leaves no trace of it."""
        for batch in micro_batches:
            terms = self._terms(batch)
            torch.stack((terms.main, *terms.mtp)).sum().backward()
        self.optimizer.step(0.0)

    def forget(self) -> None:
        """Drop the moments that rehearsed steps left; weights and biases never moved."""
        self.optimizer = RunOptimizer(self.model, self.config)

    def _gradients(
        self, batch: PackedTokens, targets: Tensor, scales: Tensor
    ) -> tuple[Tensor, ...]:
        """As `_differentiate`, replayed if this shape was recorded."""
        graph = self._graphs.get(_shape(batch))
        return (graph or self._differentiate)(targets, scales, *_tensors(batch))

    def _prepare_graph(self, batch: PackedTokens, targets: Tensor) -> None:
        """Record a shape that recurs; gradients are zeros between steps and stay where they are."""
        if self.processes.world_size > 1 or not self._can_be_recorded():
            return
        shape = _shape(batch)
        self._shapes_seen[shape] += 1
        if self._shapes_seen[shape] != _RECURRING or len(self._graphs) == _MOST_GRAPHS:
            return
        for parameter in self.model.parameters():
            if parameter.grad is None:  # else an earlier graph adds to it
                parameter.grad = torch.zeros_like(parameter)
        example = [targets, torch.ones(2, device=targets.device), *_tensors(batch)]
        self._graphs[shape] = Graphed(self._differentiate, example)
        self.optimizer.keep_gradients = True
        self.optimizer.zero_grad()

    def _can_be_recorded(self) -> bool:
        """Whether a forward and backward never waits for the device, which must be a GPU."""
        device, model = self.processes.device, self.model.config
        widths = (model.hidden_size, model.moe_intermediate_size)
        grouped = not self.load.layers or runs_grouped(self.dtype, device, *widths)
        return device.type == "cuda" and grouped

    def _differentiate(
        self,
        targets: Tensor,
        scales: Tensor,
        tokens: Tensor,
        document_idx: Tensor,
        loss_mask: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Add a micro-batch's gradients; its losses [3] and tokens per expert [layers, E].

        targets [1 + num_mtp] of the whole step; scales [2]: the weight of MTP, and the share of the
        step's rows.
        """
        weight, share = scales.unbind()
        terms = self._terms(PackedTokens(tokens, document_idx, loss_mask))
        parts = self._parts(terms, targets, share)  # [3]
        loss = parts[0] + weight * parts[1] + self._balance_weight() * parts[2]
        # FSDP averages gradients over processes; these losses are already shares of a sum.
        (loss * self.processes.world_size).backward()
        return parts.detach().double(), self.load.of(terms.routing)

    def _terms(self, batch: PackedTokens) -> LossTerms:
        return loss_terms(
            self.model,
            batch,
            document_mask=self.config.document_mask,
            with_mtp=self.model.config.num_nextn_predict_layers > 0,
            dtype=self.dtype,
        )

    def _count_targets(self, micro_batches: Sequence[PackedTokens], num_mtp: int) -> Tensor:
        counts = torch.zeros(1 + num_mtp, dtype=torch.long, device=self.processes.device)
        for batch in micro_batches:
            for depth in range(1 + num_mtp):
                counts[depth] += (batch.targets(depth) != IGNORED).sum()
        return self.processes.sum(counts).clamp(min=1)

    def _balance_weight(self) -> float:
        return 0.0 if self.config.balancing == "none" else self.model.config.aux_loss_alpha

    def _parts(self, terms: LossTerms, targets: Tensor, share: Tensor) -> Tensor:
        """Main, MTP (mean over depths) and balance losses as shares of the step's means. [3]"""
        main = terms.main / targets[0]
        mtp = torch.zeros_like(main)
        for depth, total in enumerate(terms.mtp):
            mtp = mtp + total / targets[depth + 1] / len(terms.mtp)
        return torch.stack((main, mtp, terms.balance * share))

    def _finish(self, means: Tensor, progress: float, num_targets: int) -> StepResult:
        norm = clip_grad_norm_(self.model.parameters(), self.config.clip_grad_norm)
        grad_norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        loss, mtp_loss, balance = means.tolist()
        skipped = self._reason_to_skip(loss, grad_norm)
        rate = learning_rate(self.config, progress)
        counts = self.load.gather(self.processes)
        if skipped is None:
            self.optimizer.step(rate)
            self.recent_norms.append(grad_norm)
            if self.config.balancing == "loss_free" and self.model.config.uses_selection_bias:
                self.load.update_biases(counts, bias_update_speed(self.config, progress))
        else:
            self.optimizer.zero_grad()
        return StepResult(
            loss, mtp_loss, balance, grad_norm, rate, max_violation(counts), num_targets, skipped
        )

    def _reason_to_skip(self, loss: float, grad_norm: float) -> str | None:
        if not torch.isfinite(torch.tensor([loss, grad_norm])).all():
            return f"loss {loss} or gradient norm {grad_norm} is not finite"
        if len(self.recent_norms) < _NORM_WARMUP:
            return None
        usual = statistics.median(self.recent_norms)
        if grad_norm > self.config.spike_factor * usual:
            return f"gradient norm {grad_norm:.3g} is {grad_norm / usual:.0f} times the median"
        return None


def _tensors(batch: PackedTokens) -> list[Tensor]:
    """As `PackedTokens` takes them, the loss mask only if there is one."""
    return [t for t in (batch.tokens, batch.document_idx, batch.loss_mask) if t is not None]


def _shape(batch: PackedTokens) -> tuple[torch.Size, bool]:
    return batch.tokens.shape, batch.loss_mask is not None
