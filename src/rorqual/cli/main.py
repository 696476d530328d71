"""The `rorqual` command: one file a verb, imported only when that verb is asked for.

stdout carries results, stderr logs and progress. Exit codes: 0 ok, 1 failed, 2 usage.
"""

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from rorqual import __version__
from rorqual.errors import RorqualError


@dataclass(frozen=True, slots=True)
class Command:
    """Where a verb's implementation lives, and its line in `rorqual --help`.

    computes: runs torch and the native kernels by turns, so torch's idle threads must sleep.
    """

    module: str
    attribute: str
    summary: str
    computes: bool = False


COMMANDS: dict[str, Command] = {
    "admin": Command("rorqual.cli.admin", "app", "Users, keys, money, backups of a server."),
    "bench": Command("rorqual.cli.bench", "bench", "How fast a model runs on this machine."),
    "chat": Command("rorqual.cli.chat", "chat", "Talk with a model."),
    "convert": Command(
        "rorqual.cli.convert", "convert_model", "Convert a model to Hugging Face or GGUF format."
    ),
    "data": Command("rorqual.cli.data", "app", "Fetch, add and tokenise training text."),
    "distill": Command(
        "rorqual.cli.distill",
        "distill",
        "Hand a teacher's abilities to a smaller model.",
        computes=True,
    ),
    "eval": Command(
        "rorqual.cli.eval",
        "evaluate",
        "Score a model on held-out problems, or re-score a log.",
        computes=True,
    ),
    "generate": Command("rorqual.cli.generate", "generate", "Continue a text with a model."),
    "plan": Command(
        "rorqual.cli.plan", "plan", "What a model costs: size, compute, memory, money."
    ),
    "release": Command(
        "rorqual.cli.release", "app", "Sign models, make and rotate keys, list parts."
    ),
    "reproduce": Command(
        "rorqual.cli.reproduce",
        "reproduce",
        "Try a claim of the papers in small, with seeds and intervals.",
        computes=True,
    ),
    "rl": Command(
        "rorqual.cli.rl", "rl", "Teach a model by reinforcement learning.", computes=True
    ),
    "serve": Command("rorqual.cli.serve", "serve", "Serve models: the API and the web app."),
    "sft": Command("rorqual.cli.sft", "sft", "Fine-tune a model on conversations.", computes=True),
    "speedrun": Command(
        "rorqual.cli.speedrun",
        "speedrun",
        "From raw text to a reasoning model, with a report.",
        computes=True,
    ),
    "tasks": Command("rorqual.cli.tasks", "app", "Show and check verifiable tasks."),
    "train": Command(
        "rorqual.cli.train", "train", "Pretrain a model from a preset or TOML file.", computes=True
    ),
    "verify": Command("rorqual.cli.verify", "verify", "Check a model's signature and its logs."),
}


def _placeholder() -> None:
    """Stands for a verb in `--help`; never called, since the verb's own module is loaded then."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rorqual {__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="And stop.")
    ] = False,
) -> None:
    """What stands before a verb."""
    del version


def build_app(verb: str | None) -> typer.Typer:
    """The command line with `verb` loaded and the others listed by their summaries."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help=f"Rorqual {__version__}: train, sample and plan DeepSeek-architecture models.",
    )
    app.callback()(_top)
    for name, command in COMMANDS.items():
        if name != verb:
            app.command(name, help=command.summary)(_placeholder)
            continue
        loaded = getattr(importlib.import_module(command.module), command.attribute)
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=name, help=command.summary)
        else:
            app.command(name)(loaded)
    return app


def main() -> None:
    """Entry point: errors that a user can cause are one line on stderr."""
    verbs = [word for word in sys.argv[1:] if not word.startswith("-")]
    verb = verbs[0] if verbs else None
    if verb in COMMANDS and COMMANDS[verb].computes:
        # Read when torch loads: its OpenMP threads would spin on the cores our kernels need.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        build_app(verb)()
    except RorqualError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
