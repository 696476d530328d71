"""Routing: what selects, what weighs, and what the balance losses measure."""

import pytest
import torch
from torch import Tensor

from rorqual.model import Router
from rorqual.model.router import Routing, balance_loss, count_tokens
from tests.conftest import small_config


def router_with_scores(logits: list[list[float]], bias: list[float], **changes: object) -> Routing:
    """Route tokens whose router logits are given: the weight is the identity."""
    num_experts = len(logits[0])
    config = small_config(
        hidden_size=num_experts, n_routed_experts=num_experts, n_group=1, topk_group=1, **changes
    )
    router = Router(config)
    with torch.no_grad():
        router.weight.copy_(torch.eye(num_experts))
        if config.uses_selection_bias:
            router.e_score_correction_bias.copy_(torch.tensor(bias))
    return router(torch.tensor(logits))


def test_bias_selects_but_does_not_weigh() -> None:
    logits = [[3.0, 2.0, 1.0, -1.0]]
    plain = router_with_scores(logits, [0.0] * 4, routed_scaling_factor=1.0)
    biased = router_with_scores(logits, [-1.0, 0, 0, 1.0], routed_scaling_factor=1.0)
    assert sorted(plain.expert_idx[0].tolist()) == [0, 1]
    assert sorted(biased.expert_idx[0].tolist()) == [1, 3]
    scores = torch.tensor(logits[0]).sigmoid()
    chosen = scores[biased.expert_idx[0]]
    torch.testing.assert_close(biased.expert_weight[0], chosen / chosen.sum())


def test_bias_gets_no_gradient_and_weights_do() -> None:
    config = small_config()
    router = Router(config)
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(0))
    weight = router(torch.randn(5, 64)).expert_weight
    (weight * torch.arange(2.0)).sum().backward()
    assert router.weight.grad is not None and router.weight.grad.abs().sum() > 0
    assert not router.e_score_correction_bias.requires_grad
    assert "e_score_correction_bias" in router.state_dict()


def grouped_scores(method: str, bias: Tensor) -> Routing:
    scoring = "sigmoid" if method == "noaux_tc" else "softmax"
    config = small_config(
        hidden_size=8,
        n_routed_experts=8,
        n_group=4,
        topk_group=1,
        topk_method=method,
        scoring_func=scoring,
        model_type="deepseek_v3",
    )
    router = Router(config)
    with torch.no_grad():
        router.weight.copy_(torch.eye(8))
        if config.uses_selection_bias:
            router.e_score_correction_bias.copy_(bias)
    # Group 0 has the single best expert, group 1 the best pair.
    return router(torch.tensor([[2.0, -3.0, 1.5, 1.4, 0, 0, 0, 0]]))


def test_v3_groups_by_the_sum_of_two_and_v2_by_the_maximum() -> None:
    none = torch.zeros(8)
    assert sorted(grouped_scores("noaux_tc", none).expert_idx[0].tolist()) == [2, 3]
    assert sorted(grouped_scores("group_limited_greedy", none).expert_idx[0].tolist()) == [0, 1]


def test_masked_groups_lose_even_to_negative_scores() -> None:
    # With masked scores at 0 instead of -inf the negative kept experts would lose to masked ones.
    bias = torch.tensor([-5.0, -5, -2, -2, -6, -6, -6, -6])
    assert sorted(grouped_scores("noaux_tc", bias).expert_idx[0].tolist()) == [2, 3]


def test_v2_with_normalised_weights_does_not_scale_them() -> None:
    # DeepSeek-V2's code: normalise OR scale. transformers always scales and never normalises.
    routing = router_with_scores(
        [[1.0, 2.0, 0.5, 0.0]],
        [],
        model_type="deepseek_v2",
        topk_method="greedy",
        scoring_func="softmax",
        norm_topk_prob=True,
    )
    assert float(routing.expert_weight.detach().sum()) == pytest.approx(1.0)


def test_router_computes_in_fp32_under_bfloat16_activations() -> None:
    router = Router(small_config())
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert router(x).expert_weight.dtype == torch.float32
    torch.testing.assert_close(router(x).scores, router(x.float()).scores, rtol=0, atol=0)


def test_balance_loss_by_hand() -> None:
    config = small_config(n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=1)
    scores = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.25, 0.25, 0.25, 0.25]])
    routing = Routing(torch.tensor([[0], [0]]), torch.ones(2, 1), scores)
    # One sequence: f = [4, 0, 0, 0], P_0 = (0.5 + 0.25) / 2.
    assert float(balance_loss(routing, 1, config)) == pytest.approx(4 * 0.375)
    # Two sequences of one token: 4 * 0.5 and 4 * 0.25.
    assert float(balance_loss(routing, 2, config)) == pytest.approx(1.5)
    spread = Routing(torch.tensor([[0], [1], [2], [3]]), torch.ones(4, 1), scores[1].expand(4, 4))
    assert float(balance_loss(spread, 1, config)) == pytest.approx(1.0)
    batchwise = small_config(
        n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=1, seq_aux=False
    )
    two = Routing(torch.tensor([[0], [1]]), torch.ones(2, 1), scores)
    assert float(balance_loss(two, 2, batchwise)) == pytest.approx(2 * 0.375 + 2 * 0.25)


def test_counts_are_assignments() -> None:
    routing = Routing(torch.tensor([[0, 3], [3, 1]]), torch.ones(2, 2), torch.zeros(2, 5))
    assert count_tokens(routing, 5).tolist() == [1, 1, 0, 2, 0]
