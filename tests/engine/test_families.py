"""`LLM` on what transformers saved, for every family that is served, and on the same as GGUF."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from rorqual.checkpoint.convert import convert
from rorqual.engine.llm import LLM
from rorqual.engine.requests import SamplingParams
from tests.checkpoint.tiny_models import FAMILIES, write_tiny
from tests.engine.tokenizers import small_tokenizer

OPTIONS = {"precision": "fp32", "max_cache_bytes": 4 << 20, "num_threads": 1}
TEXT = "def main(argv): return 北京 12345  # " * 4


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_saved_model_scores_and_writes_as_transformers_does(name: str, tmp_path: Path) -> None:
    transformers.utils.logging.disable_progress_bar()
    tokenizer = small_tokenizer()
    peer: Any = write_tiny(name, tmp_path / "m", tokenizer)
    ids = tokenizer.encode(TEXT)
    assert len(ids) > 64  # more than two cache blocks; past the original context of `-yarn`
    tokens = torch.tensor([ids])
    expected = peer(tokens).logits[0].log_softmax(-1)  # [T, V]
    following = expected[:-1].gather(1, tokens[0, 1:, None])[:, 0].numpy()
    answer = peer.generate(
        tokens[:, :40], max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=2
    )[0, 40:].tolist()  # fmt: skip

    greedy = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True)
    with LLM(tmp_path / "m", **OPTIONS) as llm:
        scored = llm.score([ids])[0]
        assert np.abs(scored - following).max() <= 1e-4 * np.abs(expected.numpy()).max()
        assert llm.generate([ids[:40]], greedy)[0].outputs[0].token_ids == answer
    convert(tmp_path / "m", tmp_path / "m.gguf", to="gguf", dtype="f32")
    with LLM(tmp_path / "m.gguf", **OPTIONS) as llm:
        assert np.array_equal(llm.score([ids])[0], scored)
