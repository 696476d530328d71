"""`rorqual chat`: talk with a model directory or the newest checkpoint of a run.

The thinking is shown dimmed between its markers, the reply as it is. Without a terminal each line
of standard input is one user message: replies go to stdout, thinking to stderr.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TextIO

import typer

from rorqual.cli.options import Model, Precision, find_model
from rorqual.engine import SamplingParams
from rorqual.engine.llm import LLM
from rorqual.errors import RequestError
from rorqual.interrupt import stop_on_signals
from rorqual.tokenizer.special import THINK_BEGIN, THINK_END

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
# What a terminal would obey: control characters but for line break and tab.
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def chat(
    model: Model,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Think first, or answer at once; else it chooses."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this mass.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Same seed and messages, same replies.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply, thinking included.")] = 512,
    thinking_budget: Annotated[
        int | None, typer.Option(help="Tokens of thinking after which it has to answer.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message to begin with.")] = None,
    precision: Precision = "auto",
) -> None:
    """Talk with a model. Ctrl-C stops a reply, Ctrl-D leaves.

    The conversation is remembered as far as the context reaches; its oldest turns go first.
    """
    params = SamplingParams(
        max_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        thinking_budget=thinking_budget,
    )
    path = find_model(model)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with LLM(path, precision=precision) as llm:
        talk = Talk(llm, params, think, system)
        if terminal:
            print(f"{path}: Ctrl-C stops a reply, Ctrl-D leaves.", file=sys.stderr)
        for text in _typed_messages() if terminal else _piped_messages():
            try:
                _answer(talk, text, terminal=terminal)
            except RequestError as error:
                print(f"error: {error}", file=sys.stderr)


def _typed_messages() -> Iterator[str]:
    """What is typed at the prompt until Ctrl-D; Ctrl-C there drops the line."""
    with suppress(ImportError):
        importlib.import_module("readline")  # line editing, where Python has it
    while True:
        try:
            text = input("> ").strip()
        except KeyboardInterrupt:
            print("\nCtrl-D leaves.", file=sys.stderr)
            continue
        except EOFError:
            print()
            return
        if text:
            yield text


def _piped_messages() -> Iterator[str]:
    """One message a line."""
    return (text for line in sys.stdin if (text := line.strip()))


def _answer(talk: "Talk", text: str, *, terminal: bool) -> None:
    """Show the reply to one message as it comes."""
    thinking_out = sys.stdout if terminal else sys.stderr
    display = Display(thinking_out, sys.stdout, terminal)
    for piece in talk.reply(text):
        display.show(piece)
    display.finish()
    if not talk.turns[-1]["content"]:
        limit = talk.params.max_tokens
        print(f"(no reply; more than --max-new-tokens {limit} may help)", file=sys.stderr)


class Display:
    """Writes pieces of a reply: thinking between its markers, dimmed in a terminal."""

    def __init__(self, thinking_out: TextIO, reply_out: TextIO, terminal: bool):
        self._thinking_out, self._reply_out, self._terminal = thinking_out, reply_out, terminal
        self._thinking = False
        self._at_start = True  # of a part, whose first line breaks are not shown
        self._last = "\n"

    def show(self, piece: "Piece") -> None:
        """Write one piece, with the marker where thinking begins or ends."""
        if piece.thinking != self._thinking:
            self._turn()
        text = piece.text.translate(_CONTROLS) if self._terminal else piece.text
        if self._at_start:
            text = text.lstrip("\n")
        if text:
            self._write(text)
            self._at_start = False

    def finish(self) -> None:
        """End the last line."""
        if self._thinking:
            self._turn()
        elif not self._at_start:
            self._write("\n")

    def _turn(self) -> None:
        """Write the marker between thinking and reply."""
        dim, plain = (_DIM, _PLAIN) if self._terminal else ("", "")
        if self._thinking:
            ended = "" if self._last.endswith("\n") else "\n"
            self._write(f"{ended}{THINK_END}{plain}\n")
            self._thinking = False
        else:
            self._thinking = True
            self._write(f"{dim}{THINK_BEGIN}\n")
        self._at_start = True

    def _write(self, text: str) -> None:
        out = self._thinking_out if self._thinking else self._reply_out
        out.write(text)
        out.flush()
        self._last = text


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a reply, and whether it is thinking."""

    text: str
    thinking: bool


@dataclass(slots=True)
class Talk:
    """A conversation and the model that answers in it."""

    llm: LLM
    params: SamplingParams
    think: bool | None
    system: str | None
    turns: list[dict[str, Any]] = field(default_factory=list)
    num_replies: int = 0

    def reply(self, text: str) -> Iterator[Piece]:
        """Stream the answer to `text`; both are remembered, however far the answer came."""
        prompt, self.turns = self._prompt([*self.turns, {"role": "user", "content": text}])
        written = {True: "", False: ""}
        try:
            for piece in self._stream(prompt):
                written[piece.thinking] += piece.text
                yield piece
        finally:
            self.num_replies += 1
            self.turns.append(
                {
                    "role": "assistant",
                    "content": written[False].strip(),
                    "reasoning_content": written[True].strip(),
                }
            )

    def _prompt(self, turns: list[dict[str, Any]]) -> tuple[list[int], list[dict[str, Any]]]:
        """Ids that leave room for a reply, and the turns in them: the newest that fit."""
        context = self.llm.engine.max_model_len
        assert self.params.max_tokens is not None
        room = context - min(self.params.max_tokens, context // 2)
        while True:
            prompt = self._encode(turns)
            if len(prompt) <= room:
                return prompt, turns
            if len(turns) == 1:
                raise RequestError(
                    f"a message of {len(prompt)} tokens; this model's context of {context} leaves "
                    f"room for {room}, write a shorter one",
                    param="messages",
                )
            turns = turns[2:]

    def _encode(self, turns: list[dict[str, Any]]) -> list[int]:
        opening = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages, tokenizer = [*opening, *turns], self.llm.tokenizer
        plain = tokenizer.encode_messages(messages, add_generation_prompt=True)
        if self.think is None:
            return plain
        if not {THINK_BEGIN, THINK_END} <= tokenizer.special_tokens.keys():
            raise RequestError(
                "this model's tokenizer has no thinking markers; leave --think and --no-think out",
                param="think",
            )
        prompt = tokenizer.encode_messages(
            messages, add_generation_prompt=True, thinking=self.think
        )
        if prompt == plain and not self.think:  # the template can only ask for thinking: close it
            prompt += tokenizer.encode_with_special(f"{THINK_BEGIN}\n\n{THINK_END}\n\n")
        return prompt

    def _stream(self, prompt: list[int]) -> Iterator[Piece]:
        # Another seed every time, or a question asked twice would get the same answer.
        params = replace(self.params, seed=(self.params.seed or 0) + self.num_replies)
        with stop_on_signals() as stop:
            for delta in self.llm.stream(prompt, params):
                if delta.reasoning:
                    yield Piece(delta.reasoning, thinking=True)
                if delta.text:
                    yield Piece(delta.text, thinking=False)
                if stop:
                    break
