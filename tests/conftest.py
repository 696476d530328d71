"""Small configurations that several rooms test with, and a corpus that is always there."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rorqual.config import ModelConfig, YarnConfig

IN_CI = os.environ.get("CI", "").lower() == "true"


def small_config(**changes: object) -> ModelConfig:
    """A V3 network of 3 layers whose every dimension differs, so that mixed-up axes show."""
    values: dict[str, object] = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "q_lora_rank": 24,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        "moe_intermediate_size": 40,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 4,
        "topk_group": 2,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.5,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
    }
    return ModelConfig(**(values | changes))  # type: ignore[arg-type]


YARN = YarnConfig(factor=8, original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=0.8)


@pytest.fixture
def require_or_fail():
    """Skip for a missing tool on a desk, fail in CI."""

    def decide(path: Path, how: str) -> None:
        if path.exists():
            return
        message = f"{path.name} is missing: {how}"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)

    return decide


@pytest.fixture(scope="session", autouse=True)
def data_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What would go among the user's own data (the machine's key) goes into a folder of tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("user-data")
        patch.setenv("XDG_DATA_HOME", str(folder))
        yield folder
