"""Special strings in text: found, split at, and kept from forming inside a user's text.

A template prints special tokens and message content into one string. To tell them apart, every
special string that occurs inside content is disguised before rendering: its first character is
replaced by an unused private-use character, one for one, so that string operations of the
template see text of equal length. After rendering, whatever still matches is the template's own;
the text between is un-disguised and encoded as plain text. Clean text is not touched, so its ids
are those of the rendered string.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, cast

from rorqual.errors import RequestError
from rorqual.tokenizer.special import THINK_BEGIN, THINK_END

_PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


class Piece(NamedTuple):
    """A stretch of text: either one special token (its id) or plain text (None)."""

    text: str
    start: int
    token_id: int | None


class SpecialMarkers:
    """The special strings of one vocabulary, ready to be searched for."""

    def __init__(self, special_tokens: Mapping[str, int]):
        self._ids = dict(special_tokens)
        pattern = _longest_of(tuple(self._ids)) or "(?!)"  # no tokens: never matches
        self._token = re.compile(pattern)
        self._token_start = re.compile(f"(?={pattern})")

    def split(self, text: str) -> Iterator[Piece]:
        """Pieces of `text` in order, special strings apart from the plain text between them."""
        end = 0
        for match in self._token.finditer(text):
            if match.start() > end:
                yield Piece(text[end : match.start()], end, None)
            yield Piece(match.group(), match.start(), self._ids[match.group()])
            end = match.end()
        if end < len(text):
            yield Piece(text[end:], end, None)

    def disguise(self, messages: Sequence[Any], tools: Any, template: str) -> "Disguise":
        """Messages and tools in which no special string is left, and the way back."""
        strings = list(chain(_strings(messages), _strings(tools)))
        first_characters = {s[m.start()] for s in strings for m in self._token_start.finditer(s)}
        used = set(chain(template, *strings, *self._ids)) if first_characters else set[str]()
        unused = (chr(code) for code in chain(*_PRIVATE_USE) if chr(code) not in used)
        substitutes = dict(zip(sorted(first_characters), unused, strict=False))
        if len(substitutes) < len(first_characters):
            raise RequestError(
                "messages use every private-use character of Unicode and special strings beside "
                "them; expected text, drop one of the two",
                code="invalid_messages",
                param="messages",
            )
        return Disguise(self._token_start, substitutes, messages, tools, THINK_BEGIN in self._ids)


class Disguise:
    """One conversation with its special strings disguised; `reveal` undoes it on a piece."""

    def __init__(
        self,
        token_start: re.Pattern[str],
        substitutes: Mapping[str, str],
        messages: Sequence[Any],
        tools: Any,
        has_think: bool,
    ):
        self._token_start = token_start
        self._substitutes = substitutes
        self._originals = {ord(new): old for old, new in substitutes.items()}
        self._has_think = has_think
        if not substitutes:  # nothing to hide, as in nearly all text
            self.messages, self.tools = list(messages), tools
            return
        self.messages = [self._hide_message(message) for message in messages]
        self.tools = _map_strings(tools, self._hide)

    def reveal(self, text: str) -> str:
        """The text as its author wrote it."""
        return text.translate(self._originals) if self._originals else text

    def _hide(self, text: str) -> str:
        starts = {match.start() for match in self._token_start.finditer(text)}
        if not starts:
            return text
        return "".join(self._substitutes[c] if i in starts else c for i, c in enumerate(text))

    def _hide_message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        hidden = cast("dict[str, Any]", _map_strings(message, self._hide))
        content = message.get("content")
        separate = message.get("reasoning_content") is not None
        if message.get("role") == "assistant" and isinstance(content, str) and not separate:
            hidden["content"] = self._hide_answer(content)
        return hidden

    def _hide_answer(self, content: str) -> str:
        """An assistant's text: `<think>` at its start and the last `</think>` are its reasoning.

        The same reading as the published templates, which cut at the last `</think>`.
        """
        if not self._has_think:
            return self._hide(content)
        opening = THINK_BEGIN if content.startswith(THINK_BEGIN) else ""
        reasoning, closing, answer = content[len(opening) :].rpartition(THINK_END)
        return opening + self._hide(reasoning) + closing + self._hide(answer)


def _longest_of(tokens: Sequence[str]) -> str:
    """A regex for the longest of `tokens`, as a tree of their common prefixes.

    NOTE: a flat alternation would try every token (V3 has 818) at each `<` of a long prompt.
    """
    endings: dict[str, list[str]] = {}
    for token in tokens:
        if token:
            endings.setdefault(token[0], []).append(token[1:])
    branches = [re.escape(first) + _longest_of(rest) for first, rest in endings.items()]
    if "" in tokens:
        return f"(?:{'|'.join(branches)})?" if branches else ""
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})" if branches else ""


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[Any, Any]", value).items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[Any]", value):
            yield from _strings(item)


def _map_strings(value: Any, function: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return function(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_map_strings(k, function): _map_strings(v, function) for k, v in items}
    if isinstance(value, list | tuple):
        return [_map_strings(item, function) for item in cast("Sequence[Any]", value)]
    return value
