"""Where a run keeps its checkpoints: `checkpoints/step-00000100/` are model directories.

And `ended.json`, which says how the last process of the run ended, if it got to say it.
"""

import json
from pathlib import Path

from rorqual.checkpoint.atomic import resolve_directory
from rorqual.errors import CheckpointError

_ENDED = "ended.json"


def record_end(run: Path, ended_by: str) -> None:
    """Write down how a run ended: "done", a signal's name, or what else stopped it."""
    (run / _ENDED).write_text(json.dumps({"ended_by": ended_by}) + "\n", encoding="utf-8")


def forget_end(run: Path) -> None:
    """The run goes on."""
    (run / _ENDED).unlink(missing_ok=True)


def ended_by(run: Path) -> str | None:
    """How the run ended; None while it runs, and if its process was killed."""
    try:
        return str(json.loads((run / _ENDED).read_text(encoding="utf-8"))["ended_by"])
    except (OSError, ValueError, KeyError):
        return None


def checkpoint_path(run: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return run / "checkpoints" / f"step-{step:08d}"


def checkpoint_steps(run: Path) -> list[int]:
    """Steps with a complete checkpoint, oldest first."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    return sorted(int(n[5:]) for n in names if n.startswith("step-") and n[5:].isdigit())


def model_directory(path: Path) -> Path:
    """A model directory or file as it is; of a run's folder, the newest checkpoint."""
    if not (path / "config.json").exists() or (path / "tokenizer.json").exists():
        return resolve_directory(path)
    steps = checkpoint_steps(path)
    if not steps and (path / "checkpoints").is_dir():
        raise CheckpointError(f"{path}: the run has no checkpoint yet; let it train longer")
    return checkpoint_path(path, steps[-1]) if steps else path
