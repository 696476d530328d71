"""Accounting against counts made by hand."""

import pytest

from rorqual.config import ModelConfig
from rorqual.config.run import load_run_config
from rorqual.model import Transformer, initialize, sample_completions
from rorqual.planner import count_parameters
from rorqual.rl.costs import FlopCounter, Tokens, sampled_tokens
from rorqual.rl.packing import pack_sequences


@pytest.fixture
def teacher_config() -> ModelConfig:
    return load_run_config("tiny").model


@pytest.fixture
def student_config(teacher_config: ModelConfig) -> ModelConfig:
    """Smaller, and dense."""
    changed = {"hidden_size": 32, "n_routed_experts": None, "num_nextn_predict_layers": 0}
    return ModelConfig.model_validate(teacher_config.model_dump() | changed)


def test_sampling_reads_each_prompt_once_and_never_the_last_token() -> None:
    prompts = [[5, 6, 7], [5, 6, 7], [8, 9]]
    completions = [[1, 2, 3, 4], [1], [2, 3]]
    # prompts 3 + 2; completions 3 + 0 + 1
    assert sampled_tokens(prompts, completions) == 9


def test_sampling_feeds_what_is_counted(student_config: ModelConfig) -> None:
    model = Transformer(student_config)
    initialize(model, 0)
    fed: list[int] = []
    embed = model.model.embed_tokens
    embed.register_forward_hook(lambda _, inputs, __: fed.append(inputs[0].numel()))
    prompts = [[5, 6, 7]] * 4
    found = sample_completions(model, prompts, seeds=range(4), max_new_tokens=1)
    assert sum(fed) == sampled_tokens(prompts, [c.ids for c in found]) == 3


def test_training_counts_a_shared_prompt_once_and_no_padding() -> None:
    prompts, completions = [[5, 6, 7], [5, 6, 7], [8, 9]], [[1, 2, 3, 4], [1], [2, 3]]
    batches = list(
        pack_sequences(prompts, completions, row_tokens=7, rows_per_batch=1, pad_token_id=0)
    )
    assert len(batches) == 2
    # Prompts of 3 and 2 tokens, and each completion less its last
    assert sum(batch.num_fed for batch in batches) == 5 + 3 + 0 + 1


def test_flops_are_two_per_weight_forward_and_six_trained(
    student_config: ModelConfig, teacher_config: ModelConfig
) -> None:
    tokens = Tokens(student_training=10, student_sampling=7)
    tokens.add(Tokens(teacher_sampling=5, teacher_scoring=3))
    small = count_parameters(student_config).active_matmul
    large = count_parameters(teacher_config).active_matmul
    assert FlopCounter(student_config, teacher_config).flops(tokens) == {
        "student_training": 60 * small,
        "student_sampling": 14 * small,
        "student": 74 * small,
        "teacher_sampling": 10 * large,
        "teacher_scoring": 6 * large,
        "total": 74 * small + 16 * large,
    }
    unknown = FlopCounter(student_config, None).flops(tokens)
    assert unknown["student"] == 74 * small and unknown["total"] is None


def test_active_weights_are_the_students_own(student_config: ModelConfig) -> None:
    model = Transformer(student_config)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    embedding = model.model.embed_tokens.weight.numel()
    active = sum(p.numel() for p in matrices) - embedding
    assert FlopCounter(student_config, None).student_active == active
