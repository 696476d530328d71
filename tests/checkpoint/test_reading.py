"""The reading half: dtypes against torch, FP8 against torch, and no torch import at all."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rorqual.checkpoint import CheckpointReader, load_model, save_model
from rorqual.errors import CheckpointError
from rorqual.model import Transformer

BLOCK = 16  # of the tiny FP8 checkpoint, so that its matrices have several blocks and ragged edges


def _quantize(weight: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(values e4m3, scales, dequantised) of [O, I], one scale per block, looping over blocks."""
    rows, columns = weight.shape
    values = torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
    scales = torch.empty(-(-rows // block), -(-columns // block))
    restored = torch.empty(rows, columns)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            part = (slice(i * block, (i + 1) * block), slice(j * block, (j + 1) * block))
            scales[i, j] = weight[part].abs().amax().clamp(min=1e-4) / 448
            values[part] = (weight[part] / scales[i, j]).to(torch.float8_e4m3fn)
            restored[part] = values[part].float() * scales[i, j]
    return values, scales, restored


def _save_fp8(model: Transformer, path: Path) -> dict[str, torch.Tensor]:
    """Rewrite a saved model with FP8 matrices; the tensors that loading must give back."""
    save_model(model, None, path)
    tensors, expected = {}, {}
    for name, tensor in load_file(path / "model.safetensors").items():
        expected[name] = tensors[name] = tensor
        is_projection = name.endswith(("_proj.weight", "kv_a_proj_with_mqa.weight"))
        if is_projection and "eh_proj" not in name:
            tensors[name], tensors[f"{name}_scale_inv"], expected[name] = _quantize(tensor, BLOCK)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    _set_config(
        path,
        quantization_config={
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "weight_block_size": [BLOCK, BLOCK],
        },
    )
    return expected


def _set_config(path: Path, **values: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **values}))


def test_every_float8_and_bfloat16_value_is_what_torch_makes_of_it(tmp_path: Path) -> None:
    every_byte = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    every_pair = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
    file = tmp_path / "values.safetensors"
    tensors = {
        "f8": every_byte.view(torch.float8_e4m3fn).reshape(16, 16),
        "f8_scale_inv": torch.ones(1, 1),
        "bf16": every_pair.view(torch.bfloat16),
        "f16": every_pair.clone().view(torch.float16),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
    }
    save_file(tensors, file)
    reader = CheckpointReader(file)
    assert reader.names() == ["bf16", "empty", "f16", "f8", "scalar"]
    for name in reader.names():
        expected = tensors[name].float().numpy()
        assert reader.shape(name) == expected.shape
        np.testing.assert_array_equal(reader.read(name), expected)  # NaN equals NaN here


@pytest.mark.parametrize(("rows", "columns"), [(128, 128), (300, 130), (5, 257), (1, 1)])
def test_fp8_blocks_dequantise_as_a_loop_over_blocks(
    tmp_path: Path, rows: int, columns: int
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    values, scales, restored = _quantize(weight, 128)
    save_file({"w": values, "w_scale_inv": scales}, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(CheckpointReader(tmp_path / "w.safetensors").read("w"), restored)


def test_an_fp8_model_loads_as_its_dequantised_self(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    model = make_model(moe_intermediate_size=20, intermediate_size=50)
    expected = _save_fp8(model, tmp_path / "m")
    reader = CheckpointReader(tmp_path / "m")
    assert reader.names() == sorted(expected)
    assert reader.dtype("model.layers.0.mlp.gate_proj.weight") == "F8_E4M3"
    for name, tensor in expected.items():
        np.testing.assert_array_equal(reader.read(name), tensor)
    loaded = load_model(tmp_path / "m")
    stacked = loaded.state_dict()["model.layers.1.mlp.experts.gate_up_proj"]
    prefix = "model.layers.1.mlp.experts.3."
    parts = [expected[f"{prefix}{kind}_proj.weight"] for kind in ("gate", "up")]
    assert torch.equal(stacked[3], torch.cat(parts).bfloat16())
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)  # fp32 on disk, fp32 here


def test_fp8_scales_of_a_wrong_shape_are_refused(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    _save_fp8(make_model(), tmp_path / "m")
    _set_config(tmp_path / "m", quantization_config={"weight_block_size": [128, 128]})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor .*_proj.*\[1, 1\]"):
        load_model(tmp_path / "m")


def test_fp8_without_scales_is_refused(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    _save_fp8(make_model(), tmp_path / "m")
    tensors = load_file(tmp_path / "m/model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight_scale_inv"]
    save_file(tensors, tmp_path / "m/model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.up_proj\.weight is FP8 without"):
        load_model(tmp_path / "m")


def test_another_quantisation_is_refused_by_name(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    save_model(make_model(), None, tmp_path / "m")
    _set_config(tmp_path / "m", quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(CheckpointError, match=r"quant_method='awq'.*expected 'fp8'"):
        CheckpointReader(tmp_path / "m")


def test_reading_never_imports_torch(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    save_model(make_model(), None, tmp_path / "m")
    script = (
        "import sys; from pathlib import Path; import rorqual.checkpoint as checkpoint\n"
        "reader = checkpoint.CheckpointReader(Path(sys.argv[1]))\n"
        "print(sum(reader.read(name).size for name in reader.names()), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    numbers, has_torch = done.stdout.split()
    tensors = load_file(tmp_path / "m/model.safetensors").values()
    assert int(numbers) == sum(tensor.numel() for tensor in tensors)
    assert has_torch == "False"
