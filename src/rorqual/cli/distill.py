"""`rorqual distill`: hand what a teacher can do to a student."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rorqual.config.distill import DistillRunConfig
from rorqual.config.sections import load_config
from rorqual.distill import DistillResult, run_distill
from rorqual.errors import ConfigError
from rorqual.train import RunFolder
from rorqual.units import format_flops


def distill(
    file: Annotated[str, typer.Argument(help="A TOML file with [distill] and [[tasks]].")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes: distill.method=on_policy and so on.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; runs/NAME if left out.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in that folder, if there is one.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")
    ] = False,
) -> None:
    """Distil a teacher into a student; prints the model directory of the best checkpoint.

    The run's summary.json says what it cost. Ctrl-C saves.
    """
    config = load_config(DistillRunConfig, file, tuple(overrides or ()))
    folder = RunFolder(out or Path("runs") / Path(file).stem)
    if folder.exists and resume:
        config = folder.recorded_config(DistillRunConfig, config if overrides else None)
    if dry_run:
        typer.echo(json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return
    if folder.exists and not resume:
        raise ConfigError(
            f"{folder.path} already holds a run; add --resume to continue it or choose --out"
        )
    result = run_distill(config, folder)
    _conclude(result, folder, file)
    if result.ended_by.startswith("SIG"):
        raise typer.Exit(1)


def _conclude(result: DistillResult, folder: RunFolder, file: str) -> None:
    """Say what was made, what it cost, and how to go on."""
    console = Console(stderr=True)
    flops, score = result.summary["flops"], result.summary["pass@1"]
    total = "unknown" if flops["total"] is None else format_flops(flops["total"])
    console.print(
        f"ended by: {result.ended_by}, step {result.step}; the student spent "
        f"{format_flops(flops['student'])}, with the teacher {total}",
        highlight=False,
    )
    if result.best is not None:
        console.print(
            f"best held-out pass@1 {score['best']:.1%} at step {score['best_step']} in "
            f"{result.best}",
            highlight=False,
        )
    if result.ended_by.startswith("SIG"):
        console.print(
            f"saved; go on with: rorqual distill {file} --out {folder.path} --resume",
            highlight=False,
        )
    typer.echo(str(result.best or result.checkpoint))
