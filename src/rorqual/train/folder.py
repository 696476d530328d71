"""The folder of a run: what was asked, what happened, what it produced.

config.json      the resolved configuration, version, git commit and seed
metrics.jsonl    one line per step, and one per validation
samples.jsonl    continuations at fixed seeds along the way
rollouts.jsonl   reinforcement learning: some groups of every step, whole
checkpoints/     step-00000100/: a model directory plus the state needed to go on
report.html      curves, samples and figures, written as the run goes
ended.json       how it ended; missing while it runs
"""

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

import rorqual
from rorqual.checkpoint import checkpoint_path, checkpoint_steps, forget_end, record_end
from rorqual.config.sections import ABOUT, config_from
from rorqual.errors import ConfigError, DataError

_LOGS = ("metrics.jsonl", "samples.jsonl", "rollouts.jsonl")
_Config = TypeVar("_Config", bound=BaseModel)


def git_commit() -> str | None:
    """The commit of the source tree this package runs from, None outside one."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class RunFolder:
    """Paths and append-only logs of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"

    @property
    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return (self.path / "config.json").exists()

    def create(self, config: BaseModel) -> None:
        """Write config.json: the sections of a run; DataError if the folder cannot be written."""
        about = {"version": rorqual.__version__, "git_commit": git_commit()}
        content = {ABOUT: about, **config.model_dump(mode="json")}
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (self.path / "config.json").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error}); choose --out") from error

    def read_config(self, kind: type[_Config]) -> _Config:
        """The configuration the run was started with; ConfigError if it was of another kind."""
        file = self.path / "config.json"
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ConfigError(f"{file}: cannot be read ({error}); start a new run") from error
        raw.pop(ABOUT, None)
        return config_from(kind, raw, str(file))

    def recorded_config(self, kind: type[_Config], asked: _Config | None) -> _Config:
        """The configuration to go on with; what is asked anew may repeat it, not change it."""
        recorded = self.read_config(kind)
        if asked is not None and asked != recorded:
            raise ConfigError(
                f"{self.path} was started with another configuration (see its config.json); drop "
                "the overrides to continue it, or choose another --out"
            )
        return recorded

    def log(self, record: dict[str, Any], file: str = "metrics.jsonl") -> None:
        """Append one line; numbers that are not finite become null, which JSON can hold."""
        finite = {key: None if _not_finite(value) else value for key, value in record.items()}
        with (self.path / file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n")

    def read_log(self, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
        """All complete lines; a torn last line (a killed process) is left out."""
        path = self.path / file
        if not path.exists():
            return []
        records: list[dict[str, Any]] = []
        for line in path.read_text(encoding="utf-8").split("\n"):
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def forget_after(self, step: int) -> None:
        """Drop log lines of steps later than the one the run resumes from; it has not ended."""
        forget_end(self.path)
        for file in _LOGS:
            kept = [record for record in self.read_log(file) if record["step"] <= step]
            path = self.path / file
            if path.exists():
                lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept)
                temporary = path.with_suffix(".tmp")
                temporary.write_text(lines, encoding="utf-8")
                temporary.replace(path)

    def end(self, ended_by: str) -> None:
        """Write down that the run ended, and how."""
        record_end(self.path, ended_by)

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return checkpoint_path(self.path, step)

    def checkpoint_steps(self) -> list[int]:
        """Steps with a complete checkpoint, oldest first."""
        return checkpoint_steps(self.path)

    def prune(self, keep: int) -> None:
        """Remove all but the newest `keep` checkpoints, and what a killed save left."""
        for leftover in self.checkpoints.glob(".step-*.saving-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for step in self.checkpoint_steps()[:-keep]:
            shutil.rmtree(self.checkpoint_path(step), ignore_errors=True)
