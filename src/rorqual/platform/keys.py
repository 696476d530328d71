"""API keys: shown once, stored hashed, limited by model, money and date, revoked at once.

A key is good or not by what the database says, at each request: by a look at it, or by the
reservation, which fails without it. A key is hashed before it reaches a query.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, or_, select, update

from rorqual.errors import RequestError
from rorqual.platform.accounts import User, account_locked, user_of
from rorqual.platform.database import Database
from rorqual.platform.errors import NotAllowed, NotAuthenticated, NotFound
from rorqual.platform.secret_text import hash_secret, looks_like_key, new_id, new_key
from rorqual.platform.statements import Statement
from rorqual.platform.tables import api_keys, users

_USED = (
    update(api_keys)
    .where(
        api_keys.c.id == bindparam("of_key"),
        or_(api_keys.c.last_used_ms.is_(None), api_keys.c.last_used_ms < bindparam("moment")),
    )
    .values(last_used_ms=bindparam("moment"))
)
_KEY_COLUMNS = [column.label(f"key_{column.name}") for column in api_keys.c]
_BY_HASH = Statement(
    select(users, *_KEY_COLUMNS)
    .join(api_keys, api_keys.c.user_id == users.c.id)
    .where(api_keys.c.key_hash == bindparam("hash"))
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner sees it after it was made: everything but the key."""

    id: str
    user_id: str
    name: str
    hint: str
    models: tuple[str, ...] | None
    cap_nano: int | None
    spent_nano: int
    created_seconds: float
    expires_seconds: float | None
    revoked_seconds: float | None
    last_used_seconds: float | None

    def has_expired(self, now_seconds: float) -> bool:
        """Whether its time is over."""
        return self.expires_seconds is not None and self.expires_seconds <= now_seconds

    def require_model(self, model: str) -> None:
        """Raises NotAllowed if the key is limited to other models."""
        if self.models is not None and model not in self.models:
            raise NotAllowed(
                f"model={model} is not among the models of this key ({', '.join(self.models)})",
                code="model_not_allowed",
                param="model",
            )


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `secret` cannot be had again."""

    secret: str
    key: ApiKey


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, and with which key."""

    user: User
    key: ApiKey


class ApiKeys:
    """Makes, checks and revokes keys."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._used_ms: dict[str, int] = {}

    def create(
        self,
        user_id: str,
        name: str,
        *,
        models: Sequence[str] | None = None,
        cap_nano: int | None = None,
        expires_seconds: float | None = None,
    ) -> NewKey:
        """A new key. cap_nano limits what it may ever spend; expires_seconds is a moment."""
        if cap_nano is not None and cap_nano < 0:
            raise RequestError(f"cap_nano={cap_nano} is negative; expected 0 or more", param="cap")
        secret = new_key()
        key_id = new_id("key")
        row = {
            "id": key_id,
            "user_id": user_id,
            "name": name[:200],
            "key_hash": hash_secret(secret),
            "hint": secret[-4:],
            "models": None if models is None else json.dumps(list(models)),
            "cap_nano": cap_nano,
            "created_ms": self._now_ms(),
            "expires_ms": None if expires_seconds is None else round(expires_seconds * 1000),
        }

        def create_one(connection: Connection) -> Row[Any]:
            owner = connection.execute(select(users.c.id).where(users.c.id == user_id)).first()
            if owner is None:
                raise NotFound(f"user {user_id} does not exist; list the users")
            connection.execute(insert(api_keys), row)
            return connection.execute(_select_keys().where(api_keys.c.id == key_id)).one()

        return NewKey(secret, _key_of(self._database.write(create_one)))

    def authenticate(self, text: str) -> Caller:
        """Who this key belongs to. A mistyped key is refused without asking the database."""
        if not looks_like_key(text):
            raise NotAuthenticated(
                "the API key is malformed: its checksum does not fit; copy it whole",
                code="invalid_api_key",
            )
        row = self._database.read_one(_BY_HASH, {"hash": hash_secret(text)})
        if row is None or row.key_revoked_ms is not None:
            raise bad_key()
        key = _key_of(row)
        if row.locked_ms is not None and not key.has_expired(self._clock()):
            raise account_locked()
        self.use(key)
        return Caller(user_of(row), key)

    def use(self, key: ApiKey) -> None:
        """A request comes with it; NotAuthenticated if it has expired."""
        now_seconds = self._clock()
        if key.has_expired(now_seconds):
            raise bad_key()
        with self._lock:
            self._used_ms[key.id] = round(now_seconds * 1000)

    def note_uses(self) -> None:
        """Writes down when keys were used since the last call, all in one transaction.

        The server calls it every few seconds: a request costs no write, and a crash loses at most
        the last of these times.
        """
        with self._lock:
            used_ms, self._used_ms = self._used_ms, {}
        if used_ms:
            rows = [{"of_key": key_id, "moment": ms} for key_id, ms in sorted(used_ms.items())]
            self._database.write(lambda connection: connection.execute(_USED, rows).rowcount)

    def of_user(self, user_id: str) -> list[ApiKey]:
        """A user's keys, newest first, revoked ones included."""
        query = (
            _select_keys()
            .where(api_keys.c.user_id == user_id)
            .order_by(api_keys.c.created_ms.desc(), api_keys.c.id)
        )
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [_key_of(row) for row in rows]

    def revoke(self, user_id: str, key_id: str) -> None:
        """Ends a key of this user, from the next request on; again does nothing."""
        mine = (api_keys.c.id == key_id, api_keys.c.user_id == user_id)
        statement = (
            update(api_keys)
            .where(*mine, api_keys.c.revoked_ms.is_(None))
            .values(revoked_ms=self._now_ms())
        )

        def revoke_one(connection: Connection) -> bool:
            connection.execute(statement)
            return connection.execute(select(api_keys.c.id).where(*mine)).first() is not None

        if not self._database.write(revoke_one):
            raise NotFound(f"API key {key_id} does not exist; list your keys")

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def bad_key() -> NotAuthenticated:
    """Which of the three it is, is not told."""
    return NotAuthenticated(
        "the API key is unknown, expired or revoked; make a new one", code="invalid_api_key"
    )


def _select_keys() -> Any:
    return select(*_KEY_COLUMNS)


def _key_of(row: Any) -> ApiKey:
    def seconds(milliseconds: int | None) -> float | None:
        return None if milliseconds is None else milliseconds / 1000

    return ApiKey(
        id=row.key_id,
        user_id=row.key_user_id,
        name=row.key_name,
        hint=row.key_hint,
        models=None if row.key_models is None else tuple(json.loads(row.key_models)),
        cap_nano=row.key_cap_nano,
        spent_nano=row.key_spent_nano,
        created_seconds=row.key_created_ms / 1000,
        expires_seconds=seconds(row.key_expires_ms),
        revoked_seconds=seconds(row.key_revoked_ms),
        last_used_seconds=seconds(row.key_last_used_ms),
    )
