"""Conversations, and the runs that write their answers: event logs that outlive a connection.

A run is a numbered list of events (1, 2, 3, ...). A reader that lost its connection asks for what
came after the last number it saw, of the same run, and misses nothing and sees nothing twice. When
the server that writes a run dies, a sweeper ends the run as `interrupted` and keeps the partial
text. Every query names the user; what belongs to another is not there.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, delete, insert, select, update

from rorqual.errors import RequestError
from rorqual.platform.conversation_search import Found, search_conversations
from rorqual.platform.database import Database
from rorqual.platform.errors import NotFound, RequestClosed
from rorqual.platform.ledger_operations import log_counts
from rorqual.platform.prices import TokenCounts
from rorqual.platform.secret_text import new_id
from rorqual.platform.tables import conversations, messages, run_events, runs

RunState = Literal["running", "finished", "stopped", "failed", "interrupted"]
TEXT_KINDS: Final = ("reasoning", "content")  # events whose data["text"] makes up the message
_POLL_SECONDS: Final = 0.25  # another process may be writing; ours wakes readers at once
_EVENTS_KEPT_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation, without its messages."""

    id: str
    title: str
    created_seconds: float
    updated_seconds: float


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; turns form a tree, so that an edited or repeated turn is a branch.

    run_reason: what the end of its run said, None while it is being written.
    """

    id: str
    parent_id: str | None
    role: str
    content: Mapping[str, Any]
    created_seconds: float
    run_id: str | None
    run_state: RunState | None
    run_reason: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """The making of one assistant message."""

    id: str
    conversation_id: str
    message_id: str
    request_id: str | None
    state: RunState
    stop_requested: bool
    last_sequence: int


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One numbered event of a run."""

    sequence: int
    kind: str
    data: Mapping[str, Any]


class Conversations:
    """Keeps conversations and runs; the writing side of a run is its server's alone."""

    def __init__(self, database: Database, *, instance_id: str, clock: Callable[[], float]) -> None:
        self._database = database
        self._instance_id = instance_id
        self._clock = clock
        self._changed = threading.Condition()

    def create(self, user_id: str, title: str = "") -> Conversation:
        """A new, empty conversation."""
        now_ms = self._now_ms()
        row = {
            "id": new_id("conv"),
            "user_id": user_id,
            "title": title[:200],
            "created_ms": now_ms,
            "updated_ms": now_ms,
        }
        self._database.write(lambda connection: connection.execute(insert(conversations), row))
        return Conversation(str(row["id"]), title[:200], now_ms / 1000, now_ms / 1000)

    def page(
        self, user_id: str, *, limit: int = 50, before_seconds: float | None = None
    ) -> list[Conversation]:
        """A user's conversations, last used first."""
        query = select(conversations).where(conversations.c.user_id == user_id)
        if before_seconds is not None:
            query = query.where(conversations.c.updated_ms < round(before_seconds * 1000))
        query = query.order_by(conversations.c.updated_ms.desc(), conversations.c.id).limit(limit)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [_conversation_of(row) for row in rows]

    def search(
        self, user_id: str, *, query: str, cursor: str | None, limit: int
    ) -> tuple[list[Found], str | None]:
        """Those that contain the words (all if there are none), newest first, and the next page's
        cursor."""
        return search_conversations(
            self._database, user_id, query=query, cursor=cursor, limit=limit
        )

    def get(self, user_id: str, conversation_id: str) -> tuple[Conversation, list[Message]]:
        """A conversation and all its messages, oldest first."""
        query = (
            select(
                messages,
                runs.c.id.label("run_id"),
                runs.c.state.label("run_state"),
                runs.c.reason.label("run_reason"),
            )
            .outerjoin(runs, runs.c.message_id == messages.c.id)
            .where(messages.c.conversation_id == conversation_id)
            .order_by(messages.c.number)
        )

        def read(connection: Connection) -> tuple[Conversation, list[Message]]:
            row = _owned(connection, user_id, conversation_id)
            return _conversation_of(row), [_message_of(r) for r in connection.execute(query)]

        return self._database.read(read)

    def rename(self, user_id: str, conversation_id: str, title: str) -> None:
        """A new title."""

        def rename_one(connection: Connection) -> None:
            _owned(connection, user_id, conversation_id)
            mine = update(conversations).where(conversations.c.id == conversation_id)
            connection.execute(mine.values(title=title[:200]))

        self._database.write(rename_one)

    def delete(self, user_id: str, conversation_id: str) -> None:
        """Deletes a conversation with everything in it. A run under way finds itself closed."""
        inside = select(runs.c.id).where(runs.c.conversation_id == conversation_id)

        def delete_one(connection: Connection) -> None:
            _owned(connection, user_id, conversation_id)
            connection.execute(delete(run_events).where(run_events.c.run_id.in_(inside)))
            connection.execute(delete(runs).where(runs.c.conversation_id == conversation_id))
            connection.execute(
                delete(messages).where(messages.c.conversation_id == conversation_id)
            )
            connection.execute(delete(conversations).where(conversations.c.id == conversation_id))

        self._database.write(delete_one)
        self._wake()

    def add_message(
        self,
        user_id: str,
        conversation_id: str,
        role: str,
        content: Mapping[str, Any],
        *,
        parent_id: str | None = None,
    ) -> str:
        """Adds a turn under a parent (None: a first turn) and returns its id."""
        now_ms = self._now_ms()

        def add(connection: Connection) -> str:
            _owned(connection, user_id, conversation_id)
            return _insert_message(connection, conversation_id, role, content, parent_id, now_ms)

        return self._database.write(add)

    def start_run(
        self,
        user_id: str,
        conversation_id: str,
        *,
        parent_id: str,
        request_id: str | None = None,
    ) -> Run:
        """Begins an answer under a message; its text is kept as it comes."""
        now_ms = self._now_ms()
        run_id = new_id("run")

        def start(connection: Connection) -> str:
            _owned(connection, user_id, conversation_id)
            message_id = _insert_message(
                connection, conversation_id, "assistant", {}, parent_id, now_ms
            )
            row = {
                "id": run_id,
                "user_id": user_id,
                "conversation_id": conversation_id,
                "message_id": message_id,
                "request_id": request_id,
                "instance_id": self._instance_id,
                "state": "running",
                "created_ms": now_ms,
                "updated_ms": now_ms,
            }
            connection.execute(insert(runs), row)
            return message_id

        message_id = self._database.write(start)
        return Run(run_id, conversation_id, message_id, request_id, "running", False, 0)

    def append(
        self,
        run_id: str,
        events: Sequence[tuple[str, Mapping[str, Any]]],
        *,
        counts: TokenCounts | None = None,
    ) -> Run:
        """Adds (kind, data) events, and the request's token counts with them, in one transaction.

        Raises RequestClosed if the run ended meanwhile. The answer says whether to stop.
        """
        now_ms = self._now_ms()

        def add(connection: Connection) -> Run:
            run = _append(connection, run_id, events, now_ms)
            if counts is not None and run.request_id is not None:
                log_counts(connection, request_id=run.request_id, counts=counts, now_ms=now_ms)
            return run

        run = self._database.write(add)
        self._wake()
        return run

    def finish(self, run_id: str, state: RunState = "finished", *, reason: str = "") -> None:
        """Ends a run with a last `end` event; its text becomes the message. Again does nothing.

        The reason stays with the message when the events are forgotten.
        """
        self._end(run_id, state, reason)

    def interrupt(self, run_id: str) -> None:
        """Ends a run whose server died."""
        self._end(run_id, "interrupted", "the server stopped")

    def request_stop(self, user_id: str, run_id: str) -> Run:
        """Asks the run's server to stop; again, or after the end, does nothing."""
        mine = (runs.c.id == run_id, runs.c.user_id == user_id)

        def ask(connection: Connection) -> Run:
            connection.execute(update(runs).where(*mine).values(stop_requested=1))
            return _run_of(_one_run(connection, user_id, run_id))

        return self._database.write(ask)

    def run(self, user_id: str, run_id: str) -> Run:
        """The state of a run."""
        return self._database.read(
            lambda connection: _run_of(_one_run(connection, user_id, run_id))
        )

    def read(
        self, user_id: str, run_id: str, *, after_sequence: int = 0, limit: int = 1000
    ) -> tuple[Run, list[RunEvent]]:
        """The events after a number, in order. Events of ended runs are kept for a day."""
        query = (
            select(run_events)
            .where(run_events.c.run_id == run_id, run_events.c.sequence > after_sequence)
            .order_by(run_events.c.sequence)
            .limit(limit)
        )

        def read(connection: Connection) -> tuple[Run, list[RunEvent]]:
            run = _run_of(_one_run(connection, user_id, run_id))
            return run, [
                RunEvent(row.sequence, row.kind, json.loads(row.data))
                for row in connection.execute(query)
            ]

        return self._database.read(read)

    def wait(
        self, user_id: str, run_id: str, *, after_sequence: int, timeout_seconds: float
    ) -> tuple[Run, list[RunEvent]]:
        """`read`, but waits for an event, the end of the run, or the timeout."""
        until = time.monotonic() + timeout_seconds
        while True:
            run, events = self.read(user_id, run_id, after_sequence=after_sequence)
            left = until - time.monotonic()
            if events or run.state != "running" or left <= 0:
                return run, events
            with self._changed:
                self._changed.wait(min(left, _POLL_SECONDS))

    def forget_events(self) -> None:
        """Deletes the events of runs that ended a day ago; their text stays in the messages."""
        old = select(runs.c.id).where(
            runs.c.state != "running", runs.c.updated_ms < self._now_ms() - _EVENTS_KEPT_MS
        )
        statement = delete(run_events).where(run_events.c.run_id.in_(old))
        self._database.write(lambda connection: connection.execute(statement).rowcount)

    def _end(self, run_id: str, state: RunState, reason: str) -> None:
        if state == "running":
            raise RequestError("state=running does not end a run; use finished or stopped")
        now_ms = self._now_ms()

        def end(connection: Connection) -> None:
            locked = select(runs).where(runs.c.id == run_id).with_for_update()
            row = connection.execute(locked).one_or_none()
            if row is None or row.state != "running":
                return
            _append(connection, run_id, [("end", {"state": state, "reason": reason})], now_ms)
            content = json.dumps(_text_of(connection, run_id), ensure_ascii=False)
            message = update(messages).where(messages.c.id == row.message_id)
            connection.execute(message.values(content=content))
            ended = update(runs).where(runs.c.id == run_id)
            connection.execute(ended.values(state=state, reason=reason))

        self._database.write(end)
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def _append(
    connection: Connection,
    run_id: str,
    events: Sequence[tuple[str, Mapping[str, Any]]],
    now_ms: int,
) -> Run:
    advanced = (
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == "running")
        .values(last_sequence=runs.c.last_sequence + len(events), updated_ms=now_ms)
        .returning(*runs.c)
    )
    row = connection.execute(advanced).one_or_none()
    if row is None:
        raise RequestClosed(f"run {run_id} has ended; write no more to it")
    first = row.last_sequence - len(events) + 1
    rows = [
        {
            "run_id": run_id,
            "sequence": first + index,
            "kind": kind,
            "data": json.dumps(dict(data), ensure_ascii=False),
        }
        for index, (kind, data) in enumerate(events)
    ]
    if rows:
        connection.execute(insert(run_events), rows)
    return _run_of(row)


def _text_of(connection: Connection, run_id: str) -> dict[str, str]:
    query = (
        select(run_events.c.kind, run_events.c.data)
        .where(run_events.c.run_id == run_id, run_events.c.kind.in_(TEXT_KINDS))
        .order_by(run_events.c.sequence)
    )
    parts: dict[str, list[str]] = {kind: [] for kind in TEXT_KINDS}
    for kind, data in connection.execute(query):
        parts[kind].append(json.loads(data).get("text", ""))
    return {kind: "".join(texts) for kind, texts in parts.items()}


def _insert_message(
    connection: Connection,
    conversation_id: str,
    role: str,
    content: Mapping[str, Any],
    parent_id: str | None,
    now_ms: int,
) -> str:
    if parent_id is not None:
        inside = (messages.c.id == parent_id, messages.c.conversation_id == conversation_id)
        if connection.execute(select(messages.c.id).where(*inside)).first() is None:
            raise NotFound(f"message {parent_id} does not exist; reload the conversation")
    message_id = new_id("msg")
    counted = (
        update(conversations)
        .where(conversations.c.id == conversation_id)
        .values(updated_ms=now_ms, num_messages=conversations.c.num_messages + 1)
        .returning(conversations.c.num_messages)
    )
    row = {
        "id": message_id,
        "conversation_id": conversation_id,
        "number": connection.execute(counted).scalar_one(),
        "parent_id": parent_id,
        "role": role,
        "content": json.dumps(dict(content), ensure_ascii=False),
        "created_ms": now_ms,
    }
    connection.execute(insert(messages), row)
    return message_id


def _owned(connection: Connection, user_id: str, conversation_id: str) -> Row[Any]:
    mine = (conversations.c.id == conversation_id, conversations.c.user_id == user_id)
    row = connection.execute(select(conversations).where(*mine)).one_or_none()
    if row is None:
        raise NotFound(f"conversation {conversation_id} does not exist; list your conversations")
    return row


def _one_run(connection: Connection, user_id: str, run_id: str) -> Row[Any]:
    mine = (runs.c.id == run_id, runs.c.user_id == user_id)
    row = connection.execute(select(runs).where(*mine)).one_or_none()
    if row is None:
        raise NotFound(f"run {run_id} does not exist; reload the conversation")
    return row


def _conversation_of(row: Row[Any]) -> Conversation:
    return Conversation(row.id, row.title, row.created_ms / 1000, row.updated_ms / 1000)


def _message_of(row: Row[Any]) -> Message:
    return Message(
        id=row.id,
        parent_id=row.parent_id,
        role=row.role,
        content=json.loads(row.content),
        created_seconds=row.created_ms / 1000,
        run_id=row.run_id,
        run_state=row.run_state,
        run_reason=row.run_reason,
    )


def _run_of(row: Row[Any]) -> Run:
    return Run(
        id=row.id,
        conversation_id=row.conversation_id,
        message_id=row.message_id,
        request_id=row.request_id,
        state=row.state,
        stop_requested=bool(row.stop_requested),
        last_sequence=row.last_sequence,
    )
