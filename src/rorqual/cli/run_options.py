"""What the verbs that start or continue a run share: their options, and which run is meant."""

import json
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer
from pydantic import BaseModel

from rorqual.cli.options import say
from rorqual.config.sections import load_config
from rorqual.errors import ConfigError
from rorqual.train import RunFolder, TrainResult

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes: section.key=value, tasks.0.key=value.")
]
Out = Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME if left out.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in that folder, if there is one.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")
]

_Config = TypeVar("_Config", bound=BaseModel)


def open_run(
    kind: type[_Config],
    name: str,
    overrides: list[str] | None,
    out: Path | None,
    *,
    resume: bool,
    dry_run: bool,
) -> tuple[_Config, RunFolder]:
    """The configuration to run and its folder; ends the command after a dry run.

    A resumed run goes on as it was recorded; overrides may repeat that, not change it.
    """
    config = load_config(kind, name, tuple(overrides or ()))
    folder = RunFolder(out or Path("runs") / Path(name).stem)
    if folder.exists and resume:
        config = folder.recorded_config(kind, config if overrides else None)
    if dry_run:
        typer.echo(json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False))
        raise typer.Exit
    if folder.exists and not resume:
        raise ConfigError(
            f"{folder.path} already holds a run; add --resume to continue it or choose --out"
        )
    return config, folder


def end_stopped(verb: str, name: str, folder: RunFolder) -> NoReturn:
    """Say how to go on with a run that a signal stopped, and fail."""
    say(f"saved; go on with: rorqual {verb} {name} --out {folder.path} --resume")
    raise typer.Exit(1)


def conclude_training(
    verb: str, name: str, folder: RunFolder, result: TrainResult, hint: str, *, is_main: bool
) -> None:
    """Print the model directory, and say how to use it or how to go on."""
    if is_main:
        typer.echo(str(result.checkpoint))
        if result.stopped_by is None:
            say(f"done; see {folder.path / 'report.html'}")
            say(f"try it: {hint}")
        else:
            say(f"stopped by {result.stopped_by} after step {result.step}")
            end_stopped(verb, name, folder)
    if result.stopped_by is not None:
        raise typer.Exit(1)
