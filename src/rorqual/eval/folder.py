"""The folder of an evaluation, and scoring it again without the model.

config.json    the configuration, of which files (SHA-256), by which version
items.jsonl    a line per sample, written as they come
summary.json   the figures
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rorqual.config.eval import EvalRunConfig
from rorqual.config.sections import ABOUT, config_from
from rorqual.errors import ConfigError, DataError
from rorqual.eval.items import Item, judge_all
from rorqual.eval.problems import open_tasks
from rorqual.eval.run import Evaluation
from rorqual.eval.summary import summarize

CONFIG, ITEMS, SUMMARY = "config.json", "items.jsonl", "summary.json"
ABOUT_MODEL = "model_sha256"  # of `about`: which model it was


class EvalFolder:
    """Paths and files of one evaluation."""

    def __init__(self, path: Path):
        self.path = path

    def open(self, config: EvalRunConfig, about: Mapping[str, Any]) -> list[Item]:
        """Begin an evaluation here or continue one; the items that are there already.

        ConfigError if the folder holds an evaluation with other settings or of another model.
        """
        if (self.path / CONFIG).exists():
            self._check_same(config, about)
            return self._continue()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be made ({error}); choose another --out"
            ) from error
        self._write_json(CONFIG, {ABOUT: dict(about), **config.model_dump(mode="json")})
        return []

    def append(self, items: Sequence[Item]) -> None:
        """Add finished items to the log."""
        with (self.path / ITEMS).open("a", encoding="utf-8") as stream:
            stream.writelines(_line(item) for item in items)

    def conclude(self, evaluation: Evaluation) -> dict[str, Any]:
        """Write summary.json from all items; the summary."""
        summary = self._summary(evaluation.items, finished=evaluation.finished)
        self._write_json(SUMMARY, summary)
        return summary

    def read_items(self) -> list[Item]:
        """All items, sorted by key; a torn last line (a killed process) is left out."""
        path = self.path / ITEMS
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); evaluate again") from error
        items: dict[Any, Item] = {}
        whole = text[: text.rfind("\n") + 1]
        # Not splitlines: JSON leaves U+2028 and U+0085 as they are.
        for number, line in enumerate(whole.split("\n")[:-1], start=1):
            try:
                item = Item.from_json(json.loads(line))
            except (json.JSONDecodeError, DataError) as error:
                raise DataError(f"{path} line {number}: {error}") from error
            items[item.key] = item
        return [items[key] for key in sorted(items)]

    def config(self) -> EvalRunConfig:
        """What was asked."""
        raw = self._read_json(CONFIG)
        raw.pop(ABOUT, None)
        return config_from(EvalRunConfig, raw, str(self.path / CONFIG))

    def about(self) -> dict[str, Any]:
        """Of which model, by which version."""
        found = self._read_json(CONFIG).get(ABOUT, {})
        return found if isinstance(found, dict) else {}

    def read_summary(self) -> dict[str, Any]:
        """summary.json as written."""
        return self._read_json(SUMMARY)

    def _summary(self, items: Sequence[Item], *, finished: bool) -> dict[str, Any]:
        return {
            "finished": finished,
            **self._read_json(CONFIG),
            "groups": summarize(items),
        }

    def rescored_summary(self, items: Sequence[Item]) -> dict[str, Any]:
        """The summary these items give, to be compared with summary.json."""
        return self._summary(items, finished=self.read_summary().get("finished", False))

    def _check_same(self, config: EvalRunConfig, about: Mapping[str, Any]) -> None:
        recorded = self.config()
        if recorded.tasks != config.tasks:
            raise ConfigError(
                f"{self.path} holds an evaluation of other tasks; choose another --out or the same "
                "tasks, levels and languages"
            )
        for key, asked in config.eval:
            before = getattr(recorded.eval, key)
            if asked != before:
                raise ConfigError(
                    f"{self.path} holds an evaluation with {key}={before}, got {key}={asked}; "
                    "choose another --out or the same settings"
                )
        if self.about().get(ABOUT_MODEL) != about[ABOUT_MODEL]:
            raise ConfigError(
                f"{self.path} holds an evaluation of another model; choose another --out"
            )

    def _continue(self) -> list[Item]:
        """The items there are; a torn last line is cut off the log, so that appending is safe."""
        path = self.path / ITEMS
        if path.exists():
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(path, whole)
        return self.read_items()

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            found: Any = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError("not a JSON object")
            return found
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(
                f"{path}: cannot be read ({error}); name the folder of a finished `rorqual eval`"
            ) from error

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        temporary = self.path / f"{name}.tmp"
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(self.path / name)


@dataclass(frozen=True, slots=True)
class Rescore:
    """What scoring a log again gave; differences says in words where it departs from the log."""

    summary: dict[str, Any]
    num_items: int
    differences: tuple[str, ...]


def rescore(folder: EvalFolder) -> Rescore:
    """Score every item again from its problem and text, and compare to the last bit."""
    items = folder.read_items()
    with open_tasks(folder.config().tasks) as tasks:
        unknown = {item.problem.task for item in items} - tasks.keys()
        if unknown:
            raise DataError(
                f"{folder.path / ITEMS}: items of task {', '.join(sorted(unknown))}, which "
                "config.json does not name; the log was changed, evaluate again"
            )
        judgements = judge_all(tasks, [(item.problem, item.text) for item in items])
    differences = [
        f"{item.problem.problem_id} {item.problem.language} sample {item.sample_idx}: was "
        f"{item.judgement}, is {judgement}"
        for item, judgement in zip(items, judgements, strict=True)
        if item.judgement != judgement
    ]
    again = [
        replace(item, judgement=judgement)
        for item, judgement in zip(items, judgements, strict=True)
    ]
    summary = folder.rescored_summary(again)
    if not differences and summary != folder.read_summary():
        differences.append(f"{SUMMARY} does not follow from {ITEMS}: it was changed or cut")
    return Rescore(summary, len(items), tuple(differences))


def _line(item: Item) -> str:
    return json.dumps(item.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
