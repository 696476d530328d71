"""Small models for every test of this room."""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rorqual.config import ModelConfig
from rorqual.model import Transformer, initialize
from rorqual.tokenizer import Tokenizer, train_tokenizer
from tests.checkpoint.tiny_models import write_tiny

TINY: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 1,
    "max_position_embeddings": 64,
    # Large, so that every weight shows in the logits.
    "initializer_range": 0.3,
}


@pytest.fixture
def make_model() -> Callable[..., Transformer]:
    """A model with random weights and router biases; keywords replace config fields."""

    def make(seed: int = 0, **fields: Any) -> Transformer:
        model = Transformer(ModelConfig(**{**TINY, **fields}))
        initialize(model, seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if name.endswith("norm.weight"):
                    tensor.uniform_(0.5, 1.5, generator=generator)
                elif name.endswith("e_score_correction_bias"):
                    tensor.normal_(0.0, 0.1, generator=generator)
        return model

    return make


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """A tokenizer of 400 ids, trained on a file of the standard library."""
    return train_tokenizer([Path(argparse.__file__).read_text(encoding="utf-8")], vocab_size=400)


@pytest.fixture(scope="session")
def tiny_directory(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer
) -> Callable[[str], Path]:
    """The directory of a tiny model of one family, written once; not to be changed."""

    @functools.cache
    def write(name: str) -> Path:
        directory = tmp_path_factory.mktemp("tiny") / name
        write_tiny(name, directory, tiny_tokenizer)
        return directory

    return write
