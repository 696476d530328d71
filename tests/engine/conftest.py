"""A tiny checkpoint with its tokenizer, on disk, for tests that go through LLM."""

from pathlib import Path

import pytest

from rorqual.checkpoint import save_model
from rorqual.model import Transformer, initialize
from tests.conftest import small_config
from tests.engine.tokenizers import small_tokenizer


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random V3 model whose vocabulary is the small tokenizer's, padded."""
    tokenizer = small_tokenizer()
    config = small_config(
        vocab_size=tokenizer.vocab_size + 5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = Transformer(config)
    initialize(model, 0)
    path = tmp_path_factory.mktemp("tiny") / "model"
    save_model(model, tokenizer, path)
    return path
