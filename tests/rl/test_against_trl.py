"""Oracle: TRL's GRPOTrainer, on the same weights, prompts, completions and rewards.

TRL's own code runs: its advantages, its loss, and whole steps of its training loop on our
checkpoint as transformers loads it. Only generation is scripted.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from rorqual.checkpoint import load_model
from rorqual.config.rl import RLConfig
from rorqual.model import Completion
from rorqual.rl.advantages import group_advantages
from rorqual.rl.figures import rollout_figures
from rorqual.rl.losses import (
    Aggregation,
    aggregation_weights,
    clip_fractions,
    clipped_surrogate,
    k3_kl,
)
from rorqual.rl.rollout import Group, Rollouts
from rorqual.rl.update import GRPOUpdate
from rorqual.tasks import Problem, Score
from tests.rl.conftest import run_config

# Warnings of TRL, transformers and datasets are not ours to fix.
pytestmark = pytest.mark.filterwarnings("ignore")

EOS = 1
NUM_PROMPTS, SIZE, LONGEST = 3, 4, 9
PROMPTS = [[7, 20, 31, 42], [9, 11], [300, 301, 302, 303, 304, 305, 306]]
LOSS_TYPES: tuple[Aggregation, ...] = ("grpo", "dr_grpo", "dapo")
Rule = Callable[[list[int]], float]


def scripted_completions() -> list[list[list[int]]]:
    """Some end, some are cut at LONGEST; all lengths differ within a group."""
    rng = random.Random(4)
    groups: list[list[list[int]]] = []
    for _ in range(NUM_PROMPTS):
        group = [[rng.randrange(10, 350) for _ in range(n)] for n in (2, 4, 7, LONGEST)]
        groups.append([ids if len(ids) == LONGEST else [*ids, EOS] for ids in group])
    return groups


COMPLETIONS = scripted_completions()


def mixed(ids: list[int]) -> float:
    return (sum(ids) % 7) / 6


def short(ids: list[int]) -> float:
    return 1 - len(ids) / LONGEST


def equal_in_the_second_group(ids: list[int]) -> float:
    return 1.0 if ids in COMPLETIONS[1] else mixed(ids)


@pytest.fixture(scope="module")
def trl() -> ModuleType:
    """Imported here so that collecting the tests stays quick."""
    import trl

    return trl


@pytest.fixture
def make_trainer(trl: ModuleType, model_path: Path, tmp_path: Path) -> Callable[..., Any]:
    """A GRPOTrainer on our checkpoint, whose completions are COMPLETIONS."""
    from datasets import Dataset
    from transformers import AutoTokenizer, DeepseekV3ForCausalLM

    def script(prompts: list[str], _: Any) -> dict[str, Any]:
        asked = [int(prompt) for prompt in prompts]
        return {
            "prompt_ids": [PROMPTS[index] for index in asked],
            "completion_ids": [
                COMPLETIONS[index][place]
                for index, rows in itertools.groupby(asked)
                for place, _ in enumerate(rows)
            ],
            "logprobs": None,
        }

    def make(rules: tuple[Rule, ...] = (mixed,), **settings: Any) -> Any:
        def reward(rule: Rule) -> Callable[..., list[float]]:
            def function(completion_ids: list[list[int]], **_: Any) -> list[float]:
                return [rule(ids) for ids in completion_ids]

            function.__name__ = rule.__name__
            return function

        model = DeepseekV3ForCausalLM.from_pretrained(model_path, dtype=torch.float32)
        fields: dict[str, Any] = {
            "output_dir": str(tmp_path / "trl"),
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "per_device_train_batch_size": NUM_PROMPTS * SIZE,
            "num_generations": SIZE,
            "max_completion_length": LONGEST,
            "shuffle_dataset": False,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
        }
        return trl.GRPOTrainer(
            model=model,
            reward_funcs=[reward(rule) for rule in rules],
            args=trl.GRPOConfig(**(fields | settings)),
            train_dataset=Dataset.from_list([{"prompt": str(i)} for i in range(NUM_PROMPTS)]),
            processing_class=AutoTokenizer.from_pretrained(model_path),
            optimizers=(torch.optim.SGD(model.parameters(), lr=1.0), None),
            rollout_func=script,
        )

    return make


def rewards_of(rule: Rule) -> Tensor:
    """[P, G]"""
    return torch.tensor([[rule(ids) for ids in group] for group in COMPLETIONS])


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
@pytest.mark.parametrize("rule", [mixed, equal_in_the_second_group])
def test_advantages_are_trls(make_trainer: Callable[..., Any], scale: Any, rule: Rule) -> None:
    trainer = make_trainer((rule, short), scale_rewards=scale, reward_weights=[1.0, 0.5])
    inputs = [{"prompt": str(i)} for i in range(NUM_PROMPTS) for _ in range(SIZE)]
    theirs = trainer._generate_and_score_completions(inputs)["advantages"]
    rewards = rewards_of(rule) + 0.5 * rewards_of(short)
    ours = group_advantages(rewards, scale).flatten()
    assert ours.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@dataclass(frozen=True)
class Tokens:
    """Log-probabilities of 5 completions of up to 8 tokens. All [5, 8]; advantages [5]."""

    mask: Tensor
    logp: Tensor
    old: Tensor
    ref: Tensor
    advantages: Tensor

    @classmethod
    def draw(cls) -> "Tokens":
        rng = torch.Generator().manual_seed(3)
        lengths = torch.tensor([8, 1, 5, 3, 6])
        logp, old, ref = (-3 * torch.rand(5, 8, generator=rng) for _ in range(3))
        # Ratios on both sides of both clips, and some inside.
        old = logp + 0.4 * (old - old.mean())
        return cls(
            (torch.arange(8) < lengths[:, None]).int(), logp, old, ref,
            torch.tensor([0.9, -0.6, -1.1, 0.7, 0.1]),
        )  # fmt: skip

    def flat(self, values: Tensor) -> Tensor:
        """[5, 8] -> [M]"""
        return values[self.mask.bool()]

    def sequence(self) -> Tensor:
        """Which completion each of the M tokens belongs to. [M]"""
        return self.mask.nonzero()[:, 0]


@contextmanager
def fixed_log_probabilities(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, logp: Tensor
) -> Iterator[None]:
    """TRL's loss on these numbers instead of a model's."""

    def given(*_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
        return logp, torch.zeros_like(logp), None

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_get_per_token_logps_and_entropies", given)
        yield


@pytest.fixture
def tokens() -> Tokens:
    return Tokens.draw()


@pytest.mark.parametrize("beta", [0.0, 0.2])
@pytest.mark.parametrize("on_policy", [True, False])
def test_losses_and_their_gradients_are_trls(
    make_trainer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tokens: Tokens,
    on_policy: bool,
    beta: float,
) -> None:
    # Ours is GRPO's plain KL term; TRL also offers V3.2's, weighted by the ratio.
    trainer = make_trainer(epsilon=0.2, epsilon_high=0.28, use_bias_correction_kl=False)
    trainer.model.train()
    trainer.beta, trainer.current_gradient_accumulation_steps = beta, 1
    inputs = {
        "prompt_ids": torch.zeros(5, 1, dtype=torch.long),
        "prompt_mask": torch.ones(5, 1, dtype=torch.long),
        "completion_ids": torch.zeros(5, 8, dtype=torch.long),
        "completion_mask": tokens.mask,
        "advantages": tokens.advantages,
        "ref_per_token_logps": tokens.ref,
        "num_items_in_batch": tokens.mask.sum(),
    }
    if not on_policy:
        inputs["old_per_token_logps"] = tokens.old
    sequence, flat = tokens.sequence(), tokens.flat
    for kind in LOSS_TYPES:
        trainer.loss_type = kind
        theirs = tokens.logp.clone().requires_grad_()
        with fixed_log_probabilities(trainer, monkeypatch, theirs):
            their_loss = trainer._compute_loss(trainer.model, inputs)
        their_loss.backward()
        assert theirs.grad is not None

        ours = flat(tokens.logp).requires_grad_()
        old = ours.detach() if on_policy else flat(tokens.old)
        advantage = tokens.advantages[sequence]
        per_token = clipped_surrogate(ours, old, advantage, 0.2, 0.28)
        per_token = per_token + beta * k3_kl(ours, flat(tokens.ref))
        our_loss = (per_token * aggregation_weights(sequence, 5, LONGEST, kind)).sum()
        our_loss.backward()
        torch.testing.assert_close(our_loss, their_loss, rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.grad, flat(theirs.grad), rtol=0, atol=1e-6)

        low, high = clip_fractions(ours.detach(), old, advantage, 0.2, 0.28)
        metrics = trainer._metrics["train"]
        assert low == pytest.approx(metrics["clip_ratio/low_mean"][-1])
        assert high == pytest.approx(metrics["clip_ratio/high_mean"][-1])
        assert on_policy or min(low, high) > 0
        if beta:
            kl = float(k3_kl(ours.detach(), flat(tokens.ref)).mean())
            assert kl == pytest.approx(metrics["kl"][-1])


class PlainDescent:
    """Weights minus gradients: what the optimizer was given shows in what changed."""

    def __init__(self, parameters: list[torch.nn.Parameter]):
        self._sgd = torch.optim.SGD(parameters, lr=1.0)

    def step(self, learning_rate: float) -> None:
        self._sgd.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        self._sgd.zero_grad()


def our_groups(rule: Rule) -> list[Group]:
    problem = Problem("running_state", 1, "en", "?", "0", "k")
    return [
        Group(
            problem, 0, prompt,
            [Completion(ids, [0.0] * len(ids), ids[-1] == EOS, 0.0) for ids in group],
            [""] * SIZE, [Score(0.0, False, "no answer")] * SIZE,
            torch.tensor([rule(ids) for ids in group]),
        )
        for prompt, group in zip(PROMPTS, COMPLETIONS, strict=True)
    ]  # fmt: skip


WHOLE_STEPS: list[dict[str, Any]] = [
    {"loss_type": "grpo", "scale_rewards": "group"},
    {"loss_type": "dr_grpo", "scale_rewards": "none"},
    {"loss_type": "dapo", "scale_rewards": "batch", "num_iterations": 2},
    {"loss_type": "dapo", "scale_rewards": "none", "mask_truncated_completions": True},
    {"loss_type": "grpo", "scale_rewards": "none", "mask_truncated_completions": True},
]


@pytest.mark.parametrize("settings", WHOLE_STEPS, ids=lambda s: "-".join(map(str, s.values())))
def test_whole_steps_are_trls(
    make_trainer: Callable[..., Any], model_path: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Loss, gradient norm, clipped gradients and, after two updates, the ratio's effect."""
    updates = settings.get("num_iterations", 1)
    trainer = make_trainer((mixed,), epsilon_high=0.28, max_steps=updates, beta=0.0, **settings)
    trainer.train()
    logged = trainer.state.log_history[:updates]
    trainer.model.save_pretrained(tmp_path / "theirs")
    theirs = load_model(tmp_path / "theirs", dtype=torch.float32, with_mtp=False)

    config: RLConfig = run_config(model_path, [{"name": "running_state"}], **settings).rl
    config = config.model_copy(update={"max_completion_length": LONGEST, "row_tokens": 32})
    ours = load_model(model_path, dtype=torch.float32, with_mtp=False)
    before = {name: parameter.detach().clone() for name, parameter in ours.named_parameters()}
    update = GRPOUpdate(ours, config, torch.float32)
    update.optimizer = PlainDescent(list(ours.parameters()))  # type: ignore[assignment]
    figures = update.run(our_groups(mixed), step=0)

    def mean(name: str) -> float:
        return sum(record[name] for record in logged) / updates

    assert figures["loss"] == pytest.approx(mean("loss"), abs=1e-5)
    assert figures["grad_norm"] == pytest.approx(mean("grad_norm"), rel=1e-3)
    moved = 0.0
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
        moved = max(moved, float((a - before[name]).abs().max()))
    assert moved > 1e-2


def test_figures_mean_what_trls_do(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer((equal_in_the_second_group,), max_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    groups = our_groups(equal_in_the_second_group)
    figures = rollout_figures(Rollouts(kept=groups, drawn=groups))
    names = [
        "reward", "reward_std", "frac_reward_zero_std", "completions/mean_length",
        "completions/min_length", "completions/max_length", "completions/clipped_ratio",
        "completions/mean_terminated_length",
    ]  # fmt: skip
    for name in names:
        assert figures[name] == pytest.approx(logged[name], abs=1e-6), name
    assert 0 < logged["frac_reward_zero_std"] < 1
