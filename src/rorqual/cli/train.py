"""`rorqual train`: pretrain a model, from built or buildable data to a model directory."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rorqual.cli.data import show_progress
from rorqual.config.run import RunConfig, load_run_config
from rorqual.errors import ConfigError
from rorqual.parallel import join_processes
from rorqual.train import RunFolder, TrainResult, run_pretraining


def train(
    name: Annotated[str, typer.Argument(help="A preset (tiny, laptop, …) or a TOML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes: train.learning_rate=1e-3 and so on.")
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
    """Train a model; prints the model directory it leaves.

    Ctrl-C saves and says how to go on. Under torchrun the same command trains on many processes.
    """
    config = load_run_config(name, tuple(overrides or ()))
    folder = RunFolder(out or Path("runs") / Path(name).stem)
    if folder.exists and resume:
        config = folder.recorded_config(RunConfig, config if overrides else None)
    if dry_run:
        typer.echo(json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return
    if folder.exists and not resume:
        raise ConfigError(
            f"{folder.path} already holds a run; add --resume to continue it or choose --out"
        )
    processes = join_processes()
    try:
        result = run_pretraining(config, folder, processes, show_progress)
    finally:
        processes.close()
    if processes.is_main:
        _conclude(result, folder, name, Console(stderr=True))
    if result.stopped_by is not None:
        raise typer.Exit(1)


def _conclude(result: TrainResult, folder: RunFolder, name: str, console: Console) -> None:
    """Say what was made and how to use or continue it."""
    if result.stopped_by is None:
        console.print(f"done; see {folder.path / 'report.html'}", highlight=False)
        console.print(f"try it: rorqual generate {result.checkpoint} -i", highlight=False)
    else:
        console.print(
            f"stopped by {result.stopped_by} after step {result.step}, saved; go on with: "
            f"rorqual train {name} --out {folder.path} --resume",
            highlight=False,
        )
    typer.echo(str(result.checkpoint))
