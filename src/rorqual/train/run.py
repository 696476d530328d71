"""Pretraining and fine-tuning runs from their configuration, for the command line and for recipes.

A run is resumed if its folder holds a checkpoint. Until the trainer stands there is nothing to
save, so an interrupt simply ends it; from then on SIGINT and SIGTERM save.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from rich.console import Console

from rorqual.checkpoint import load_model, model_directory
from rorqual.config import ModelConfig
from rorqual.config.run import RunConfig
from rorqual.config.sft import SFTRunConfig
from rorqual.data import build_shards
from rorqual.data.build import OnProgress
from rorqual.errors import ConfigError
from rorqual.interrupt import stop_on_signals
from rorqual.kernels.ops import Ops, select_ops
from rorqual.model import Transformer, initialize
from rorqual.parallel import Processes, shard_model, threads_per_process
from rorqual.tokenizer import Tokenizer
from rorqual.train.device import choose_dtype
from rorqual.train.folder import RunFolder
from rorqual.train.loop import Trainer
from rorqual.train.run_loop import TrainResult
from rorqual.train.sft import SFTTrainer, prepare_data
from rorqual.units import format_count

# Opened around the building of token shards, the one long wait before the first step.
BuildProgress = Callable[[], AbstractContextManager[OnProgress]]
# The network that a pretraining run begins with, uninitialised.
MakeModel = Callable[[ModelConfig, Ops], Transformer]


def run_pretraining(
    config: RunConfig,
    folder: RunFolder,
    processes: Processes,
    show_build: BuildProgress,
    make_model: MakeModel = Transformer,
) -> TrainResult:
    """Build the data if need be, then train to the end of the budget or until a signal."""
    trainer = _pretrainer(config, folder, processes, show_build, make_model)
    with stop_on_signals() as stop:
        return _finished(trainer.run(stop), folder, processes)


def run_sft(config: SFTRunConfig, folder: RunFolder, processes: Processes) -> TrainResult:
    """Fine-tune to the end of the last epoch or until a signal."""
    trainer = _tuner(config, folder, processes)
    with stop_on_signals() as stop:
        return _finished(trainer.run(stop), folder, processes)


def _finished(result: TrainResult, folder: RunFolder, processes: Processes) -> TrainResult:
    """The result, written down."""
    if processes.is_main:
        folder.end(result.stopped_by or "done")
    return result


def _pretrainer(
    config: RunConfig,
    folder: RunFolder,
    processes: Processes,
    show_build: BuildProgress,
    make_model: MakeModel,
) -> Trainer:
    """Data, tokenizer, model and trainer."""
    num_threads = config.train.num_threads or threads_per_process()
    torch.set_num_threads(num_threads)
    index = None
    if processes.is_main:
        with show_build() as report:
            index = str(build_shards(config.data, on_progress=report))
    index = Path(str(processes.broadcast(index)))
    tokenizer = Tokenizer.load(index.parent / "tokenizer")
    _check_vocabulary(config, tokenizer)
    model = make_model(config.model, select_ops(config.train.kernels, num_threads))
    initialize(model, config.train.seed)
    model.to(processes.device)
    shard_model(model, processes)
    dtype = choose_dtype(config.train, processes.device)
    trainer = Trainer(config, folder, processes, model, tokenizer, index, dtype)
    if processes.is_main and not folder.exists:  # only now: a setup that fails leaves no run behind
        folder.create(config)
    trainer.resume()
    _introduce(model, dtype, folder, processes)
    return trainer


def _tuner(config: SFTRunConfig, folder: RunFolder, processes: Processes) -> SFTTrainer:
    """Model, conversations and trainer."""
    num_threads = config.train.num_threads or threads_per_process()
    torch.set_num_threads(num_threads)
    directory = model_directory(config.sft.model)
    tokenizer = Tokenizer.load(directory)
    ops = select_ops(config.train.kernels, num_threads)
    model = load_model(directory, dtype=torch.float32, ops=ops)
    model.to(processes.device)
    shard_model(model, processes)
    data = prepare_data(config, tokenizer)
    trainer = SFTTrainer(config, folder, processes, model, tokenizer, data)
    if processes.is_main and not folder.exists:
        folder.create(config)
    trainer.resume()
    _introduce(model, trainer.dtype, folder, processes)
    return trainer


def _introduce(
    model: Transformer, dtype: torch.dtype, folder: RunFolder, processes: Processes
) -> None:
    """Say on stderr what is about to train where."""
    total = sum(parameter.numel() for parameter in model.parameters())
    Console(stderr=True, quiet=not processes.is_main).print(
        f"{format_count(total)} parameters, {str(dtype)[6:]}, {processes.world_size} process(es), "
        f"run folder {folder.path}",
        highlight=False,
    )


def _check_vocabulary(config: RunConfig, tokenizer: Tokenizer) -> None:
    """A tokenizer that was brought along must fit [model]."""
    model = config.model
    if tokenizer.vocab_size > model.vocab_size:
        raise ConfigError(
            f"model.vocab_size={model.vocab_size} is below the tokenizer's {tokenizer.vocab_size} "
            "ids; raise it"
        )
    for name in ("bos_token_id", "eos_token_id"):
        ours, theirs = getattr(model, name), getattr(tokenizer, name)
        if ours != theirs:
            raise ConfigError(f"model.{name}={ours}, the tokenizer's is {theirs}; set it to that")
