"""Users and their logins.

A wrong name and a wrong password give the same error after the same time. Session tokens are opaque
and random; the database holds only their hashes, so that a copied database opens no session.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, delete, func, insert, select, update

from rorqual.config.server import AccountsConfig
from rorqual.errors import RequestError
from rorqual.platform.database import Database
from rorqual.platform.errors import NotAllowed, NotAuthenticated, NotFound, RegistrationClosed
from rorqual.platform.gate import Gate, Proof
from rorqual.platform.passwords import Passwords
from rorqual.platform.secret_text import hash_secret, new_id, new_secret
from rorqual.platform.statements import insert_if_absent
from rorqual.platform.tables import sessions, users

Role = Literal["user", "admin"]
LOCAL_NAME: Final = "local"
_MAX_NAME_CHARACTERS: Final = 254


@dataclass(frozen=True, slots=True)
class User:
    """One account."""

    id: str
    name: str
    role: Role
    locked: bool
    created_seconds: float
    balance_nano: int


@dataclass(frozen=True, slots=True)
class Login:
    """A fresh session; the token is shown this once."""

    token: str
    user: User
    expires_seconds: float


class Accounts:
    """Makes, finds and locks users; opens and closes their sessions."""

    def __init__(
        self,
        database: Database,
        config: AccountsConfig,
        gate: Gate,
        *,
        registration_open: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._config = config
        self._passwords = Passwords(config)
        self._registration_open = registration_open
        self._clock = clock
        self.gate = gate

    # Users

    def register(self, name: str, password: str, *, address: str, proof: Proof | None) -> User:
        """A new user, by the user's own wish; NotAllowed asks for a proof of work."""
        if self._config.registration == "closed":
            raise RegistrationClosed("registration is closed; ask an administrator", 86_400)
        if not self._registration_open():
            raise RegistrationClosed("registration is closed while the server is overloaded", 300)
        self.gate.pass_registration(address, proof)
        return self.create(name, password)

    def create(self, name: str, password: str | None, role: Role = "user") -> User:
        """A new user, by an administrator's wish. Without a password it has keys only."""
        normal = normal_name(name)
        encoded = None if password is None else self._passwords.hash(password)
        row = {
            "id": new_id("user"),
            "name": normal,
            "password_hash": encoded,
            "role": role,
            "created_ms": self._now_ms(),
            "balance_nano": 0,
        }
        if normal == LOCAL_NAME or not self._database.write(
            lambda connection: insert_if_absent(connection, users, row)
        ):
            raise RequestError(
                f"name={name!r} is taken; choose another", code="name_taken", param="name"
            )
        return self.get(str(row["id"]))

    def local_user(self) -> User:
        """The one user of local mode, made on first use."""
        row = {
            "id": "user_local",
            "name": LOCAL_NAME,
            "role": "admin",
            "created_ms": self._now_ms(),
        }
        self._database.write(lambda connection: insert_if_absent(connection, users, row))
        return self.get("user_local")

    def get(self, user_id: str) -> User:
        """The user of this id, or NotFound."""
        return self._find(users.c.id == user_id, f"user {user_id}")

    def by_name(self, name: str) -> User:
        """The user of this name, or NotFound."""
        return self._find(users.c.name == normal_name(name), f"user {name!r}")

    def page(self, *, limit: int = 100, offset: int = 0) -> list[User]:
        """Users by name."""
        query = select(users).order_by(users.c.name).limit(limit).offset(offset)
        return [user_of(row) for row in self._database.read(lambda conn: conn.execute(query).all())]

    def count(self) -> int:
        """How many users there are."""
        query = select(func.count()).select_from(users)
        return self._database.read(lambda connection: connection.execute(query).scalar_one())

    def set_locked(self, user_id: str, locked: bool) -> User:
        """Locks a user out, sessions and keys included, or lets it in again."""
        return self._change(user_id, {"locked_ms": self._now_ms() if locked else None})

    def set_role(self, user_id: str, role: Role) -> User:
        """Makes a user an administrator, or not one."""
        return self._change(user_id, {"role": role})

    def set_password(self, user_id: str, password: str) -> User:
        """A new password; it ends every session of the user."""
        user = self._change(user_id, {"password_hash": self._passwords.hash(password)})
        self.end_sessions(user_id)
        return user

    # Sessions

    def login(
        self,
        name: str,
        password: str,
        *,
        address: str,
        label: str = "",
        proof: Proof | None = None,
    ) -> Login:
        """A session for the right name and password; NotAllowed may ask for a proof of work."""
        try:
            normal = normal_name(name)
        except RequestError:
            raise _wrong_credentials() from None
        self.gate.pass_login(normal, address, proof)
        query = select(users).where(users.c.name == normal)
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        encoded = None if row is None else row.password_hash
        if not self._passwords.matches(encoded, password) or row is None:
            self.gate.note_failure(normal)
            raise _wrong_credentials()
        if row.locked_ms is not None:
            raise account_locked()
        if self._passwords.is_outdated(row.password_hash):
            self._change(row.id, {"password_hash": self._passwords.hash(password)})
        return self.open_session(row.id, label=label)

    def open_session(self, user_id: str, *, label: str = "") -> Login:
        """A session without a password: for single sign-on, once it has vouched for the user."""
        token = new_secret()
        now_ms = self._now_ms()
        expires_ms = now_ms + round(self._config.session_days * 86_400_000)

        def open_one(connection: Connection) -> User:
            connection.execute(delete(sessions).where(sessions.c.expires_ms < now_ms))
            connection.execute(
                insert(sessions),
                {
                    "token_hash": hash_secret(token),
                    "user_id": user_id,
                    "label": label[:200],
                    "created_ms": now_ms,
                    "expires_ms": expires_ms,
                },
            )
            return user_of(connection.execute(select(users).where(users.c.id == user_id)).one())

        return Login(token, self._database.write(open_one), expires_ms / 1000)

    def session(self, token: str) -> User:
        """Whose session this is; NotAuthenticated if it is unknown, over or ended."""
        query = (
            select(users)
            .join(sessions, sessions.c.user_id == users.c.id)
            .where(
                sessions.c.token_hash == hash_secret(token),
                sessions.c.revoked_ms.is_(None),
                sessions.c.expires_ms > self._now_ms(),
            )
        )
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise NotAuthenticated("the session is unknown or over; log in", code="no_session")
        if row.locked_ms is not None:
            raise account_locked()
        return user_of(row)

    def logout(self, token: str) -> None:
        """Ends one session; ending it again does nothing."""
        self._revoke(sessions.c.token_hash == hash_secret(token))

    def end_sessions(self, user_id: str) -> None:
        """Ends every session of a user."""
        self._revoke(sessions.c.user_id == user_id)

    def _revoke(self, condition: Any) -> None:
        statement = (
            update(sessions)
            .where(condition, sessions.c.revoked_ms.is_(None))
            .values(revoked_ms=self._now_ms())
        )
        self._database.write(lambda connection: connection.execute(statement).rowcount)

    def _find(self, condition: Any, what: str) -> User:
        query = select(users).where(condition)
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise NotFound(f"{what} does not exist; list the users")
        return user_of(row)

    def _change(self, user_id: str, values: dict[str, object]) -> User:
        statement = update(users).where(users.c.id == user_id).values(**values)
        changed = self._database.write(lambda connection: connection.execute(statement).rowcount)
        if not changed:
            raise NotFound(f"user {user_id} does not exist; list the users")
        return self.get(user_id)

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def normal_name(name: str) -> str:
    """The one spelling under which a name is kept: NFKC, case-folded, without outer spaces."""
    normal = unicodedata.normalize("NFKC", name).strip().casefold()
    if not 1 <= len(normal) <= _MAX_NAME_CHARACTERS or not normal.isprintable():
        raise RequestError(
            f"name of {len(normal)} characters: expected 1 to {_MAX_NAME_CHARACTERS}, printable",
            code="bad_name",
            param="name",
        )
    return normal


def user_of(row: Any) -> User:
    """A row of `users`, without its password hash."""
    return User(
        id=row.id,
        name=row.name,
        role=row.role,
        locked=row.locked_ms is not None,
        created_seconds=row.created_ms / 1000,
        balance_nano=row.balance_nano,
    )


def account_locked() -> NotAllowed:
    """Said only to who has already shown that the account is theirs."""
    return NotAllowed("this account is locked; ask an administrator", code="account_locked")


def _wrong_credentials() -> NotAuthenticated:
    return NotAuthenticated("name or password is wrong")
