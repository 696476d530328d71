"""Training state survives bit for bit, and never as pickle."""

import random
from pathlib import Path

import pytest
import torch

from rorqual.checkpoint import atomic_directory, load_training_state, save_training_state
from rorqual.errors import CheckpointError


def test_tensors_of_every_kind_come_back_bit_for_bit(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(7, 5, generator=generator)
    tensors = {
        "moment": matrix,
        "view": matrix.t()[1:, ::2],
        "bf16": matrix.bfloat16(),
        "odd": torch.arange(3, dtype=torch.uint8),
        "step": torch.tensor(12345678901),
        "flag": torch.tensor([True, False, True]),
        "f64": torch.tensor([0.1], dtype=torch.float64),
        "empty": torch.empty(0),
        "rng": generator.get_state(),
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    values = {"step": 7, "loss": 0.1 + 0.2, "python_rng": list(random.Random(1).getstate()[1])}
    with atomic_directory(tmp_path / "c") as directory:
        save_training_state(directory, tensors, values)
    loaded, loaded_values = load_training_state(tmp_path / "c")
    assert loaded_values == values
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype, name
        assert loaded[name].shape == tensor.shape, name
        if tensor.numel():
            bits = loaded[name].reshape(-1).view(torch.uint8)
            assert torch.equal(bits, tensor.contiguous().reshape(-1).view(torch.uint8)), name
    save_training_state(tmp_path / "c", loaded, loaded_values)  # what was loaded can be saved
    generator.manual_seed(9)
    generator.set_state(loaded["rng"])
    again = torch.Generator().manual_seed(3)
    torch.randn(7, 5, generator=again)
    assert torch.equal(torch.rand(4, generator=generator), torch.rand(4, generator=again))


def test_a_dtype_without_a_name_on_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"spectrum: torch\.complex64 cannot be saved"):
        save_training_state(tmp_path, {"spectrum": torch.ones(2, dtype=torch.complex64)}, {})


def test_corrupt_values_are_named(tmp_path: Path) -> None:
    save_training_state(tmp_path, {}, {"step": 1})
    (tmp_path / "training_state.json").write_text('{"step": ')
    with pytest.raises(CheckpointError, match=r"training_state\.json: not valid JSON"):
        load_training_state(tmp_path)
