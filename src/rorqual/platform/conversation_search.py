"""A user's conversations by page and by words in titles and contents."""

import json
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, String, cast, or_, select

from rorqual.errors import RequestError
from rorqual.platform.database import Database
from rorqual.platform.tables import conversations, messages

_MAX_QUERY_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Found:
    """One line of the list."""

    id: str
    title: str
    updated_seconds: float
    model: str | None


def search_conversations(
    database: Database, user_id: str, *, query: str, cursor: str | None, limit: int
) -> tuple[list[Found], str | None]:
    """Newest first; the cursor continues where the last page ended."""
    wanted = select(conversations).where(conversations.c.user_id == user_id)
    words = query.strip()[:_MAX_QUERY_CHARACTERS].replace("\0", "")
    if words:
        pattern = f"%{_escaped(words)}%"
        inside = select(messages.c.conversation_id).where(
            messages.c.conversation_id == conversations.c.id,
            cast(messages.c.content, String).ilike(pattern, escape="\\"),
        )
        wanted = wanted.where(
            or_(conversations.c.title.ilike(pattern, escape="\\"), inside.exists())
        )
    if cursor is not None:
        before_ms, name = _cursor(cursor)
        wanted = wanted.where(
            or_(
                conversations.c.updated_ms < before_ms,
                (conversations.c.updated_ms == before_ms) & (conversations.c.id > name),
            )
        )
    ordered = wanted.order_by(conversations.c.updated_ms.desc(), conversations.c.id)

    def read(connection: Connection) -> tuple[list[Found], str | None]:
        rows = connection.execute(ordered.limit(limit + 1)).all()
        kept = rows[:limit]
        found = [
            Found(row.id, row.title, row.updated_ms / 1000, _model(connection, row.id))
            for row in kept
        ]
        more = len(rows) > limit
        return found, f"{kept[-1].updated_ms}.{kept[-1].id}" if more else None

    return database.read(read)


def _model(connection: Connection, conversation_id: str) -> str | None:
    """The model that was asked last."""
    query = (
        select(messages.c.content)
        .where(messages.c.conversation_id == conversation_id, messages.c.role == "user")
        .order_by(messages.c.created_ms.desc())
        .limit(1)
    )
    content = connection.execute(query).scalar()
    return None if content is None else json.loads(content).get("model")


def _escaped(words: str) -> str:
    """JSON keeps quotes and line breaks escaped, so words are looked for as they stand there."""
    text = json.dumps(words, ensure_ascii=False)[1:-1]
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _cursor(text: str) -> tuple[int, str]:
    moment, dot, name = text.partition(".")
    if not dot or not (moment.isascii() and moment.isdigit() and len(moment) < 17):
        raise RequestError("cursor: expected one from an earlier page", param="cursor")
    return int(moment), name.replace("\0", "")
