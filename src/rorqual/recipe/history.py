"""What a reinforcement learning stage logged, as its report reads it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rorqual.train import RunFolder

Records = list[dict[str, Any]]
_PASS_AT = re.compile(r"eval/all/pass@(\d+)")


@dataclass(frozen=True, slots=True)
class History:
    """Records in order: steps of training, evaluations on held-out problems, and the rest."""

    steps: Records
    evaluations: Records
    findings: Records
    probes: Records
    samples: Records

    @property
    def highest_k(self) -> int:
        """The largest k that pass@k was measured for."""
        names = self.evaluations[0] if self.evaluations else {}
        found = [match for name in names if (match := _PASS_AT.fullmatch(name))]
        return max((int(match[1]) for match in found), default=1)

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation whose checkpoint is kept: the first of the highest pass@1."""
        return max(self.evaluations, key=lambda record: record["eval/all/pass@1"])


def read_history(path: Path) -> History:
    """The logs of a run's folder."""
    folder = RunFolder(path)
    kinds: dict[str, Records] = {"step": [], "eval": [], "finding": [], "probe": []}
    for record in folder.read_log():
        kinds[record["kind"]].append(record)
    return History(
        steps=kinds["step"],
        evaluations=kinds["eval"],
        findings=kinds["finding"],
        probes=kinds["probe"],
        samples=folder.read_log("samples.jsonl"),
    )


def column(records: Records, name: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the records that have a number there."""
    kept = [record for record in records if record.get(name) is not None]
    return [float(record["step"]) for record in kept], [float(record[name]) for record in kept]
