"""`rorqual tasks list | show | lint | corpus`: what tasks ask, if they can be gamed, examples."""

import dataclasses
import importlib
import json
import random
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from rorqual.config.sections import load_config
from rorqual.config.sft import CorpusRunConfig
from rorqual.tasks import (
    Language,
    Problem,
    Solution,
    check_level,
    list_tasks,
    load_task,
)
from rorqual.tasks.lint import Finding, is_refused, lint_task
from rorqual.units import format_bytes

app = typer.Typer(no_args_is_help=True, help="Show and check verifiable tasks.")

_PIPE_WIDTH = 200  # a file or pipe has no width of its own
_NAME_HELP = "A shipped task, file.py:ClassName, file.jsonl or reasoning_gym:dataset."


@app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Name the tasks that ship, with their levels."""
    tasks = [load_task(name) for name in list_tasks()]
    if as_json:
        rows = [
            {"name": task.name, "levels": task.num_levels, "uses_sandbox": task.uses_sandbox}
            for task in tasks
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("task", "levels", "runs code", "from easy to hard", box=None)
    for task in tasks:
        runs = "in the sandbox" if task.uses_sandbox else "no"
        summary = (type(task).__doc__ or "").partition("\n")[0].removeprefix("Levels: ")
        table.add_row(task.name, str(task.num_levels), runs, escape(summary))
    _console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help=_NAME_HELP)],
    level: Annotated[int, typer.Option(help="1 is the easiest.")] = 1,
    language: Annotated[Language | None, typer.Option(help="Drawn if left out.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many problems.")] = 4,
    seed: Annotated[int, typer.Option(help="The same seed shows the same problems.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print problems with their worked solutions."""
    task = load_task(name)
    check_level(task, level)
    rng = random.Random(seed)
    for _ in range(count):
        problem = task.make(rng, level, language)
        solution = task.solve(problem, rng)
        if as_json:
            typer.echo(json.dumps(_as_row(problem, solution), ensure_ascii=False))
        else:
            _print_problem(problem, solution)


@app.command()
def lint(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"{_NAME_HELP} All that ship if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws other problems.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Try to be paid for wrong, empty, spam, huge or hostile answers; exit 1 if one is."""
    refused, rows = False, list[dict[str, object]]()
    for name in names or list_tasks():
        findings = lint_task(name, seed=seed)
        refused |= is_refused(findings)
        rows.append({"name": name, "findings": [dataclasses.asdict(found) for found in findings]})
        if not as_json:
            _print_findings(name, findings)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    if refused:
        raise typer.Exit(1)


@app.command()
def corpus(
    file: Annotated[str, typer.Argument(help="A TOML file with [[tasks]], and maybe [corpus].")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes: corpus.num_examples=60000 and so on.")
    ] = None,
) -> None:
    """Add worked examples of the training split to a data folder, to pretrain on."""
    config = load_config(CorpusRunConfig, file, tuple(overrides or ()))
    wanted = config.corpus
    # The training room loads torch, which the other verbs here do without.
    worked = importlib.import_module("rorqual.train.worked")
    entry = worked.write_task_corpus(
        wanted.root, config.tasks, wanted.num_examples, wanted.seed, wanted.name
    )
    typer.echo(
        f"{entry.name}: {entry.documents} conversations, {format_bytes(entry.bytes)}, "
        f"{entry.duplicates} repetitions dropped; in {wanted.root}"
    )


def _as_row(problem: Problem, solution: Solution) -> dict[str, object]:
    return {
        "task": problem.task,
        "problem_id": problem.problem_id,
        "held_out": problem.held_out,
        "level": problem.level,
        "language": problem.language,
        "prompt": problem.prompt,
        "answer": problem.answer,
        "thinking": solution.thinking,
        "content": solution.content,
    }


def _print_problem(problem: Problem, solution: Solution) -> None:
    """As a panel on a terminal, as plain text elsewhere."""
    console = Console()
    split = "held out" if problem.held_out else "training"
    title = f"{problem.problem_id}, level {problem.level}, {problem.language}, {split}"
    if not console.is_terminal:
        typer.echo(f"# {title}\n{problem.prompt}\n{solution.completion(thinking=True)}\n")
        return
    body = (
        f"[bold]{escape(problem.prompt)}[/bold]\n\n[dim]{escape(solution.thinking)}[/dim]\n\n"
        f"{escape(solution.content)}"
    )
    console.print(Panel(body, title=escape(title), title_align="left"))


def _print_findings(name: str, findings: list[Finding]) -> None:
    verdict = "refused" if is_refused(findings) else "passed"
    typer.echo(f"{name}: {verdict}")
    for finding in findings:
        times = f" ({finding.count} times)" if finding.count > 1 else ""
        example = f"; first at {finding.example}" if finding.example else ""
        typer.echo(f"  {finding.severity}: {finding.message}{times}{example}")


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)
