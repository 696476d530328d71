"""The tiny recipe, run once in a process of its own."""

import subprocess
from pathlib import Path

import pytest

from tests.train.conftest import rorqual

SECONDS = 1800  # far more than it takes; a busy machine is not a failure


def start(out: Path, *overrides: str) -> "subprocess.Popen[str]":
    """Start or continue the tiny recipe in `out`."""
    return rorqual("speedrun", *overrides, "--preset", "tiny", "--out", str(out))


def end(process: "subprocess.Popen[str]", expected: int = 0) -> tuple[str, str]:
    """Wait for it; its stdout and stderr."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == expected, f"exit {process.returncode}\n{out}\n{err}"
    return out, err


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("speedrun") / "whole"
    said, _ = end(start(out))
    assert said.strip() == str(out / "report.html")
    return out
