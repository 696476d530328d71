"""Between Hugging Face and GGUF: nothing is lost, and other readers agree."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from rorqual.checkpoint import save_model
from rorqual.checkpoint.convert import convert
from rorqual.checkpoint.gguf_types import TYPE_NAMED, dequantize, encode
from rorqual.checkpoint.weights import open_weights
from rorqual.config import DenseConfig
from rorqual.errors import CheckpointError, ConfigError
from rorqual.model import Transformer
from rorqual.tokenizer import Tokenizer
from tests.checkpoint.tiny_models import FAMILIES

Tiny = Callable[[str], Path]
# What GGUF has no key for; the network does not depend on them.
UNTOLD = {"initializer_range", "aux_loss_alpha", "seq_aux"}


def logits(path: Path, ids: list[int], **options: str) -> NDArray[np.float32]:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("name", FAMILIES)
def test_f32_goes_there_and_back_bit_for_bit(
    tiny_directory: Tiny, tmp_path: Path, name: str
) -> None:
    source = tiny_directory(name)
    before = open_weights(source)
    steps: list[tuple[int, int, str]] = []
    convert(
        source,
        tmp_path / "model.gguf",
        to="gguf",
        dtype="f32",
        on_progress=lambda *step: steps.append(step),
    )
    between = open_weights(tmp_path / "model.gguf")
    convert(tmp_path / "model.gguf", tmp_path / "back", to="hf", dtype="f32")
    after = open_weights(tmp_path / "back")
    untold = {key: getattr(between.config, key) for key in UNTOLD & set(before.config.model_dump())}
    assert between.config == before.config.model_copy(update=untold) == after.config
    assert set(before.names()) == set(between.names()) == set(after.names())
    for tensor in before.names():
        np.testing.assert_array_equal(between.read(tensor), before.read(tensor), tensor)
        np.testing.assert_array_equal(after.read(tensor), before.read(tensor), tensor)
        assert between.shape(tensor) == before.shape(tensor)
    assert steps[0][0] == 0 and steps[-1][0] == steps[-1][1] and steps[-1][2] == "done"
    text = "def main(): return 12345  # 你好"
    assert after.tokenizer().encode(text) == before.tokenizer().encode(text)
    assert after.tokenizer().special_tokens == before.tokenizer().special_tokens


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "deepseek-v3"])
def test_transformers_computes_the_same_from_the_directory_written_back(
    tiny_directory: Tiny, tmp_path: Path, name: str
) -> None:
    convert(tiny_directory(name), tmp_path / "model.gguf", to="gguf", dtype="f32")
    convert(tmp_path / "model.gguf", tmp_path / "back", to="hf", dtype="f32")
    ids = list(range(20, 52))
    np.testing.assert_allclose(
        logits(tmp_path / "back", ids), logits(tiny_directory(name), ids), atol=1e-6
    )


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_transformers_reads_our_gguf(tiny_directory: Tiny, tmp_path: Path, name: str) -> None:
    """NOTE: not Qwen3, whose head width transformers does not take from the file."""
    pytest.importorskip("gguf")
    convert(tiny_directory(name), tmp_path / "model.gguf", to="gguf", dtype="f32")
    ids = list(range(20, 52))
    theirs = logits(tmp_path, ids, gguf_file="model.gguf")
    np.testing.assert_allclose(theirs, logits(tiny_directory(name), ids), atol=1e-5)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "q8_0"])
@pytest.mark.parametrize("name", ["llama-3.1", "deepseek-v3-yarn"])
def test_the_gguf_package_reads_what_we_write(
    tiny_directory: Tiny, tmp_path: Path, name: str, dtype: str
) -> None:
    gguf = pytest.importorskip("gguf")
    target = tmp_path / "model.gguf"
    convert(tiny_directory(name), target, to="gguf", dtype=dtype)  # type: ignore[arg-type]
    theirs = gguf.GGUFReader(target)
    ours = open_weights(target)
    assert theirs.fields["tokenizer.ggml.pre"].contents() == "deepseek-v3"
    known = {
        tensor.format(bid=0)
        for kind in gguf.constants.MODEL_TENSORS[
            gguf.constants.MODEL_ARCH.LLAMA
            if name == "llama-3.1"
            else gguf.constants.MODEL_ARCH.DEEPSEEK2
        ]
        for tensor in [gguf.constants.TENSOR_NAMES[kind]]
    }
    for tensor in theirs.tensors:
        plain = tensor.name.replace("blk.1.", "blk.0.").rsplit(".", 1)[0]
        assert plain in known, tensor.name
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.isfinite(values).all()
        if dtype != "f32" and tensor.name.endswith("norm.weight"):
            assert tensor.tensor_type.name == "F32"
    embedding = next(t for t in theirs.tensors if t.name == "token_embd.weight")
    assert embedding.tensor_type.name == dtype.upper()
    values = gguf.quants.dequantize(embedding.data, embedding.tensor_type)
    np.testing.assert_array_equal(ours.read("model.embed_tokens.weight"), values)


def test_bf16_keeps_a_bf16_model_bit_for_bit(tiny_directory: Tiny, tmp_path: Path) -> None:
    convert(tiny_directory("deepseek-v3"), tmp_path / "half", to="hf", dtype="bf16")
    convert(tmp_path / "half", tmp_path / "model.gguf", to="gguf", dtype="bf16")
    half, between = open_weights(tmp_path / "half"), open_weights(tmp_path / "model.gguf")
    for tensor in half.names():
        np.testing.assert_array_equal(between.read(tensor), half.read(tensor), tensor)
    full = open_weights(tiny_directory("deepseek-v3"))
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    expected = torch.from_numpy(full.read(name).copy()).bfloat16().float().numpy()
    np.testing.assert_array_equal(half.read(name), expected)


def test_q8_0_is_close_and_keeps_what_blocks_do_not_divide(
    tiny_directory: Tiny, tmp_path: Path
) -> None:
    convert(tiny_directory("deepseek-v3"), tmp_path / "model.gguf", to="gguf", dtype="q8_0")
    full, small = open_weights(tiny_directory("deepseek-v3")), open_weights(tmp_path / "model.gguf")
    assert small.stored_bytes < full.stored_bytes / 2
    for tensor in full.names():
        a, b = full.read(tensor), small.read(tensor)
        assert np.abs(a - b).max() <= np.abs(a).max() / 127
    exact = ("norm.weight", "mlp.gate.weight", "bias", "q_b_proj.weight")  # 24 columns: no blocks
    for tensor in full.names():
        if tensor.endswith(exact):
            np.testing.assert_array_equal(small.read(tensor), full.read(tensor), tensor)


def test_an_own_model_loses_its_mtp_module_and_says_so(
    make_model: Callable[..., Transformer], tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = make_model(vocab_size=416, n_shared_experts=None, q_lora_rank=None)
    save_model(model, tiny_tokenizer, tmp_path / "own")
    notes = convert(tmp_path / "own", tmp_path / "own.gguf", to="gguf", dtype="f32")
    assert len(notes) == 3
    assert "MTP" in notes[0] and "q_lora_rank" in notes[1] and "shared experts" in notes[2]
    weights = open_weights(tmp_path / "own.gguf")
    expected = model.state_dict()["model.layers.1.mlp.experts.down_proj"][5].numpy()
    name = "model.layers.1.mlp.experts.5.down_proj.weight"
    np.testing.assert_array_equal(weights.read(name), expected)
    assert weights.tokenizer().vocab_size == tiny_tokenizer.vocab_size  # 416 rows are padding
    dense = make_model(vocab_size=416, n_routed_experts=None, num_nextn_predict_layers=0)
    save_model(dense, tiny_tokenizer, tmp_path / "dense")
    assert convert(tmp_path / "dense", tmp_path / "d.gguf", to="gguf", dtype="f32") == []
    assert open_weights(tmp_path / "d.gguf").config.vocab_size == 416


def test_several_end_tokens_and_recommendations_survive(
    tiny_directory: Tiny, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    convert(tiny_directory("llama"), source, to="hf", dtype="f32")
    for file, key in (("config.json", None), ("generation_config.json", "temperature")):
        raw = json.loads((source / file).read_text()) | {"eos_token_id": [1, 7]}
        (source / file).write_text(json.dumps(raw | ({key: 0.6} if key else {})))
    convert(source, tmp_path / "m.gguf", to="gguf", dtype="f32")
    config = open_weights(tmp_path / "m.gguf").config
    assert isinstance(config, DenseConfig) and config.eos_token_ids == (1, 7)
    convert(source, tmp_path / "again", to="hf", dtype="bf16")
    generation = json.loads((tmp_path / "again/generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["temperature"]) == ([1, 7], 0.6)


def test_a_failure_leaves_nothing_behind(tiny_directory: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    target.write_bytes(b"what was there")

    def fail(done: int, total: int, step: str) -> None:
        if done:
            raise OSError(5, "broken disk")

    with pytest.raises(CheckpointError, match="broken disk"):
        convert(tiny_directory("llama"), target, to="gguf", dtype="f32", on_progress=fail)
    with pytest.raises(CheckpointError, match="broken disk"):
        convert(tiny_directory("llama"), tmp_path / "hf", to="hf", dtype="f32", on_progress=fail)
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]
    assert target.read_bytes() == b"what was there"


def test_what_cannot_be_written_is_refused(tiny_directory: Tiny, tmp_path: Path) -> None:
    source = tiny_directory("llama")
    with pytest.raises(ConfigError, match="--dtype q8_0 with --to hf"):
        convert(source, tmp_path / "x", to="hf", dtype="q8_0")
    with pytest.raises(ConfigError, match=r"ending in \.gguf"):
        convert(source, tmp_path / "x", to="gguf", dtype="f32")
    with pytest.raises(ConfigError, match="is the source"):
        convert(source, source, to="hf", dtype="f32")


def test_q8_0_and_bf16_bytes_are_those_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    values = rng.normal(size=(64, 256)).astype(np.float32)
    values[0] = 0
    values[1] *= 1e-30
    values[2, :7] = [np.inf, -np.inf, 1e38, -0.0, 1e-45, 3.4e38, 65504]
    for kind, rows in (("BF16", values), ("Q8_0", np.delete(values, 2, axis=0))):
        theirs = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind])
        ours = encode(rows, kind)  # type: ignore[arg-type]
        np.testing.assert_array_equal(ours, theirs.view(np.uint8).reshape(-1), kind)


def test_every_type_reads_as_the_gguf_package_reads_it() -> None:
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    for kind in TYPE_NAMED.values():
        raw = rng.integers(0, 100, size=6 * kind.block_bytes, dtype=np.uint8)
        theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(kind.number))
        ours = dequantize(raw, kind, "t")
        assert ours.shape == (6 * kind.block_values,)
        np.testing.assert_array_equal(ours, theirs.reshape(-1), kind.name)
        sizes = gguf.constants.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind.number)]
        assert sizes == (kind.block_values, kind.block_bytes)
