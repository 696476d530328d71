"""`rorqual train`: pretrain a model, from built or buildable data to a model directory."""

from typing import Annotated

import typer

from rorqual.cli.data import show_progress
from rorqual.cli.run_options import DryRun, Out, Overrides, Resume, conclude_training, open_run
from rorqual.config.run import RunConfig
from rorqual.parallel import join_processes
from rorqual.train import run_pretraining


def train(
    name: Annotated[str, typer.Argument(help="A preset (tiny, laptop, …) or a TOML file.")],
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Train a model; prints the model directory it leaves.

    Ctrl-C saves and says how to go on. Under torchrun the same command trains on many processes.
    """
    config, folder = open_run(RunConfig, name, overrides, out, resume=resume, dry_run=dry_run)
    processes = join_processes()
    try:
        result = run_pretraining(config, folder, processes, show_progress)
    finally:
        processes.close()
    conclude_training(
        "train",
        name,
        folder,
        result,
        f"rorqual generate {result.checkpoint} -i",
        is_main=processes.is_main,
    )
