"""`rorqual train`: pretrain a model, from built or buildable data to a model directory."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from rorqual.cli.data import show_progress
from rorqual.config.run import RunConfig, load_run_config
from rorqual.data import build_shards
from rorqual.errors import ConfigError
from rorqual.kernels.ops import select_ops
from rorqual.model import Transformer, initialize
from rorqual.parallel import Processes, join_processes, shard_model, threads_per_process
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder, Trainer, TrainResult, choose_dtype, stop_on_signals
from rorqual.units import format_count


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
        config = _recorded(folder, config if overrides else None)
    if dry_run:
        typer.echo(json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return
    if folder.exists and not resume:
        raise ConfigError(
            f"{folder.path} already holds a run; add --resume to continue it or choose --out"
        )
    console = Console(stderr=True)
    processes = join_processes()
    try:
        with stop_on_signals() as stop:
            trainer = _prepare(config, folder, processes, console)
            result = trainer.run(stop)
    finally:
        processes.close()
    if processes.is_main:
        _conclude(result, folder, name, console)
    if result.stopped_by is not None:
        raise typer.Exit(1)


def _recorded(folder: RunFolder, asked: RunConfig | None) -> RunConfig:
    """The configuration the run was started with; overrides may repeat it, not change it."""
    recorded = folder.read_config()
    if asked is not None and asked != recorded:
        raise ConfigError(
            f"{folder.path} was started with another configuration (see its config.json); drop the "
            "overrides to continue it, or choose another --out"
        )
    return recorded


def _prepare(
    config: RunConfig, folder: RunFolder, processes: Processes, console: Console
) -> Trainer:
    """Data, tokenizer, model and trainer; resumed if the folder holds a checkpoint."""
    num_threads = config.train.num_threads or threads_per_process()
    torch.set_num_threads(num_threads)
    index = None
    if processes.is_main:
        with show_progress() as report:
            index = str(build_shards(config.data, on_progress=report))
        if not folder.exists:
            folder.create(config)
    index = Path(str(processes.broadcast(index)))
    tokenizer = Tokenizer.load(index.parent / "tokenizer")
    model = Transformer(config.model, select_ops(config.train.kernels, num_threads))
    initialize(model, config.train.seed)
    model.to(processes.device)
    shard_model(model, processes)
    dtype = choose_dtype(config.train, processes.device)
    trainer = Trainer(config, folder, processes, model, tokenizer, index, dtype)
    trainer.resume()
    if processes.is_main:
        total = sum(parameter.numel() for parameter in model.parameters())
        console.print(
            f"{format_count(total)} parameters, {str(dtype)[6:]}, {processes.world_size} "
            f"process(es), run folder {folder.path}",
            highlight=False,
        )
    return trainer


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
