"""Saved and loaded again: the same bits, in one file or many, whatever the options."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from rorqual.checkpoint import CheckpointReader, load_model, save_model
from rorqual.config import read_model_config
from rorqual.model import Transformer
from rorqual.tokenizer import Tokenizer, train_tokenizer

Make = Callable[..., Transformer]


def assert_same_state(one: Transformer, other: Transformer) -> None:
    assert one.config == other.config
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_nextn_predict_layers": 0, "q_lora_rank": None},
        {"num_nextn_predict_layers": 2, "tie_word_embeddings": True},
        {"n_routed_experts": None, "n_shared_experts": None, "first_k_dense_replace": 2},
    ],
    ids=["v3", "plain", "tied", "dense"],
)
def test_fp32_round_trip_is_bitwise(
    make_model: Make, tmp_path: Path, fields: dict[str, Any]
) -> None:
    model = make_model(**fields)
    save_model(model, None, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert_same_state(model, loaded)
    tokens = torch.randint(0, 96, (2, 9), generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.logits(tokens), loaded.logits(tokens))


def test_bf16_round_trip_keeps_the_stored_dtype_and_the_bias_in_fp32(
    make_model: Make, tmp_path: Path
) -> None:
    model = make_model()
    save_model(model, None, tmp_path / "m", dtype=torch.bfloat16)
    loaded = load_model(tmp_path / "m")
    for name, tensor in model.state_dict().items():
        stored = loaded.state_dict()[name]
        is_bias = name.endswith("e_score_correction_bias")
        assert stored.dtype == (torch.float32 if is_bias else torch.bfloat16), name
        assert torch.equal(stored, tensor.to(stored.dtype)), name
    assert json.loads((tmp_path / "m/config.json").read_text())["torch_dtype"] == "bfloat16"
    widened = load_model(tmp_path / "m", dtype=torch.float32)
    assert torch.equal(widened.lm_head.weight, model.lm_head.weight.bfloat16().float())


def test_shards_hold_what_one_file_holds(make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    save_model(model, None, tmp_path / "one")
    save_model(model, None, tmp_path / "many", max_shard_bytes=20_000)
    shards = sorted(file.name for file in (tmp_path / "many").glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    one, many = CheckpointReader(tmp_path / "one"), CheckpointReader(tmp_path / "many")
    assert one.names() == many.names() == sorted(index["weight_map"])
    assert all((one.read(name) == many.read(name)).all() for name in one.names())
    assert index["metadata"]["total_size"] == sum(one.read(name).nbytes for name in one.names())
    for shard in shards:
        with safe_open(tmp_path / "many" / shard, "pt") as file:  # the format's own reader
            sizes = [file.get_tensor(name).nbytes for name in file.keys()]
            assert file.metadata() == {"format": "pt"}
            assert sum(sizes) <= 20_000 or len(sizes) == 1
    assert_same_state(load_model(tmp_path / "one"), load_model(tmp_path / "many"))


def test_loaded_weights_train(make_model: Make, tmp_path: Path) -> None:
    save_model(make_model(tie_word_embeddings=True), None, tmp_path / "m")
    model = load_model(tmp_path / "m")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)  # the memory is the model's own, not the file's map


def test_tied_head_is_left_out_and_accepted_if_equal(make_model: Make, tmp_path: Path) -> None:
    model = make_model(tie_word_embeddings=True, num_nextn_predict_layers=0)
    save_model(model, None, tmp_path / "m")
    assert "lm_head.weight" not in CheckpointReader(tmp_path / "m").names()
    untied = make_model(num_nextn_predict_layers=0)
    with torch.no_grad():
        untied.lm_head.weight.copy_(untied.model.embed_tokens.weight)
    save_model(untied, None, tmp_path / "both")
    config = json.loads((tmp_path / "both/config.json").read_text())
    (tmp_path / "both/config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    loaded = load_model(tmp_path / "both")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_without_mtp_only_the_main_model_is_loaded(make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    save_model(model, None, tmp_path / "m")
    main = load_model(tmp_path / "m", with_mtp=False)
    assert main.config.num_nextn_predict_layers == 0
    assert len(main.model.layers) == 2
    tokens = torch.arange(10)[None]
    assert torch.equal(main.logits(tokens), model.logits(tokens))


def test_copies_of_embedding_and_head_are_written_for_other_engines(
    make_model: Make, tmp_path: Path
) -> None:
    save_model(make_model(), None, tmp_path / "m")
    reader = CheckpointReader(tmp_path / "m")
    embedding = reader.read("model.embed_tokens.weight")
    assert (reader.read("model.layers.2.embed_tokens.weight") == embedding).all()
    head = reader.read("lm_head.weight")
    assert (reader.read("model.layers.2.shared_head.head.weight") == head).all()


def test_a_directory_is_all_that_serving_needs(make_model: Make, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["the whale takes in an ocean " * 20], vocab_size=320)
    model = make_model(vocab_size=tokenizer.vocab_size)
    save_model(model, tokenizer, tmp_path / "m", generation={"temperature": 0.6, "top_p": 0.95})
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert json.loads((tmp_path / "m/generation_config.json").read_text()) == {
        "bos_token_id": 0,
        "eos_token_id": 1,
        "temperature": 0.6,
        "top_p": 0.95,
    }
    assert read_model_config(tmp_path / "m") == model.config
    text = "an ocean of whales"
    assert Tokenizer.load(tmp_path / "m").encode(text) == tokenizer.encode(text)
