"""A document: one text with a name and a language, as every later stage sees it.

The name, never the content, decides whether a document is held out, so that a corrected or
re-extracted text stays on its side of the split. A chat is a document whose text is the JSON of
its messages: it is encoded through the chat template, where a text is encoded as it stands.
"""

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal, get_args

Language = Literal["en", "zh", "code"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

HELD_OUT_ONE_IN = 100

_LINE_BREAKS = re.compile(r"\r\n?")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]")
_LINE_ENDS = re.compile(r"[ \t]+\n")
_BLANK_LINES = re.compile(r"\n{4,}")


@dataclass(frozen=True, slots=True)
class Document:
    """One text; `id` is unique in the corpus and stable from fetch to fetch."""

    id: str
    text: str
    language: Language
    held_out: bool = False
    kind: Literal["text", "chat"] = "text"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of a chat."""
        assert self.kind == "chat", f"{self.id} is a text"
        return json.loads(self.text)

    @property
    def words(self) -> str:
        """The text without markup: of a chat its prompts, reasoning and replies, a line each."""
        if self.kind == "text":
            return self.text
        fields = ("reasoning_content", "content")
        parts = (message.get(field) for message in self.messages for field in fields)
        return "\n".join(part for part in parts if part)


def normalise(text: str) -> str:
    """NFC, newlines as \\n, no control characters, no trailing blanks, at most two empty lines."""
    text = unicodedata.normalize("NFC", _LINE_BREAKS.sub("\n", text))
    text = _LINE_ENDS.sub("\n", _CONTROLS.sub("", text))
    return _BLANK_LINES.sub("\n\n\n", text).strip("\n")


def name_hash(document_id: str, salt: str = "") -> int:
    """A 64-bit hash of a document's name, the same on every machine and in every release."""
    digest = hashlib.blake2b(document_id.encode(), digest_size=8, salt=salt.encode()).digest()
    return int.from_bytes(digest, "little")


def is_held_out(document_id: str, pattern: str | None) -> bool:
    """By `pattern` on the name where a source has one, else one name in HELD_OUT_ONE_IN."""
    if pattern is not None:
        return re.search(pattern, document_id) is not None
    return name_hash(document_id, "held-out") % HELD_OUT_ONE_IN == 0
