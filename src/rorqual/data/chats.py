"""Conversations as a source of a corpus: a base model that has seen turns learns to take them.

The messages are kept as JSON and meet the chat template when shards are built, so one corpus
serves every tokenizer. Chats are never held out: bits per byte is about text.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rorqual.data.add import check_name, record_source
from rorqual.data.documents import Document, Language
from rorqual.data.manifest import Entry
from rorqual.errors import DataError, RequestError
from rorqual.tokenizer import Message
from rorqual.tokenizer.messages import check_messages
from rorqual.tokenizer.text import surrogate_position


def add_chats(
    root: Path,
    name: str,
    conversations: Iterable[tuple[str, Sequence[Message], Language]],
    licence: str,
) -> Entry:
    """Makes one source of (id, messages, language); a source of that name is replaced."""
    check_name(root, name)
    documents = [
        _document(f"{name}/{chat_id}", messages, language)
        for chat_id, messages, language in conversations
    ]
    if not documents:
        raise DataError(f"source {name}: no conversation given; expected at least one")
    languages = "+".join(sorted({document.language for document in documents}))
    return record_source(root, name, "conversations", languages, licence, documents)


def _document(document_id: str, messages: Sequence[Message], language: Language) -> Document:
    try:
        checked = check_messages(messages)
        text = json.dumps(checked, ensure_ascii=False, separators=(",", ":"))
    except (RequestError, TypeError, ValueError) as error:
        raise DataError(f"{document_id}: {error}; correct or drop the conversation") from error
    position = surrogate_position(text)
    if position is not None:
        raise DataError(
            f"{document_id}: half a surrogate pair at character {position} of its JSON, which "
            "UTF-8 cannot hold; repair or drop it"
        )
    return Document(document_id, text, language, kind="chat")
