"""The table of a model card: an evaluation's pass@1 by family, level and language.

python benchmarks/family_table.py models/rorqual-pocket/evaluation
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

KEPT_OUT = ("chain_sum", "letter_counting")
LEVELS = ("easy", "middle", "hard")

Group = dict[str, Any]


def cell(group: Group) -> str:
    low, high = group["pass@1_interval"]
    return f"{100 * group['pass@1']:.0f} ({100 * low:.0f}-{100 * high:.0f})"


def main() -> None:
    summary = json.loads((Path(sys.argv[1]) / "summary.json").read_text(encoding="utf-8"))
    groups: dict[tuple[Any, Any, Any], Group] = {
        (g["task"], g["level"], g["language"]): g for g in summary["groups"]
    }
    names = sorted({g["task"] for g in summary["groups"] if g["task"]})
    names.sort(key=lambda name: name in KEPT_OUT)
    print(f"| family | {' | '.join(LEVELS)} | English | Chinese | tokens | thinks |")
    print("|---" * 8 + "|")
    means: dict[tuple[bool, int], list[float]] = {}
    for name in names:
        levels = sorted({level for task, level, _ in groups if task == name and level is not None})
        row = [groups[name, level, None] for level in levels]
        for place, group in enumerate(row):
            means.setdefault((name in KEPT_OUT, place), []).append(group["pass@1"])
        whole = groups[name, None, None]
        cells = [cell(group) for group in row] + ["-"] * (len(LEVELS) - len(row))
        cells += [cell(groups[name, None, language]) for language in ("en", "zh")]
        cells += [f"{whole['mean_length']:.0f}", f"{100 * whole['share_thinking']:.0f} %"]
        print(f"| {name} | {' | '.join(cells)} |")
    for kept_out, title in ((False, "trained families"), (True, "kept out of training")):
        found = [f"{100 * statistics.fmean(means[kept_out, p]):.1f}" for p in range(len(LEVELS))]
        print(f"| **mean of the {title}** | {' | '.join(found)} | | | | |")


if __name__ == "__main__":
    main()
