"""Each way a checkpoint can be broken is one CheckpointError that names file, tensor and fix."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rorqual.checkpoint import CheckpointReader, load_model, load_training_state, save_model
from rorqual.errors import CheckpointError
from rorqual.model import Transformer

NORM = "model.norm.weight"


@pytest.fixture
def saved(make_model: Callable[..., Transformer], tmp_path: Path) -> Path:
    """A good one-file checkpoint."""
    save_model(make_model(), None, tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def sharded(make_model: Callable[..., Transformer], tmp_path: Path) -> Path:
    """A good sharded checkpoint."""
    save_model(make_model(), None, tmp_path / "s", max_shard_bytes=60_000)
    return tmp_path / "s"


def _edit(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def _edit_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def _refused(directory: Path, pattern: str) -> None:
    with pytest.raises(CheckpointError, match=pattern) as caught:
        load_model(directory)
    message = str(caught.value)
    assert "\n" not in message
    assert str(directory) in message


def test_missing_tensor(saved: Path) -> None:
    _edit(saved, lambda tensors: tensors.pop(NORM))
    _refused(saved, r"tensor model\.norm\.weight is missing \(1 missing in all\); fetch")


def test_missing_mtp_module_says_how_to_load_without(saved: Path) -> None:
    def drop_mtp(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("model.layers.2.")]:
            del tensors[name]

    _edit(saved, drop_mtp)
    _refused(saved, r"layers\.2\..*missing.*load without MTP")
    assert load_model(saved, with_mtp=False).config.num_nextn_predict_layers == 0


def test_extra_tensor(saved: Path) -> None:
    _edit(saved, lambda tensors: tensors.update({"model.layers.0.odd.weight": torch.ones(2)}))
    _refused(saved, r"model\.safetensors: tensor model\.layers\.0\.odd\.weight has no place")


def test_wrong_shape(saved: Path) -> None:
    _edit(saved, lambda tensors: tensors.update({NORM: torch.ones(31)}))
    _refused(saved, r"model\.safetensors: tensor model\.norm\.weight has shape \[31\].*\[32\]")


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.float8_e5m2])
def test_wrong_dtype(saved: Path, dtype: torch.dtype) -> None:
    _edit(saved, lambda tensors: tensors.update({NORM: torch.ones(32).to(dtype)}))
    _refused(saved, r"model\.safetensors: tensor model\.norm\.weight has dtype .*expected one of")


def test_experts_of_one_layer_in_two_dtypes(saved: Path) -> None:
    name = "model.layers.1.mlp.experts.2.up_proj.weight"
    _edit(saved, lambda tensors: tensors.update({name: tensors[name].bfloat16()}))
    _refused(saved, r"experts\.2\.up_proj\.weight is torch\.bfloat16.*give the dtype")
    assert load_model(saved, dtype=torch.float32).lm_head.weight.dtype == torch.float32


@pytest.mark.parametrize("copy", ["embed_tokens", "shared_head.head"])
def test_mtp_copy_that_differs(saved: Path, copy: str) -> None:
    name = f"model.layers.2.{copy}.weight"
    _edit(saved, lambda tensors: tensors[name].mul_(2))
    _refused(saved, rf"tensor {name} differs from (model\.embed_tokens|lm_head)\.weight")
    _edit(saved, lambda tensors: tensors.pop(name))
    load_model(saved)  # absent is fine


def test_truncated_file_names_the_tensor(saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    _refused(
        saved,
        r"model\.safetensors: truncated in tensor \S+, \d+ bytes where .*fetch",
    )


def test_bytes_behind_the_data(saved: Path) -> None:
    with open(saved / "model.safetensors", "ab") as file:
        file.write(b"more")
    _refused(saved, r"model\.safetensors: 4 bytes behind the last tensor")


def _with_header(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (b"", "0 bytes, too short"),
        (b"\xff" * 64, "corrupt header, its length reads"),
        (_with_header(b"{nonsense"), "corrupt header .*expected JSON"),
        (_with_header(b"\xff\xfe{}"), "corrupt header .*expected JSON"),
        pytest.param(_with_header(b"[" * 100_000), "corrupt header .*expected JSON", id="deep"),
        (_with_header(b"[1]"), "corrupt header, expected an object"),
        (_with_header(b'{"t":{"dtype":"F32","shape":[1]}}'), "corrupt header entry of tensor t"),
        (_with_header(b'{"t":7}'), "corrupt header entry of tensor t"),
        (
            _with_header(b'{"t":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
            "tensor t has dtype X9",
        ),
        (
            _with_header(b'{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', bytes(4)),
            r"tensor t spans 4 bytes, but F32 \[2\] takes 8",
        ),
        (
            _with_header(b'{"t":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}', bytes(4)),
            "tensor t spans",
        ),
        (
            _with_header(b'{"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', bytes(8)),
            "tensor t starts at byte",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\nsize 9\n",
            "a Git LFS pointer",
        ),
    ],
)
def test_corrupt_header(saved: Path, content: bytes, pattern: str) -> None:
    (saved / "model.safetensors").write_bytes(content)
    _refused(saved, rf"model\.safetensors: {pattern}")


def test_index_naming_a_missing_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.unlink()
    _refused(sharded, rf"index\.json: names shard {shard.name}, which is not in")


def test_index_that_disagrees_with_its_shards(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    first, last = weight_map["model.embed_tokens.weight"], weight_map["lm_head.weight"]
    assert first != last
    _edit_json(index, weight_map={**weight_map, "lm_head.weight": first})
    _refused(sharded, rf"{first}: lacks tensor lm_head\.weight")
    without = {name: shard for name, shard in weight_map.items() if name != "lm_head.weight"}
    _edit_json(index, weight_map=without)
    _refused(sharded, r"holds tensor lm_head\.weight, which .* does not place there")


def test_index_that_leads_out_of_the_directory(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    _edit_json(index, weight_map={"lm_head.weight": "../other/model.safetensors"})
    _refused(sharded, r"shard '\.\./other/model\.safetensors' is a path")


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}'])
def test_index_that_is_none(sharded: Path, content: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(content)
    _refused(sharded, r"index\.json: not a safetensors index")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickle_is_refused_with_a_way_out(saved: Path, name: str) -> None:
    torch.save({"weight": torch.ones(1)}, saved / name)
    load_model(saved)  # beside safetensors it is not looked at
    (saved / "model.safetensors").unlink()
    _refused(saved, rf"{name}: a pickle checkpoint is refused.*convert it with transformers")
    with pytest.raises(CheckpointError, match="a pickle checkpoint is refused"):
        CheckpointReader(saved / name)


def test_no_config(saved: Path) -> None:
    (saved / "config.json").unlink()
    _refused(saved, r"config\.json: not found")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_config_that_is_none(saved: Path, content: str) -> None:
    (saved / "config.json").write_text(content)
    _refused(saved, r"config\.json: (not valid JSON|expected a JSON object)")
    with pytest.raises(CheckpointError, match=r"config\.json: (not valid|expected a) JSON"):
        CheckpointReader(saved)


def test_no_weights(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    _refused(saved, r"holds neither model\.safetensors nor model\.safetensors\.index\.json")


def test_no_directory(tmp_path: Path) -> None:
    _refused(tmp_path / "nowhere", "not found")
    with pytest.raises(CheckpointError, match="no such model directory"):
        CheckpointReader(tmp_path / "nowhere")


def test_unreadable_file(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors").symlink_to(saved / "model.safetensors")
    _refused(saved, "holds neither")
    index = {"weight_map": {NORM: "dangling.safetensors"}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    _refused(saved, "names shard dangling.safetensors")


def test_unknown_tensor_name(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="no tensor other among"):
        CheckpointReader(saved).read("other")


def test_a_model_without_training_state_cannot_be_resumed(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="start a new run from it"):
        load_training_state(saved)
