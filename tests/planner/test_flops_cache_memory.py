"""Compute, cache and memory against published figures and against hand arithmetic."""

import pytest

from rorqual.config import ModelConfig
from rorqual.config.plan import read_plan
from rorqual.config.presets import find_preset
from rorqual.planner import (
    count_parameters,
    decode_flops_per_token,
    decode_tokens_per_second_limit,
    gqa_cache_bytes_per_token,
    mha_cache_bytes_per_token,
    mla_cache_bytes_per_token,
    prefill_flops_per_token,
    serving_bytes,
    train_flops_per_token,
    train_tokens_per_second_limit,
    training_bytes,
)
from rorqual.planner.flops import (
    LLAMA31_405B,
    QWEN25_72B,
    attention_flops,
    dense_train_flops_per_token,
)
from rorqual.planner.memory import touched_experts

SMALL = ModelConfig(
    vocab_size=8192,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=8,
    num_attention_heads=8,
    q_lora_rank=192,
    kv_lora_rank=128,
    qk_nope_head_dim=64,
    qk_rope_head_dim=32,
    v_head_dim=64,
    moe_intermediate_size=256,
    n_routed_experts=32,
    n_shared_experts=1,
    num_experts_per_tok=4,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=1,
)


def preset(name: str) -> ModelConfig:
    return read_plan(find_preset(name))[0]


@pytest.mark.parametrize(("name", "published"), [("v3", 250e9), ("v2", 155e9)])
def test_training_flops_agree_with_the_hardware_paper(name: str, published: float):
    config = preset(name)
    flops = train_flops_per_token(config, count_parameters(config), 4096, causal=True)
    assert flops == pytest.approx(published, rel=0.005)


def test_v3_attention_flops_by_hand():
    # 61 layers x 128 heads x (192 + 128) x 4096 keys x 2 FLOP, half of it when causal.
    assert attention_flops(preset("v3"), 4096, causal=False) == 61 * 128 * 320 * 4096 * 2
    assert attention_flops(preset("v3"), 4096, causal=True) == 61 * 128 * 320 * 4096


def test_inference_flops_start_at_two_per_active_weight():
    config, counts = preset("v3"), count_parameters(preset("v3"))
    assert decode_flops_per_token(config, counts, 0) == 2 * counts.active_matmul
    assert prefill_flops_per_token(config, counts, 0) == 2 * counts.active_matmul
    # Absorbed scores are 576 wide and values 512 wide, per head and cached token.
    added = decode_flops_per_token(config, counts, 1) - 2 * counts.active_matmul
    assert added == 2 * 61 * 128 * (576 + 512)


def test_dense_comparison_agrees_for_llama_and_departs_for_qwen():
    assert dense_train_flops_per_token(LLAMA31_405B, 4096) == pytest.approx(2448e9, rel=0.015)
    # The printed 394 GFLOP is below six times the weights; the plan shows the difference.
    assert dense_train_flops_per_token(QWEN25_72B, 4096) == pytest.approx(445e9, rel=0.001)


def test_cache_bytes_equal_the_published_ones():
    assert mla_cache_bytes_per_token(preset("v3")) == 70_272
    assert gqa_cache_bytes_per_token(QWEN25_72B) == 327_680
    assert gqa_cache_bytes_per_token(LLAMA31_405B) == 516_096


def test_mla_keeps_under_two_percent_of_the_uncompressed_cache():
    config = preset("v3")
    assert mha_cache_bytes_per_token(config) == 128 * (192 + 128) * 61 * 2
    assert mla_cache_bytes_per_token(config) / mha_cache_bytes_per_token(config) < 0.02


def test_cpu_limits_reproduce_the_roofline_of_the_peer_report():
    """27.5 GB/s and 1 TFLOP/s: 512 tok/s at context 512, 2,130 at batch 16, 6,370 in training."""
    counts = count_parameters(SMALL)

    def limit(num_sequences: int) -> float:
        return decode_tokens_per_second_limit(
            SMALL,
            counts,
            bytes_per_second=27.5e9,
            context_tokens=512,
            num_sequences=num_sequences,
        )

    assert limit(1) == pytest.approx(512, rel=0.01)
    assert limit(16) == pytest.approx(2130, rel=0.01)
    train = train_tokens_per_second_limit(6 * counts.active_with_head, 1e12)
    assert train == pytest.approx(6370, rel=0.01)


def test_touched_experts_grow_from_k_to_all():
    assert touched_experts(SMALL, 1) == pytest.approx(4)
    assert touched_experts(SMALL, 16) == pytest.approx(28.2, abs=0.05)
    assert touched_experts(SMALL, 10_000) == pytest.approx(32)


def test_training_memory_is_eighteen_bytes_a_weight_before_activations():
    counts = count_parameters(SMALL)
    weights = counts.total - counts.selection_bias
    held = training_bytes(SMALL, counts, micro_batch_tokens=512)
    assert held.total - held.activations == 18 * weights
    compact = training_bytes(SMALL, counts, micro_batch_tokens=512, adam_moment_bytes=2)
    assert held.total - compact.total == 4 * weights
    double = training_bytes(SMALL, counts, micro_batch_tokens=1024)
    assert double.activations == 2 * held.activations


def test_serving_memory_is_weights_plus_cache_of_every_sequence():
    config, counts = preset("v3"), count_parameters(preset("v3"))
    held = serving_bytes(config, counts, context_tokens=1000, num_sequences=3, weight_bytes=1)
    assert held.weights == counts.total
    assert held.cache == 3 * 1000 * 70_272
    assert held.total == held.weights + held.cache
