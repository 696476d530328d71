"""The folder of a recipe: one folder a stage, each saying what it was asked and what it left.

01-corpus/stage.json   the stage's configuration, written before anything else, and time spent
01-corpus/done.json    the result, once there is one
...                    what the stage itself writes: a run folder, a data folder, evaluations
report.html            the whole in words and pictures
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rorqual.config.recipe import Pipeline, Stage
from rorqual.data.manifest import write_atomically
from rorqual.errors import ConfigError, DataError

_STAGE, _DONE = "stage.json", "done.json"


@dataclass(frozen=True, slots=True)
class Done:
    """What a finished stage left. result: None of a stage that leaves nothing to refer to."""

    result: Path | None
    seconds: float
    facts: dict[str, Any]


class StageFolder:
    """The folder of one stage, and its state on disk."""

    def __init__(self, root: Path, number: int, stage: Stage):
        self.path = root / f"{number:02d}-{stage.name}"
        self.root, self.stage = root, stage

    @property
    def begun(self) -> bool:
        """Whether the stage ever started here."""
        return (self.path / _STAGE).exists()

    def check_unchanged(self) -> None:
        """ConfigError naming what is asked now and was not when the stage began."""
        if not self.begun:
            return
        recorded = self._read(_STAGE)
        if recorded.get("digest") == self.stage.digest:
            return
        before, now = _flat(recorded.get("config", {})), _flat(self.stage.values())
        keys = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
        changes = [f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in keys[:3]]
        raise ConfigError(
            f"stage {self.stage.name}: {self.path} was begun with another configuration "
            f"({'; '.join(changes)}); undo that or choose another --out"
        )

    def begin(self) -> None:
        """Record the configuration; what was spent by an earlier process stays."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be made ({error}); choose --out") from error
        if not self.begun:
            self._write_stage(0.0)

    def spend(self, seconds: float) -> float:
        """Add the time of a process that ends now; the time spent in all."""
        spent = float(self._read(_STAGE)["seconds"]) + seconds
        self._write_stage(spent)
        return spent

    def finish(self, result: Path | None, seconds: float, facts: dict[str, Any]) -> None:
        """The stage is whole; from now on it is not run again."""
        place = None if result is None else result.resolve().relative_to(self.root.resolve())
        record = {
            "result": None if place is None else place.as_posix(),
            "seconds": round(seconds, 3),
            "digest": self.stage.digest,
            "facts": facts,
        }
        write_atomically(self.path / _DONE, _text(record))

    def done(self) -> Done | None:
        """What the finished stage left; None if it is not finished."""
        if not (self.path / _DONE).exists():
            return None
        record = self._read(_DONE)
        result = None if record["result"] is None else self.root / record["result"]
        if result is not None and not result.exists():
            raise DataError(
                f"{result}: the result of stage {self.stage.name} is gone; bring it back, or "
                f"remove {self.path} to run the stage again"
            )
        return Done(result, float(record["seconds"]), record["facts"])

    def _write_stage(self, seconds: float) -> None:
        record = {
            "name": self.stage.name,
            "kind": self.stage.head.kind,
            "digest": self.stage.digest,
            "seconds": round(seconds, 3),
            "config": self.stage.values(),
        }
        write_atomically(self.path / _STAGE, _text(record))

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(
                f"{self.path / name}: cannot be read ({error}); remove {self.path} to run the "
                "stage again"
            ) from error


def stage_folders(pipeline: Pipeline, root: Path) -> list[StageFolder]:
    """The stages' folders, in order."""
    return [StageFolder(root, number, stage) for number, stage in enumerate(pipeline.stages, 1)]


def _text(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def _flat(value: object, place: str = "") -> dict[str, Any]:
    """{"rl.max_steps": 10, ...}"""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        parts = enumerate(value)
    else:
        return {place: value}
    found: dict[str, Any] = {}
    for key, part in parts:
        found |= _flat(part, f"{place}.{key}" if place else str(key))
    return found
