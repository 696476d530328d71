"""`rorqual eval`: how a model does on held-out problems; `--rescore` checks a log without it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rorqual import eval as evaluation
from rorqual.cli.data import show_progress
from rorqual.config.eval import EvalRunConfig
from rorqual.config.sections import apply_override, config_from, load_config
from rorqual.errors import ConfigError
from rorqual.eval import EvalFolder, rescore, summary_rows
from rorqual.tasks import list_tasks

_PIPE_WIDTH = 200  # a file or pipe has no width of its own
_MOST_DIFFERENCES = 10


def evaluate(
    model: Annotated[
        Path | None,
        typer.Argument(help="A model directory, or a run's folder for its newest checkpoint."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes: eval.num_problems=400 and so on.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with the sections eval and tasks.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="What to ask; may be repeated. Instead of the file's.")
    ] = None,
    level: Annotated[
        list[int] | None, typer.Option(help="Levels of these tasks; may be repeated.")
    ] = None,
    language: Annotated[list[str] | None, typer.Option(help="en or zh; both if left out.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the log and summary; runs/eval-NAME if left out."),
    ] = None,
    rescore_folder: Annotated[
        Path | None, typer.Option("--rescore", help="Score the log in this folder again instead.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Ask a model held-out problems and print pass@1, pass@k and more with 95 % intervals.

    Ctrl-C keeps what is finished; the same command goes on from there. `rorqual eval --rescore DIR`
    scores such a folder again without the model and fails if any number differs.
    """
    if rescore_folder is not None:
        _rescore(EvalFolder(rescore_folder), as_json)
        return
    settings = _settings(config, task or [], level or [], language or [], overrides or [])
    if dry_run:
        typer.echo(json.dumps(settings.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return
    if model is None:
        raise ConfigError("no model given; name a model directory, or --rescore DIR")
    folder = EvalFolder(out or Path("runs") / f"eval-{model.resolve().name}")
    with show_progress() as report:
        outcome = evaluation.evaluate_checkpoint(
            model, settings, folder, lambda done, total: report(done, total, "answers")
        )
    _print(outcome.summary, as_json)
    console = Console(stderr=True)
    if outcome.stopped_by is not None:
        console.print(
            f"stopped by {outcome.stopped_by}; what is finished is kept in {folder.path}, the same "
            "command goes on from there",
            highlight=False,
        )
        raise typer.Exit(1)
    console.print(
        f"log in {folder.path}; check it: rorqual eval --rescore {folder.path}", highlight=False
    )


def _rescore(folder: EvalFolder, as_json: bool) -> None:
    """Exit 1 if anything differs."""
    result = rescore(folder)
    if as_json:
        found = {"items": result.num_items, "differences": list(result.differences)}
        _print_json(found | {"summary": result.summary})
    else:
        _print(result.summary, as_json=False)
        same = "all the same" if not result.differences else f"{len(result.differences)} differ"
        typer.echo(f"{result.num_items} items scored again: {same}")
        for difference in result.differences[:_MOST_DIFFERENCES]:
            typer.echo(difference)
    if result.differences:
        raise typer.Exit(1)


def _settings(
    file: Path | None,
    tasks: list[str],
    levels: list[int],
    languages: list[str],
    overrides: list[str],
) -> EvalRunConfig:
    """The file's settings, overridden; --task replaces its tasks, the others change them."""
    if file is not None:
        config = load_config(EvalRunConfig, str(file), tuple(overrides))
    else:
        raw: dict[str, Any] = {}
        for override in overrides:
            apply_override(EvalRunConfig, raw, override)
        config = config_from(EvalRunConfig, raw, "overrides")
    shares = [{"name": name} for name in tasks] or [share.model_dump() for share in config.tasks]
    if not shares:
        raise ConfigError(
            f"nothing to ask; give --task (one of {', '.join(list_tasks())}) or a --config with "
            "[[tasks]]"
        )
    chosen = {"levels": levels, "languages": languages}
    changes = {key: values for key, values in chosen.items() if values}
    return config_from(
        EvalRunConfig,
        {"eval": config.eval.model_dump(), "tasks": [share | changes for share in shares]},
        "options",
    )


def _print(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(summary)
        return
    header, rows = summary_rows(summary)
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    console = Console()
    (console if console.is_terminal else Console(width=_PIPE_WIDTH)).print(table)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
