"""open_weights: every family's directories, names, tied heads, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from rorqual.checkpoint.weights import open_weights
from rorqual.config import DenseConfig, ModelConfig
from rorqual.errors import CheckpointError
from tests.checkpoint.tiny_models import FAMILIES, edit_config

Tiny = Callable[[str], Path]
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def copy_of(tiny_directory: Tiny, name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_directory(name), tmp_path / "model"))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_tensor_reads_as_published(tiny_directory: Tiny, name: str) -> None:
    directory = tiny_directory(name)
    weights = open_weights(directory)
    stored = load_file(directory / "model.safetensors")
    assert set(weights.names()) == set(stored)
    for tensor in weights.names():
        values = weights.read(tensor)
        assert values.dtype == np.float32 and values.shape == weights.shape(tensor)
        np.testing.assert_array_equal(values, stored[tensor])
    assert weights.stored_bytes == sum(values.nbytes for values in stored.values())
    dense = not name.startswith("deepseek")
    assert isinstance(weights.config, DenseConfig if dense else ModelConfig)


@pytest.mark.parametrize("name", ["qwen3", "llama-3.1"])
def test_a_tied_head_reads_the_embedding_and_is_not_listed(tiny_directory: Tiny, name: str) -> None:
    weights = open_weights(tiny_directory(name))
    assert weights.config.tie_word_embeddings and HEAD not in weights.names()
    np.testing.assert_array_equal(weights.read(HEAD), weights.read(EMBEDDING))


def test_mtp_modules_that_a_copy_leaves_out_are_not_asked_for(tiny_directory: Tiny) -> None:
    raw = json.loads((tiny_directory("deepseek-v3") / "config.json").read_text())
    assert raw["num_nextn_predict_layers"] == 1  # transformers saves the field, not the module
    config = open_weights(tiny_directory("deepseek-v3")).config
    assert isinstance(config, ModelConfig) and config.num_nextn_predict_layers == 0


def test_bfloat16_directories_read_as_float32(tiny_directory: Tiny, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_directory("qwen2"))
    model.bfloat16().save_pretrained(tmp_path)
    values = open_weights(tmp_path).read(EMBEDDING)
    expected = model.get_input_embeddings().weight.detach().float().numpy()
    np.testing.assert_array_equal(values, expected)


def test_old_rotary_buffers_are_passed_over(tiny_directory: Tiny, tmp_path: Path) -> None:
    directory = copy_of(tiny_directory, "llama", tmp_path)
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    assert not any("rotary" in name for name in open_weights(directory).names())


def test_what_does_not_belong_together_is_named(tiny_directory: Tiny, tmp_path: Path) -> None:
    directory = copy_of(tiny_directory, "qwen2", tmp_path)
    edit_config(directory, intermediate_size=100)
    with pytest.raises(CheckpointError, match=r"shape \[96, 64\].*\[100, 64\]"):
        open_weights(directory)
    edit_config(directory, intermediate_size=96, num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"layers\.2.*missing"):
        open_weights(directory)
    edit_config(directory, num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"layers\.1.*no place"):
        open_weights(directory)


def test_unknown_names_and_places_are_errors(tiny_directory: Tiny, tmp_path: Path) -> None:
    weights = open_weights(tiny_directory("llama"))
    with pytest.raises(CheckpointError, match=r"no tensor model\.nothing"):
        weights.read("model.nothing")
    (tmp_path / "a.gguf").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"give one of them, such as .*a\.gguf"):
        open_weights(tmp_path)
    with pytest.raises(CheckpointError, match="not found"):
        open_weights(tmp_path / "absent")
