"""Where a run keeps its checkpoints: `checkpoints/step-00000100/` are model directories."""

from pathlib import Path

from rorqual.checkpoint.atomic import resolve_directory
from rorqual.errors import CheckpointError


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
