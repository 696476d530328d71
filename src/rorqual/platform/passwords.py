"""Passwords: argon2id, a few at a time.

A hash costs tens of milliseconds and megabytes by design, which makes it a lever for flooding. So
only `hash_slots` run at once, the rest wait a while and are then refused; and an unknown name costs
the same hash as a known one, so that time does not tell who has an account.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from rorqual.config.server import AccountsConfig
from rorqual.errors import RequestError
from rorqual.platform.errors import Busy

_MAX_PASSWORD_CHARACTERS = 1024


class Passwords:
    """Hashes and checks passwords within a budget of memory and threads."""

    def __init__(self, config: AccountsConfig) -> None:
        self._hasher = PasswordHasher(
            time_cost=config.hash_passes,
            memory_cost=config.hash_memory_bytes // 1024,
            parallelism=1,
        )
        self._slots = threading.BoundedSemaphore(config.hash_slots)
        self._wait_seconds = config.hash_wait_seconds
        self._min_characters = config.min_password_characters
        self._decoy = self._hasher.hash("nobody's password")

    def hash(self, password: str) -> str:
        """The encoded argon2id hash of an acceptable password."""
        if not self._min_characters <= len(password) <= _MAX_PASSWORD_CHARACTERS:
            raise RequestError(
                f"password has {len(password)} characters; use {self._min_characters} to "
                f"{_MAX_PASSWORD_CHARACTERS}",
                code="weak_password",
                param="password",
            )
        with self._slot():
            return self._hasher.hash(password.encode("utf-8", "surrogatepass"))

    def matches(self, encoded: str | None, password: str) -> bool:
        """Whether the password is the one; None (no such account) costs as much and is False."""
        known = encoded is not None and len(password) <= _MAX_PASSWORD_CHARACTERS
        tried = password[:_MAX_PASSWORD_CHARACTERS].encode("utf-8", "surrogatepass")
        with self._slot():
            try:
                self._hasher.verify(encoded or self._decoy, tried)
            except (VerificationError, InvalidHashError):
                return False
        return known

    def is_outdated(self, encoded: str) -> bool:
        """Whether the hash was made with other costs than today's."""
        return self._hasher.check_needs_rehash(encoded)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(timeout=self._wait_seconds):
            raise Busy("all password hashers are busy; try again", self._wait_seconds)
        try:
            yield
        finally:
            self._slots.release()
