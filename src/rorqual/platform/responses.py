"""Answers of /v1/responses, kept so that the next request can follow them.

A response holds its own input and output and the id of the one before it; a history is read along
these ids. What is deleted is therefore gone from every history, and a history with a gap is refused
rather than shortened. Every query names the user; what belongs to another is not there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, literal, select

from rorqual.config.server import ResponsesConfig
from rorqual.errors import RequestError
from rorqual.platform.database import Database
from rorqual.platform.errors import NotFound
from rorqual.platform.tables import responses

_DAY_MS = 86_400_000
_PARAM = "previous_response_id"
Items = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One answer: what was sent for it, what came, and the rest of the response object."""

    id: str
    input: Items
    output: Items
    body: Mapping[str, Any]


class Responses:
    """Keeps responses, the newest of each account, for a while."""

    def __init__(
        self, database: Database, config: ResponsesConfig, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._config = config
        self._clock = clock

    def save(self, user_id: str, response: StoredResponse, *, previous_id: str | None) -> None:
        """Keeps a response; the account's oldest makes room for it."""
        texts = [_to_json(part) for part in (response.input, response.output, response.body)]
        row = {
            "id": response.id,
            "user_id": user_id,
            "previous_id": previous_id,
            "input": texts[0],
            "output": texts[1],
            "body": texts[2],
            "size_bytes": sum(len(text.encode()) for text in texts),
            "created_ms": self._now_ms(),
        }
        surplus = (
            select(responses.c.id)
            .where(responses.c.user_id == user_id)
            .order_by(responses.c.created_ms.desc())
            .offset(self._config.max_per_account)
        )

        def save(connection: Connection) -> None:
            connection.execute(insert(responses), row)
            connection.execute(delete(responses).where(responses.c.id.in_(surplus)))

        self._database.write(save)

    def get(self, user_id: str, response_id: str) -> StoredResponse:
        """One response."""
        query = select(responses).where(*_mine(user_id, response_id))
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise _absent(response_id)
        return _response_of(row)

    def delete(self, user_id: str, response_id: str) -> None:
        """Deletes a response; those that follow it lose their history with it."""
        statement = delete(responses).where(*_mine(user_id, response_id))
        if not self._database.write(lambda connection: connection.execute(statement).rowcount):
            raise _absent(response_id)

    def history(
        self, user_id: str, response_id: str, *, max_responses: int, max_bytes: int
    ) -> list[StoredResponse]:
        """A response and all those before it, oldest first."""
        first = select(
            responses.c.id,
            responses.c.previous_id,
            responses.c.size_bytes,
            literal(1).label("depth"),
        ).where(*_mine(user_id, response_id))
        chain = first.cte("chain", recursive=True)
        before = responses.alias()
        chain = chain.union_all(
            select(before.c.id, before.c.previous_id, before.c.size_bytes, chain.c.depth + 1).where(
                before.c.id == chain.c.previous_id,
                before.c.user_id == user_id,
                chain.c.depth <= max_responses,
            )
        )
        links = select(chain).order_by(chain.c.depth.desc())

        def read(connection: Connection) -> list[StoredResponse]:
            found = connection.execute(links).all()
            if not found:
                raise _absent(response_id, _PARAM)
            if len(found) > max_responses:
                raise RequestError(
                    f"{_PARAM}: more than {max_responses} responses follow each other; "
                    "send their items as input",
                    param=_PARAM,
                )
            if found[0].previous_id is not None:
                raise _absent(found[0].previous_id, _PARAM)
            _check_size(found, max_bytes, _PARAM)
            ids = [link.id for link in found]
            query = select(responses).where(responses.c.id.in_(ids))
            by_id = {row.id: _response_of(row) for row in connection.execute(query)}
            return [by_id[link] for link in ids]

        return self._database.read(read)

    def some(
        self, user_id: str, response_ids: Sequence[str], *, max_bytes: int
    ) -> dict[str, StoredResponse]:
        """Those of these responses that are there."""
        mine = (responses.c.id.in_(response_ids), responses.c.user_id == user_id)
        sizes = select(responses.c.size_bytes).where(*mine)

        def read(connection: Connection) -> dict[str, StoredResponse]:
            _check_size(connection.execute(sizes).all(), max_bytes, "input")
            rows = connection.execute(select(responses).where(*mine))
            return {row.id: _response_of(row) for row in rows}

        return self._database.read(read)

    def forget_old(self) -> None:
        """Deletes what is past its days."""
        oldest_ms = self._now_ms() - round(self._config.keep_days * _DAY_MS)
        statement = delete(responses).where(responses.c.created_ms < oldest_ms)
        self._database.write(lambda connection: connection.execute(statement).rowcount)

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def _mine(user_id: str, response_id: str) -> tuple[Any, Any]:
    return responses.c.id == response_id, responses.c.user_id == user_id


def _check_size(rows: Sequence[Row[Any]], max_bytes: int, param: str) -> None:
    size_bytes = sum(row.size_bytes for row in rows)
    if size_bytes > max_bytes:
        raise RequestError(
            f"{param}: what it names is {size_bytes} bytes; at most {max_bytes}, send less",
            code="context_length_exceeded",
            param=param,
        )


def _response_of(row: Row[Any]) -> StoredResponse:
    return StoredResponse(
        row.id, json.loads(row.input), json.loads(row.output), json.loads(row.body)
    )


def _absent(response_id: str, param: str | None = None) -> NotFound:
    return NotFound(
        f"response {response_id} does not exist: it was not kept, or deleted, or is too old",
        param=param,
    )


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
