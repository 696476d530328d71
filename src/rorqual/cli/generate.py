"""`rorqual generate`: continue a text with a model directory or the newest checkpoint of a run."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rorqual.checkpoint.load import load_model
from rorqual.errors import RequestError
from rorqual.model import Sampling, Transformer, generate_stream
from rorqual.tokenizer import Tokenizer
from rorqual.train import model_directory, stop_on_signals


def generate(
    model: Annotated[
        Path, typer.Argument(help="A model directory, or a run's folder for its newest checkpoint.")
    ],
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
) -> None:
    """Continue a text, streaming it as it is written.

    Without a terminal -i reads prompts line by line from standard input and ends with it.
    """
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    path = model_directory(model)
    network = load_model(path, with_mtp=False)
    tokenizer = Tokenizer.load(path)
    if interactive:
        _converse(network, tokenizer, sampling, path)
        return
    text = sys.stdin.read() if prompt is None else prompt
    _stream(network, tokenizer, text, sampling)


def _stream(network: Transformer, tokenizer: Tokenizer, text: str, sampling: Sampling) -> None:
    """Write the continuation to stdout piece by piece; Ctrl-C ends it cleanly."""
    prompt = [tokenizer.bos_token_id, *tokenizer.encode(text)]
    decoder = tokenizer.stream_decoder()
    with stop_on_signals() as stop:
        steps = generate_stream(network, [prompt], sampling, should_stop=lambda: bool(stop))
        for (token,) in steps:
            if token is None or token == tokenizer.eos_token_id:
                break
            sys.stdout.write(decoder.push(token))
            sys.stdout.flush()
    sys.stdout.write(decoder.flush() + "\n")
    sys.stdout.flush()


def _converse(network: Transformer, tokenizer: Tokenizer, sampling: Sampling, path: Path) -> None:
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
            _stream(network, tokenizer, text, sampling)
        except RequestError as error:
            console.print(f"error: {error}", highlight=False, markup=False)
