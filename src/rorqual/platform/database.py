"""Transactions: SQLite with group commit, or PostgreSQL, behind the same three calls.

An operation is a function of a connection that may be run again from the start (PostgreSQL may ask
for that after a deadlock); it computes and writes, and touches nothing else. When `write` returns,
the operation is on disk: SQLite runs in WAL mode and we sync its log, PostgreSQL has its default
synchronous commit. With synced=False it is only committed: a kill of ours cannot lose it, a power
cut can, unless something synced was committed after it.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from rorqual.config.server import DatabaseConfig
from rorqual.errors import ConfigError
from rorqual.platform.group_commit import GroupCommitWriter, discard, named_failure
from rorqual.platform.statements import Statement, run_text

T = TypeVar("T")
Operation = Callable[[Connection], T]

SQLITE_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
_LEAVE_TO_LATER: Final = "SET LOCAL synchronous_commit TO off"  # PostgreSQL
_RETRIED_STATES: Final = {"40001", "40P01"}  # serialization failure, deadlock
_ATTEMPTS: Final = 5


class Database:
    """One database, open: `write` and `submit` commit durably, `read` sees one snapshot."""

    def __init__(self, config: DatabaseConfig) -> None:
        self.url = _driver_url(config.url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._reader = _make_engine(self.url, config, readonly=True)
        if self.is_sqlite:
            self._engine = _make_engine(self.url, config, readonly=False)
            self._writer = GroupCommitWriter(
                self._engine, config.max_commit_operations, config.lock_timeout_seconds
            )
        else:
            self._engine = self._reader
            self._pool = ThreadPoolExecutor(config.max_connections, "rorqual-database")
        self._look: Connection | None = None
        self._look_lock = threading.Lock()
        self._close_once = threading.Lock()
        self._closed = False

    def submit(self, operation: Operation[T], *, synced: bool = True) -> "Future[T]":
        """Starts an operation; the future resolves once it is committed, and synced if wanted."""
        if self.is_sqlite:
            return self._writer.submit(operation, synced=synced)
        return self._pool.submit(self._write_directly, operation, synced)

    def submit_small(self, operation: Operation[T], *, synced: bool = True) -> "Future[T]":
        """`submit` of a few rows' work: with SQLite the caller may do it at once, but for the
        sync."""
        done = self._writer.run_at_once(operation, synced=synced) if self.is_sqlite else None
        return self.submit(operation, synced=synced) if done is None else done

    def write(self, operation: Operation[T], *, synced: bool = True) -> T:
        """Runs an operation in a transaction; returns once it is committed, and synced if
        wanted."""
        if self.is_sqlite:
            return self._writer.submit(operation, synced=synced).result()
        return self._write_directly(operation, synced)

    def read(self, operation: Operation[T]) -> T:
        """Runs an operation that only reads, on one consistent snapshot."""
        try:
            with self._reader.begin() as connection:
                return operation(connection)
        except OperationalError as error:
            raise named_failure(error) from error

    def read_one(self, statement: Statement, values: Mapping[str, Any]) -> Any | None:
        """One row of one statement, None if there is none. No transaction is opened for it.

        With SQLite all calls share one connection, which is kept: a look takes some microseconds.
        """
        try:
            if not self.is_sqlite:
                with self._reader.connect() as connection:
                    return statement.one(connection, values)
            with self._look_lock:
                self._look = self._look or self._reader.connect()
                try:
                    return statement.one(self._look, values)
                except OperationalError:
                    discard(self._look)
                    self._look = None
                    raise
        except OperationalError as error:
            raise named_failure(error) from error

    @property
    def engine(self) -> Engine:
        """For migrations, which run before anything else writes."""
        return self._engine

    @property
    def commit_counts(self) -> tuple[int, int]:
        """(commits, operations) of the group-commit writer; (0, 0) on PostgreSQL."""
        if self.is_sqlite:
            return self._writer.num_commits, self._writer.num_operations
        return 0, 0

    def close(self) -> None:
        """Finishes what was submitted and closes every connection."""
        with self._close_once:
            if self._closed:
                return
            self._closed = True
        if self.is_sqlite:
            self._writer.close()
        else:
            self._pool.shutdown()
        with self._look_lock:
            if self._look is not None:
                self._look.close()
        self._engine.dispose()
        self._reader.dispose()

    def _write_directly(self, operation: Operation[T], synced: bool) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._engine.begin() as connection:
                    if not synced:
                        run_text(connection, _LEAVE_TO_LATER)
                    return operation(connection)
            except DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                if state not in _RETRIED_STATES or attempt == _ATTEMPTS:
                    raise named_failure(error) from error
        raise AssertionError("unreachable")


def _driver_url(url: str) -> URL:
    parsed = make_url(url)
    return (
        parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed
    )


def _make_engine(url: URL, config: DatabaseConfig, *, readonly: bool) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_size=config.max_connections, max_overflow=0)
    assert url.database is not None
    _create_private(Path(url.database))
    engine = create_engine(
        url,
        pool_size=config.max_connections if readonly else 1,
        max_overflow=2,  # some are kept: by `read_one`, by the writer
        connect_args={"check_same_thread": False, "timeout": config.lock_timeout_seconds},
    )

    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own BEGIN is deferred: two processes that read first could then not both
        # write. Transactions are begun below instead.
        connection.isolation_level = None
        for pragma in SQLITE_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        if readonly:
            connection.execute("PRAGMA query_only=ON")

    def begin(connection: Connection) -> None:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        if not raw.in_transaction:  # the writer begins by itself
            run_text(connection, "BEGIN" if readonly else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _create_private(path: Path) -> None:
    """An empty file that only its owner reads; SQLite gives its WAL the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigError(
            f"database.url: cannot open {path}: {error.strerror}; name a file that can be written"
        ) from error
