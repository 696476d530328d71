"""`rorqual generate`: continue a text with a model directory or the newest checkpoint of a run."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rorqual.cli.options import Model, Precision, find_model
from rorqual.engine import SamplingParams
from rorqual.engine.llm import LLM
from rorqual.errors import RequestError
from rorqual.interrupt import stop_on_signals


def generate(
    model: Model,
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; standard input if left out.")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Ask for one prompt after another.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Stop after this many tokens.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this mass.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Same seed, same text.")] = 0,
    precision: Precision = "auto",
) -> None:
    """Continue a text, streaming it as it is written.

    Without a terminal -i reads prompts line by line from standard input and ends with it.
    """
    path = find_model(model)
    params = SamplingParams(
        max_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    with LLM(path, precision=precision) as llm:
        if interactive:
            _converse(llm, params, path)
        else:
            _stream(llm, sys.stdin.read() if prompt is None else prompt, params)


def _stream(llm: LLM, text: str, params: SamplingParams) -> None:
    """Write the continuation to stdout piece by piece; Ctrl-C ends it cleanly."""
    with stop_on_signals() as stop:
        for delta in llm.stream(text, params):
            sys.stdout.write(delta.reasoning + delta.text)
            sys.stdout.flush()
            if stop:
                break
    sys.stdout.write("\n")
    sys.stdout.flush()


def _converse(llm: LLM, params: SamplingParams, path: Path) -> None:
    """Prompt after prompt until end of input."""
    console = Console(stderr=True)
    terminal = sys.stdin.isatty()
    if terminal:
        console.print(
            f"{path}: a base model, it continues what you write. Ctrl-C stops a continuation, "
            "Ctrl-D leaves.",
            highlight=False,
        )
    while True:
        if terminal:
            console.print("\n[bold]> [/bold]", end="")
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            return
        if not line:
            return
        text = line.rstrip("\n")
        if not text:
            continue
        sys.stdout.write(text)
        try:
            _stream(llm, text, params)
        except RequestError as error:
            console.print(f"error: {error}", highlight=False, markup=False)
