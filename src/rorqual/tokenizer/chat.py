"""Messages to text: a jinja chat template in a sandbox.

A published template is code from somewhere else, so it runs in jinja's immutable sandbox. The
environment is the one transformers compiles templates in (block trimming, `tojson` that keeps
Unicode, `raise_exception`), so a template renders here what it renders there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any, Never

from jinja2 import Template, TemplateError, meta
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rorqual.errors import CheckpointError, RequestError
from rorqual.tokenizer.messages import Message, Tools


def deepseek_template() -> str:
    """The template that tokenizers trained here carry: what V3's and R1's published ones render."""
    file = resources.files("rorqual.tokenizer").joinpath("chat_template.jinja")
    return file.read_text(encoding="utf-8")


class ChatTemplate:
    """A compiled chat template with the special-token strings it may print."""

    def __init__(self, template: str, token_strings: Mapping[str, str], source: str):
        self.text = template
        self._token_strings = dict(token_strings)
        environment = _environment()
        try:
            self.inputs = frozenset(meta.find_undeclared_variables(environment.parse(template)))
            self._template: Template = environment.from_string(template, _functions())
        except TemplateError as error:
            raise CheckpointError(
                f"the chat template of {source} does not compile: {error}; expected jinja as "
                "transformers reads it, correct chat_template"
            ) from error

    def render(
        self,
        messages: Sequence[Message],
        tools: Tools | None,
        add_generation_prompt: bool,
        thinking: bool | None,
    ) -> str:
        """The conversation as text, special tokens inline; arguments as messages.py checks them."""
        variables: dict[str, Any] = dict(self._token_strings)
        variables.update(messages=messages, add_generation_prompt=add_generation_prompt)
        if tools:
            self._require_input("tools", {"tools"})
            variables["tools"] = tools
        if thinking is not None:
            self._require_input("thinking", {"thinking", "enable_thinking"})
            variables.update(thinking=thinking, enable_thinking=thinking)
        try:
            return self._template.render(variables)
        except (TemplateError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise RequestError(
                f"the chat template cannot render these messages: {error}; see which roles and "
                "fields the template reads",
                code="invalid_messages",
                param="messages",
            ) from error

    def _require_input(self, param: str, names: set[str]) -> None:
        if not names & self.inputs:
            raise RequestError(
                f"{param} was given, but this model's chat template does not read it; leave "
                f"{param} out or use a template that does",
                code="unsupported_parameter",
                param=param,
            )


def _raise_exception(message: str) -> Never:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


def _tojson(value: object, indent: int | None = None, ensure_ascii: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _functions() -> dict[str, Callable[[str], str]]:
    """What templates may call, as transformers offers it."""
    return {"raise_exception": _raise_exception, "strftime_now": _strftime_now}


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _tojson  # pyright: ignore[reportUnknownMemberType] untyped
    return environment
