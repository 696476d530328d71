"""`rorqual sft`: fine-tune a model on conversations."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rorqual.config.sections import load_config
from rorqual.config.sft import SFTRunConfig
from rorqual.errors import ConfigError
from rorqual.parallel import join_processes
from rorqual.train import RunFolder, TrainResult, run_sft


def sft(
    file: Annotated[str, typer.Argument(help="A TOML file with [sft], [[tasks]] and [train].")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes: sft.epochs=2, tasks.0.weight=3 and so on.")
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
    """Fine-tune a model on task solutions and JSONL files; prints the model directory it leaves.

    Ctrl-C saves and says how to go on. Under torchrun the same command trains on many processes.
    """
    config = load_config(SFTRunConfig, file, tuple(overrides or ()))
    folder = RunFolder(out or Path("runs") / Path(file).stem)
    if folder.exists and resume:
        config = folder.recorded_config(SFTRunConfig, config if overrides else None)
    if dry_run:
        typer.echo(json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return
    if folder.exists and not resume:
        raise ConfigError(
            f"{folder.path} already holds a run; add --resume to continue it or choose --out"
        )
    processes = join_processes()
    try:
        result = run_sft(config, folder, processes)
    finally:
        processes.close()
    if processes.is_main:
        _conclude(result, folder, file, Console(stderr=True))
    if result.stopped_by is not None:
        raise typer.Exit(1)


def _conclude(result: TrainResult, folder: RunFolder, file: str, console: Console) -> None:
    """Say what was made and how to use or continue it."""
    if result.stopped_by is None:
        console.print(f"done; see {folder.path / 'report.html'}", highlight=False)
        console.print(f"try it: rorqual chat {result.checkpoint}", highlight=False)
    else:
        console.print(
            f"stopped by {result.stopped_by} after step {result.step}, saved; go on with: "
            f"rorqual sft {file} --out {folder.path} --resume",
            highlight=False,
        )
    typer.echo(str(result.checkpoint))
