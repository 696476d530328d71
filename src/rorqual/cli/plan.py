"""`rorqual plan`: parameters, compute, memory, time and money of a model, with sources."""

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rorqual.config.plan import read_plan
from rorqual.config.presets import find_preset
from rorqual.planner import Claim, Figure, make_plan, press_claims

_PIPE_WIDTH = 200  # a file or pipe has no width of its own


def plan(
    name: Annotated[
        str, typer.Argument(help="A preset, a preset TOML, a config.json or a model directory.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes: plan.gpu=H100, model.num_hidden_layers=30 and so on."),
    ] = None,
    claims: Annotated[
        bool, typer.Option("--claims", help="Check the press figures of January 2025 instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print what a model costs: each figure with formula, source and error against the published.

    `rorqual plan v3` is DeepSeek-V3; `rorqual plan v3 --claims` checks what the press made of it.
    """
    model, assumptions = read_plan(find_preset(name), tuple(overrides or ()))
    if claims:
        checked = press_claims(model, assumptions)
        if as_json:
            _print_json({"name": name, "claims": [dataclasses.asdict(claim) for claim in checked]})
        else:
            _console().print(claims_table(name, checked))
        return
    figures = make_plan(model, assumptions)
    if as_json:
        _print_json({"name": name, "figures": [figure_json(figure) for figure in figures]})
    else:
        _console().print(figures_table(name, figures))


def figure_json(figure: Figure) -> dict[str, object]:
    """One figure as a program reads it; `published` and `error_percent` are null without one."""
    return {
        "section": figure.section,
        "key": figure.key,
        "label": figure.label,
        "value": figure.value,
        "unit": figure.unit,
        "formula": figure.formula,
        "source": figure.source,
        "published": None if figure.published is None else figure.published.model_dump(),
        "error_percent": figure.error_percent,
    }


def figures_table(name: str, figures: tuple[Figure, ...]) -> Table:
    """The plan as a table, one block a section; a repeated source is a ditto mark."""
    table = Table(title=f"Plan of {escape(name)}")
    table.add_column("quantity", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("formula", overflow="fold")
    table.add_column("source", overflow="fold")
    table.add_column("published", justify="right", overflow="fold")
    table.add_column("error", justify="right", no_wrap=True)
    section, source = "", ""
    for figure in figures:
        if figure.section != section:
            section, source = figure.section, ""
            table.add_section()
            table.add_row(f"[bold]{section}[/bold]")
        published, error = "", ""
        if figure.published is not None:
            published = f"{figure.published_text}\n[dim]{escape(figure.published.source)}[/dim]"
            error = f"{figure.error_percent:+.2f} %"
        shown = '"' if figure.source and figure.source == source else figure.source
        source = figure.source
        table.add_row(figure.label, figure.text, figure.formula, shown, published, error)
    return table


def claims_table(name: str, claims: tuple[Claim, ...]) -> Table:
    """The press figures as a table."""
    table = Table(title=f"Press figures of January 2025 against {escape(name)}", show_lines=True)
    for column in ("printed", "recomputed", "verdict", "source"):
        table.add_column(column, overflow="fold")
    for claim in claims:
        table.add_row(claim.printed, claim.recomputed, claim.verdict, claim.source)
    return table


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def _print_json(content: dict[str, object]) -> None:
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
