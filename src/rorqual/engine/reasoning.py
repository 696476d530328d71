"""Thinking told apart from the answer, by token id where the tokenizer has the markers.

R1's and V3.1's `<think>` and `</think>` are single tokens that no other text encodes to, so a
quoted marker is never mistaken for one. Models whose tokenizer lacks them write the markers out in
several tokens; there the text decides, an opening marker counting only where the output begins.

The prompt says where the output begins: R1's rendered prompt ends inside `<think>`, V3's behind
`<｜Assistant｜>`, and a continued answer anywhere. Line breaks next to a marker belong to it, as in
the templates: `<think>\n...\n</think>\n\n`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from rorqual.engine.detokenize import Detokenizer
from rorqual.engine.stops import StopChecker
from rorqual.errors import RequestError
from rorqual.tokenizer import Tokenizer
from rorqual.tokenizer.special import THINK_BEGIN, THINK_END

Label = Literal["reasoning", "content", "marker"]
MAX_LEADING_SPACE: Final = 64


class Split(NamedTuple):
    """What one token was, and the text that became safe to show with it."""

    label: Label
    reasoning: str
    content: str


@dataclass(frozen=True, slots=True)
class ReasoningMarkers:
    """How a model marks its thinking; `by_id` if each marker is one special token."""

    begin: str
    end: str
    begin_ids: tuple[int, ...]
    end_ids: tuple[int, ...]
    by_id: bool
    special_ids: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "ReasoningMarkers | None":
        """The markers of a model, None for one that neither its vocabulary nor template gives."""
        special = tokenizer.special_tokens
        by_id = THINK_BEGIN in special and THINK_END in special
        if not by_id and not _template_mentions(tokenizer, THINK_END):
            return None
        return cls(
            THINK_BEGIN,
            THINK_END,
            tuple(tokenizer.encode_with_special(THINK_BEGIN)),
            tuple(tokenizer.encode_with_special(THINK_END)),
            by_id,
            frozenset(special.values()) - {special.get(THINK_BEGIN), special.get(THINK_END)},
        )


class ReasoningSplitter:
    """Sorts the tokens of one sequence into thinking and answer, and keeps a thinking budget.

    Without markers everything is content. `fresh` says that a marker was the last thing in the
    prompt, so that line breaks at the start still belong to it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        markers: ReasoningMarkers | None,
        *,
        in_reasoning: bool = False,
        fresh: bool = True,
        thinking_budget: int | None = None,
        skip_special: bool = True,
    ):
        assert markers is not None or not in_reasoning, "thinking needs markers that end it"
        self._markers = markers
        self._budget = thinking_budget
        self._detokenizer = Detokenizer(tokenizer, skip_special=skip_special)
        self._reasoning = _TrimmedText(trim_start=in_reasoning and fresh, trim_end=True)
        self._content = _TrimmedText(trim_start=False, trim_end=False)
        self._text = None
        if markers is not None and not markers.by_id:
            self._text = _TextMarkers(markers, in_reasoning)
        self._num_end_ids_seen = 0
        self.in_reasoning = in_reasoning
        self.num_reasoning_tokens = 0

    @classmethod
    def for_prompt(
        cls,
        tokenizer: Tokenizer,
        markers: ReasoningMarkers | None,
        prompt_ids: Sequence[int],
        *,
        thinking_budget: int | None = None,
        skip_special: bool = True,
    ) -> "ReasoningSplitter":
        """A splitter in the state in which the prompt ends."""
        in_reasoning, fresh = False, False
        if markers is not None:
            in_reasoning, fresh = _state_after(tokenizer, markers, prompt_ids)
        return cls(
            tokenizer,
            markers,
            in_reasoning=in_reasoning,
            fresh=fresh,
            thinking_budget=thinking_budget,
            skip_special=skip_special,
        )

    def feed(self, token_id: int) -> Label:
        """What a token is. Of a marker in several tokens only the last is labelled so."""
        return self.split(token_id).label

    def split(self, token_id: int) -> Split:
        """What a token is, and the text that it completes; markers are in neither text."""
        was_reasoning = self.in_reasoning
        if self._text is not None:
            split = self._split_by_text(self._text, token_id)
        else:
            split = self._split_by_id(token_id)
        self.num_reasoning_tokens += split.label == "reasoning"
        if was_reasoning and self._markers is not None:
            self._count_end_ids(self._markers.end_ids, token_id)
        return split

    def finish(self) -> Split:
        """What was held back, when the sequence ends."""
        text = self._detokenizer.finish()
        if self._text is not None:
            reasoning, content, _ = self._text.feed(text)
            held_reasoning, held_content = self._text.finish()
            reasoning, content = reasoning + held_reasoning, content + held_content
        else:
            reasoning, content = (text, "") if self.in_reasoning else ("", text)
        label = "reasoning" if self.in_reasoning else "content"
        reasoning = self._reasoning.push(reasoning) + self._reasoning.finish()
        return Split(label, reasoning, self._content.push(content))

    def forced_token(self, num_reasoning_tokens: int) -> int | None:
        """The id of the end marker that must come next once the thinking budget is used up."""
        if self._markers is None or self._budget is None or not self.in_reasoning:
            return None
        if num_reasoning_tokens < self._budget:
            return None
        return self._markers.end_ids[self._num_end_ids_seen]

    def _split_by_id(self, token_id: int) -> Split:
        markers = self._markers
        if markers is None or token_id not in (markers.begin_ids[0], markers.end_ids[0]):
            return self._sorted(self._detokenizer.feed([token_id]))
        text = self._detokenizer.finish()  # a marker inside a character: its bytes never complete
        _, reasoning, content = self._sorted(text)
        self._turn(token_id == markers.begin_ids[0])
        return Split("marker", reasoning, content)

    def _split_by_text(self, text_markers: "_TextMarkers", token_id: int) -> Split:
        text = self._detokenizer.feed([token_id])
        reasoning, content, num_turns = text_markers.feed(text)
        if not num_turns:
            return Split(
                "reasoning" if self.in_reasoning else "content",
                self._reasoning.push(reasoning),
                self._content.push(content),
            )
        if num_turns == 2 or not self.in_reasoning:  # opened, perhaps also closed, by one token
            self._turn(True)
        reasoning = self._reasoning.push(reasoning)
        if not text_markers.in_reasoning:
            self._turn(False)
        return Split("marker", reasoning, self._content.push(content))

    def _sorted(self, text: str) -> Split:
        if self.in_reasoning:
            return Split("reasoning", self._reasoning.push(text), "")
        return Split("content", "", self._content.push(text))

    def _turn(self, in_reasoning: bool) -> None:
        """Go into thinking or out of it; line breaks at the border are dropped."""
        if in_reasoning == self.in_reasoning:
            return
        self.in_reasoning = in_reasoning
        self._reasoning.drop_end()
        if in_reasoning:
            self._reasoning.trim_start = True
        else:
            self._content.trim_start = True

    def _count_end_ids(self, end_ids: tuple[int, ...], token_id: int) -> None:
        """How much of the end marker the last tokens spell, id for id."""
        if not self.in_reasoning:
            self._num_end_ids_seen = 0
        elif token_id == end_ids[self._num_end_ids_seen]:
            self._num_end_ids_seen += 1
        else:
            self._num_end_ids_seen = int(token_id == end_ids[0])


class _TrimmedText:
    """Text without the line breaks at its start and end, where those belong to a marker."""

    def __init__(self, *, trim_start: bool, trim_end: bool):
        self.trim_start = trim_start
        self._trim_end = trim_end
        self._num_held = 0

    def push(self, text: str) -> str:
        if self.trim_start:
            text = text.lstrip("\n")
            self.trim_start = not text
        if not self._trim_end or not text:
            return text
        body = text.rstrip("\n")
        num_breaks = len(text) - len(body)
        if not body:
            self._num_held += num_breaks
            return ""
        body = "\n" * self._num_held + body
        self._num_held = num_breaks
        return body

    def drop_end(self) -> None:
        self._num_held = 0

    def finish(self) -> str:
        num_held, self._num_held = self._num_held, 0
        return "\n" * num_held


class _TextMarkers:
    """Finds written-out markers in text: one opening at the start of the output, one closing."""

    def __init__(self, markers: ReasoningMarkers, in_reasoning: bool):
        self._begin = markers.begin
        self._end = StopChecker([markers.end])
        self._opening: str | None = None if in_reasoning else ""  # held back start of the output
        self.in_reasoning = in_reasoning

    def feed(self, text: str) -> tuple[str, str, int]:
        """(thinking, answer, number of markers completed)."""
        num_turns = 0
        if self._opening is not None:
            self._opening += text
            begins = self._begins(self._opening)
            if begins is None:
                return "", "", 0
            text, self._opening = self._opening, None
            if begins:
                self.in_reasoning, num_turns = True, 1
                text = text.lstrip()[len(self._begin) :]
        if not self.in_reasoning:
            return "", text, num_turns
        reasoning, ended = self._end.feed(text)
        if not ended:
            return reasoning, "", num_turns
        self.in_reasoning = False
        return reasoning, self._end.rest, num_turns + 1

    def finish(self) -> tuple[str, str]:
        """What was held back: it became no marker."""
        opening, self._opening = self._opening or "", None
        return self._end.finish(), opening

    def _begins(self, text: str) -> bool | None:
        """Whether output that starts so opens thinking; None while both are possible."""
        stripped = text.lstrip()
        if len(text) - len(stripped) > MAX_LEADING_SPACE:
            return False
        if stripped.startswith(self._begin):
            return True
        return None if self._begin.startswith(stripped) else False


def _template_mentions(tokenizer: Tokenizer, marker: str) -> bool:
    try:
        return marker in tokenizer.chat_template.text
    except RequestError:  # it came without a template
        return False


def _state_after(
    tokenizer: Tokenizer, markers: ReasoningMarkers, prompt_ids: Sequence[int]
) -> tuple[bool, bool]:
    """(whether the prompt ends inside thinking, whether only line breaks follow the marker).

    Only the turn being written is looked at: what follows the last special token that is no
    marker. What a user writes stands in an earlier turn and cannot change the state.
    """
    start = len(prompt_ids)
    while start > 0 and prompt_ids[start - 1] not in markers.special_ids:
        start -= 1
    turn = list(prompt_ids[start:])
    if not markers.by_id:
        text = tokenizer.decode(turn)
        begin, end = text.rfind(markers.begin), text.rfind(markers.end)
        behind = text[begin + len(markers.begin) :]
        return begin > end, begin > end and not behind.strip("\n")
    for position in range(len(turn) - 1, -1, -1):
        if turn[position] in (markers.begin_ids[0], markers.end_ids[0]):
            inside = turn[position] == markers.begin_ids[0]
            return inside, inside and not tokenizer.decode(turn[position + 1 :]).strip("\n")
    return False, False
