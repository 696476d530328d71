"""`rorqual rl`: teach a model by reinforcement learning on checkable answers."""

from typing import Annotated

import typer

from rorqual.cli.options import say
from rorqual.cli.run_options import DryRun, Out, Overrides, Resume, end_stopped, open_run
from rorqual.config.rl import RLRunConfig
from rorqual.rl import run_rl


def rl(
    file: Annotated[str, typer.Argument(help="A TOML file: sections rl and tasks.")],
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Train by reinforcement learning; prints the model directory of the best checkpoint.

    First says how often the model is right on each family and level. Ctrl-C saves.
    """
    config, folder = open_run(RLRunConfig, file, overrides, out, resume=resume, dry_run=dry_run)
    result = run_rl(config, folder)
    say(
        f"ended by: {result.ended_by}, step {result.step}; best held-out pass@1 "
        f"{result.best_pass_at_1:.1%} in {result.best}"
    )
    typer.echo(str(result.best))
    if result.ended_by.startswith("SIG"):
        end_stopped("rl", file, folder)
