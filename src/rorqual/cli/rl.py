"""`rorqual rl`: teach a model by reinforcement learning on checkable answers."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rorqual.config.rl import RLRunConfig
from rorqual.config.sections import load_config
from rorqual.errors import ConfigError
from rorqual.rl import run_rl
from rorqual.train import RunFolder


def rl(
    file: Annotated[str, typer.Argument(help="A TOML file: one rl table and its tasks.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes: rl.learning_rate=5e-5 and so on.")
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
    """Train by reinforcement learning; prints the model directory of the best checkpoint.

    First says how often the model is right on each family and level. Ctrl-C saves.
    """
    config = load_config(RLRunConfig, file, tuple(overrides or ()))
    folder = RunFolder(out or Path("runs") / Path(file).stem)
    continues = folder.exists and resume
    if continues:
        recorded = folder.read_config(RLRunConfig)
        if overrides and recorded != config:
            raise ConfigError(
                f"{folder.path} was started with another configuration (see its config.json); drop "
                "the overrides to continue it, or choose another --out"
            )
        config = recorded
    if dry_run:
        typer.echo(json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return
    if folder.exists and not resume:
        raise ConfigError(
            f"{folder.path} already holds a run; add --resume to continue it or choose --out"
        )
    result = run_rl(config, folder)
    console = Console(stderr=True)
    console.print(
        f"ended by: {result.ended_by}, step {result.step}; best held-out pass@1 "
        f"{result.best_pass_at_1:.1%} in {result.best}",
        highlight=False,
    )
    typer.echo(str(result.best))
    if result.ended_by.startswith("SIG"):
        console.print(
            f"saved; go on with: rorqual rl {file} --out {folder.path} --resume", highlight=False
        )
        raise typer.Exit(1)
