"""`rorqual convert` from the command line, and that it does without torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rorqual.checkpoint.weights import open_weights
from rorqual.cli.main import build_app
from rorqual.errors import ConfigError
from rorqual.tokenizer import train_tokenizer
from tests.checkpoint.tiny_models import write_tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny Qwen2 model directory."""
    directory = tmp_path / "model"
    write_tiny("qwen2", directory, train_tokenizer(["a few words"] * 9, vocab_size=280))
    return directory


def test_a_model_is_converted_both_ways(model: Path, tmp_path: Path) -> None:
    run, app = CliRunner().invoke, build_app("convert")
    there = run(app, ["convert", str(model), str(tmp_path / "m.gguf"), "--to", "gguf"])
    assert there.exit_code == 0, there.output
    assert there.stdout.startswith(f"{tmp_path / 'm.gguf'}: ")
    arguments = ["convert", str(tmp_path / "m.gguf"), str(tmp_path / "back"), "--to", "hf"]
    back = run(app, [*arguments, "--dtype", "f32"])
    assert back.exit_code == 0, back.output
    assert open_weights(tmp_path / "back").config == open_weights(model).config


def test_a_wrong_pair_is_a_usage_error(model: Path, tmp_path: Path) -> None:
    arguments = ["convert", str(model), str(tmp_path / "x"), "--to", "hf", "--dtype", "q8_0"]
    result = CliRunner().invoke(build_app("convert"), arguments)
    assert isinstance(result.exception, ConfigError) and result.exception.exit_code == 2


def test_reading_and_converting_never_import_torch() -> None:
    code = (
        "import sys, rorqual.cli.convert, rorqual.checkpoint.models; print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"
