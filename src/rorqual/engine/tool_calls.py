r"""Tool calls in what a model writes, parsed while it is written: V3's, R1's and V3.1's syntax.

    V3, R1:  <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n
             ARGUMENTS\n```<｜tool▁call▁end｜>\n(next call)<｜tool▁calls▁end｜>
    V3.1:    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>
             ARGUMENTS<｜tool▁call▁end｜>(next call)<｜tool▁calls▁end｜>

A call is announced once its head is complete; its arguments follow as they are written. Arguments
are scanned as JSON, so a fence or a marker inside one of their strings does not end them; from the
first character that cannot be JSON on, the next end marker does. A head that is no head is content,
markers included. Only what must be is held back, and the result does not depend on how the text was
cut into pieces.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from rorqual.engine.stops import StopChecker
from rorqual.tokenizer.special import (
    TOOL_CALL_BEGIN,
    TOOL_CALL_END,
    TOOL_CALLS_BEGIN,
    TOOL_CALLS_END,
    TOOL_SEP,
)

MAX_NAME_CHARACTERS: Final = 256
MAX_SPACE: Final = 64
FENCE_OPEN: Final = "```json\n"
FENCE_CLOSE: Final = "\n```"
_NAME = re.compile(r"[^\s<>{}\[\]\"'`｜]+")
_OUTSIDE = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'["\\\n]')
# Long text is read in pieces, since every call copies what is left of its piece.
PIECE_CHARACTERS: Final = 4096


@dataclass(frozen=True, slots=True)
class ContentText:
    """Text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call begins: its position among the calls, its id and the function's name."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """More of a call's arguments, as the model writes them (JSON if it errs not)."""

    index: int
    text: str


ToolEvent = ContentText | ToolCallStart | ToolCallArguments


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call, as `collect` puts it together."""

    id: str
    name: str
    arguments: str


def new_call_id() -> str:
    """An id that no other call has."""
    return f"call_{secrets.token_hex(12)}"


class ToolCallParser:
    """Turns the text of an answer, piece by piece, into content and tool calls."""

    def __init__(self, new_id: Callable[[], str] = new_call_id):
        self._new_id = new_id
        self._read = self._read_content
        self._buffer = ""
        self._calls_begin = StopChecker([TOOL_CALLS_BEGIN])
        self._opened = ""  # the marker that becomes content if no call follows it
        self._arguments: _Arguments | None = None
        self.num_calls = 0  # that are complete

    def feed(self, text: str) -> list[ToolEvent]:
        """What the next piece of text adds."""
        events: list[ToolEvent] = []
        for start in range(0, len(text), PIECE_CHARACTERS):
            self._buffer += text[start : start + PIECE_CHARACTERS]
            while self._read(events):
                pass
        return _merged(events)

    def finish(self) -> list[ToolEvent]:
        """What was held back, when the answer ends; a call without its end stays as it is."""
        events: list[ToolEvent] = []
        if self._arguments is not None:
            self._add_arguments(events, self._arguments.finish())
        else:
            text = self._opened + self._calls_begin.finish() + self._buffer
            between = self._read == self._read_head and not self._opened
            if not (between and not text.strip()):  # line breaks behind a call are markup
                events.append(ContentText(text))
        self._buffer = self._opened = ""
        return _merged(events)

    def _read_content(self, events: list[ToolEvent]) -> bool:
        text, found = self._calls_begin.feed(self._buffer)
        events.append(ContentText(text))
        self._buffer = self._calls_begin.rest
        if found:
            self._opened = TOOL_CALLS_BEGIN
            self._read = self._read_head
        return found

    def _read_head(self, events: list[ToolEvent]) -> bool:
        """A call's head, or the end of the calls, or neither: then it is content."""
        head = _parse_head(self._buffer)
        if head == "incomplete":
            return False
        if isinstance(head, _Head):
            events.append(ToolCallStart(self.num_calls, self._new_id(), head.name))
            self._buffer, self._opened = self._buffer[head.length :], ""
            self._arguments = _Arguments(fenced=head.fenced)
            self._read = self._read_arguments
            return True
        if head == "end" and not self._opened:
            self._buffer = self._buffer.lstrip()[len(TOOL_CALLS_END) :]
        events.append(ContentText(self._opened))
        self._opened = ""
        self._calls_begin = StopChecker([TOOL_CALLS_BEGIN])
        self._read = self._read_content
        return True

    def _read_arguments(self, events: list[ToolEvent]) -> bool:
        assert self._arguments is not None
        text, ended = self._arguments.feed(self._buffer)
        self._add_arguments(events, text)
        self._buffer = self._arguments.rest if ended else ""
        if ended:
            self._arguments = None
            self.num_calls += 1
            self._read = self._read_head
        return ended

    def _add_arguments(self, events: list[ToolEvent], text: str) -> None:
        events.append(ToolCallArguments(self.num_calls, text))


def collect(events: list[ToolEvent]) -> tuple[str, list[ToolCall]]:
    """(content, calls) that a whole stream of events stands for."""
    content: list[str] = []
    starts: list[ToolCallStart] = []
    arguments: list[list[str]] = []
    for event in events:
        if isinstance(event, ContentText):
            content.append(event.text)
        elif isinstance(event, ToolCallStart):
            starts.append(event)
            arguments.append([])
        else:
            arguments[event.index].append(event.text)
    pairs = zip(starts, arguments, strict=True)
    return "".join(content), [ToolCall(s.id, s.name, "".join(texts)) for s, texts in pairs]


def parse_tool_calls(
    text: str, new_id: Callable[[], str] = new_call_id
) -> tuple[str, list[ToolCall]]:
    """(content, calls) of a whole answer."""
    parser = ToolCallParser(new_id)
    return collect(parser.feed(text) + parser.finish())


class _Head(NamedTuple):
    name: str
    length: int
    fenced: bool


_Found = Literal["incomplete", "end", "neither"]


def _parse_head(text: str) -> _Head | _Found:
    """The head of a call at the start of `text`; "incomplete" while it may yet become one."""
    inside = text.lstrip()
    if len(text) - len(inside) > MAX_SPACE:
        return "neither"
    if not inside.startswith(TOOL_CALL_BEGIN):
        if inside.startswith(TOOL_CALLS_END):
            return "end"
        may_come = any(m.startswith(inside) for m in (TOOL_CALL_BEGIN, TOOL_CALLS_END))
        return "incomplete" if may_come else "neither"
    kind, separator, behind = inside[len(TOOL_CALL_BEGIN) :].partition(TOOL_SEP)
    if not separator:
        return "incomplete" if _may_become_name(kind, TOOL_SEP) else "neither"
    if not _is_name(kind):
        return "neither"
    if behind.startswith("{"):
        return _Head(kind, len(text) - len(behind), fenced=False)
    name, line_break, fence = behind.partition("\n")
    if not line_break:
        return "incomplete" if _may_become_name(name, "\n") else "neither"
    if not _is_name(name):
        return "neither"
    if fence.startswith(FENCE_OPEN):
        return _Head(name, len(text) - len(fence) + len(FENCE_OPEN), fenced=True)
    return "incomplete" if FENCE_OPEN.startswith(fence) else "neither"


def _is_name(text: str) -> bool:
    return len(text) <= MAX_NAME_CHARACTERS and _NAME.fullmatch(text) is not None


def _may_become_name(text: str, marker: str) -> bool:
    """Whether `text` is the start of a name, perhaps with the start of the marker that ends it."""
    if not text:
        return True
    matched = _NAME.match(text)
    if matched is None or len(matched.group()) > MAX_NAME_CHARACTERS:
        return False
    return marker.startswith(text[matched.end() :])


class _Arguments:
    """The text of one call's arguments up to their end marker, which is dropped.

    The marker is looked for everywhere but in JSON strings. A line break in a string, or a quote
    outside the object, shows that this is no JSON; then it is looked for everywhere.
    """

    def __init__(self, *, fenced: bool):
        self._depth = 0
        self._place: Literal["outside", "string", "escape", "anywhere"] = "outside"
        fences = (FENCE_CLOSE[1:] + TOOL_CALL_END, FENCE_CLOSE + TOOL_CALL_END)
        self._end = StopChecker((TOOL_CALL_END, *(fences if fenced else ())))
        self.rest = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """(arguments, whether they ended); then `rest` is what follows the end marker."""
        parts: list[str] = []
        at = 0
        while at < len(text):
            start = at
            if self._place in ("string", "escape"):
                at = self._through_string(text, at)
                parts.append(text[start:at])
                continue
            at = len(text) if self._place == "anywhere" else self._to_string(text, at)
            safe, ended = self._end.feed(text[start:at])
            parts.append(safe)
            if ended:
                self.rest = self._end.rest + text[at:]
                return "".join(parts), True
        return "".join(parts), False

    def finish(self) -> str:
        """What was held back, when the text ends without the end marker."""
        return self._end.finish()

    def _to_string(self, text: str, at: int) -> int:
        """Behind the next character that has a meaning outside strings."""
        found = _OUTSIDE.search(text, at)
        if found is None:
            return len(text)
        character = found.group()
        if character in "{[":
            self._depth += 1
        elif self._depth == 0:
            self._place = "anywhere"
        elif character == '"':
            self._place = "string"
        else:
            self._depth -= 1
            self._place = "outside" if self._depth else "anywhere"
        return found.end()

    def _through_string(self, text: str, at: int) -> int:
        """Behind the next character that has a meaning in a string; before a line break."""
        if self._place == "escape":
            self._place = "string"
            return at + 1
        found = _IN_STRING.search(text, at)
        if found is None:
            return len(text)
        character = found.group()
        if character == "\n":
            self._place = "anywhere"
            return found.start()
        self._place = "escape" if character == "\\" else "outside"
        return found.end()


def _merged(events: list[ToolEvent]) -> list[ToolEvent]:
    """The same events without empty texts, neighbours of one kind joined."""
    merged: list[ToolEvent] = []
    for event in events:
        if isinstance(event, ToolCallStart):
            merged.append(event)
            continue
        if not event.text:
            continue
        last = merged[-1] if merged else None
        if isinstance(event, ContentText) and isinstance(last, ContentText):
            merged[-1] = ContentText(last.text + event.text)
        elif isinstance(event, ToolCallArguments) and isinstance(last, ToolCallArguments):
            merged[-1] = ToolCallArguments(event.index, last.text + event.text)
        else:
            merged.append(event)
    return merged
