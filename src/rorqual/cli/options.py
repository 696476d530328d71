"""What the verbs that use a model share: how it is named, and a line for people. Without torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from rorqual.checkpoint import model_directory
from rorqual.checkpoint.models import resolve_model

Model = Annotated[
    str,
    typer.Argument(
        help="A model directory, a run's folder for its newest checkpoint, a .gguf file, smollm2, "
        "or a Hub name."
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "int8", "int4"],
    typer.Option(help="Of the weights in memory; auto: bf16."),
]


def say(message: str) -> None:
    """A line for people, on stderr."""
    Console(stderr=True).print(message, highlight=False, markup=False, soft_wrap=True)


def find_model(name: str) -> Path:
    """Where the model is that a command line names, fetched if need be."""
    return model_directory(resolve_model(name, on_step=say))
