"""`rorqual sft`: fine-tune a model on conversations."""

from typing import Annotated

import typer

from rorqual.cli.run_options import DryRun, Out, Overrides, Resume, conclude_training, open_run
from rorqual.config.sft import SFTRunConfig
from rorqual.parallel import join_processes
from rorqual.train import run_sft


def sft(
    file: Annotated[str, typer.Argument(help="A TOML file: sections sft, tasks and train.")],
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Fine-tune a model on task solutions and JSONL files; prints the model directory it leaves.

    Ctrl-C saves and says how to go on. Under torchrun the same command trains on many processes.
    """
    config, folder = open_run(SFTRunConfig, file, overrides, out, resume=resume, dry_run=dry_run)
    processes = join_processes()
    try:
        result = run_sft(config, folder, processes)
    finally:
        processes.close()
    hint = f"rorqual chat {result.checkpoint}"
    conclude_training("sft", file, folder, result, hint, is_main=processes.is_main)
