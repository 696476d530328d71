"""`rorqual data`: one line an error, results on stdout."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rorqual.cli.data import app
from rorqual.data.index import load_index
from rorqual.errors import ConfigError, RorqualError

from .conftest import write_documents

RUNNER = CliRunner()


def run(*arguments: str | Path) -> str:
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, RorqualError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_add_build_and_list_work_together(tmp_path: Path) -> None:
    root = tmp_path / "data"
    rows = write_documents(tmp_path / "given", "en", 60, seed=3)
    options = ("--name", "own", "--language", "en", "--licence", "CC0-1.0", "--root", root)
    assert "own: 60 documents" in run("add", rows, *options)
    out = run("build", "--root", root, "--vocab-size", "600", "--fim-rate", "0")
    path = Path(out.splitlines()[-1])
    assert path == root / "tokens-600" / "index.json"
    index = load_index(path)
    assert f"train: {index.splits['train'].tokens / 1000:.2f}K tokens" in out
    listed = json.loads(run("list", "--root", root, "--json"))
    assert listed["own"]["licence"] == "CC0-1.0"
    assert "CC0-1.0" in run("list", "--root", root)


def test_a_bad_mix_is_a_usage_error(tmp_path: Path) -> None:
    for mix in ("en", "en=much", "en=0", "fr=1"):
        with pytest.raises(ConfigError, match="mix"):
            run("build", "--root", tmp_path, "--mix", mix)


def test_bad_values_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.vocab_size: .*got 5"):
        run("build", "--root", tmp_path, "--vocab-size", "5")
