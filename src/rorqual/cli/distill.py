"""`rorqual distill`: hand what a teacher can do to a student."""

from typing import Annotated

import typer

from rorqual.cli.options import say
from rorqual.cli.run_options import DryRun, Out, Overrides, Resume, end_stopped, open_run
from rorqual.config.distill import DistillRunConfig
from rorqual.distill import DistillResult, run_distill
from rorqual.units import format_flops


def distill(
    file: Annotated[str, typer.Argument(help="A TOML file: sections distill and tasks.")],
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Distil a teacher into a student; prints the model directory of the best checkpoint.

    The run's summary.json says what it cost. Ctrl-C saves.
    """
    config, folder = open_run(
        DistillRunConfig, file, overrides, out, resume=resume, dry_run=dry_run
    )
    result = run_distill(config, folder)
    _conclude(result)
    if result.ended_by.startswith("SIG"):
        end_stopped("distill", file, folder)


def _conclude(result: DistillResult) -> None:
    """Say what was made and what it cost."""
    flops, score = result.summary["flops"], result.summary["pass@1"]
    total = "unknown" if flops["total"] is None else format_flops(flops["total"])
    say(
        f"ended by: {result.ended_by}, step {result.step}; the student spent "
        f"{format_flops(flops['student'])}, with the teacher {total}"
    )
    if result.best is not None:
        say(
            f"best held-out pass@1 {score['best']:.1%} at step {score['best_step']} in "
            f"{result.best}"
        )
    typer.echo(str(result.best or result.checkpoint))
