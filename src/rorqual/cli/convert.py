"""`rorqual convert`: between Hugging Face directories and GGUF files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from rorqual.checkpoint.convert import OnProgress, convert
from rorqual.cli.options import Model, find_model
from rorqual.units import format_bytes


def convert_model(
    source: Model,
    target: Annotated[Path, typer.Argument(help="New directory, or new .gguf file.")],
    to: Annotated[Literal["hf", "gguf"], typer.Option(help="Format to write.")],
    dtype: Annotated[
        Literal["f32", "bf16", "q8_0"], typer.Option(help="Type of the matrices; q8_0: GGUF alone.")
    ] = "bf16",
) -> None:
    """Convert a model between Hugging Face safetensors and GGUF, tensor by tensor."""
    console = Console(stderr=True)
    path = find_model(source)
    with _show_progress(console) as report:
        notes = convert(path, target, to=to, dtype=dtype, on_progress=report)
    for note in notes:
        console.print(f"note: {note}", markup=False)
    size = sum(file.stat().st_size for file in (target.rglob("*") if to == "hf" else [target]))
    typer.echo(f"{target}: {format_bytes(size)}")


@contextmanager
def _show_progress(console: Console) -> Iterator[OnProgress]:
    """A bar on stderr with bytes written and the tensor under way."""
    columns = (
        TextColumn("{task.description:48}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("opening", total=None)
        yield lambda done, total, step: progress.update(
            task, completed=done, total=total, description=step
        )
