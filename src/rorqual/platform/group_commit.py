"""Group commit for SQLite: a thread writes, and one synced commit carries many operations.

SQLite has one writer at a time, and a commit that survives power loss costs an fsync. So callers
hand their operation to one thread, which runs whatever has gathered while the last commit was being
synced (a failing one takes back only itself) and commits them together. A caller gets its answer
after the commit, never before.

An operation may be content with a commit that is not synced: it holds when the process dies, and a
power cut may take it back until the next synced commit, which carries all before it. A small one of
that kind is run by its caller, if nobody writes at the moment: the way to the thread and back costs
several times what SQLite does. So that no caller has to sync, the thread also moves the log into
the database, and writes what begins the next log, which SQLite syncs whatever it was told.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from rorqual.platform.errors import Busy
from rorqual.platform.statements import run_text

T = TypeVar("T")
SYNCHRONOUS: Final = {True: "FULL", False: "NORMAL"}  # SQLite's words, by whether it is synced
_CHECKPOINT_OPERATIONS: Final = 128  # of some eight pages of 4 KB each
# Of the caller's connection: it waits neither for a lock nor for a sync.
_AT_ONCE: Final = ("synchronous=NORMAL", "busy_timeout=0", "wal_autocheckpoint=0")


def named_failure(error: BaseException) -> BaseException:
    """Busy for what the database itself could not do (locked, disk full, gone); else the error."""
    if not isinstance(error, OperationalError):
        return error
    reason = " ".join(str(error.orig).split())
    busy = Busy(f"database: {reason}; check that it runs and that its disk has room", 2.0)
    busy.__cause__ = error
    return busy


@dataclass(slots=True)
class _Operation:
    run: Callable[[Connection], Any]
    future: Future[Any]
    synced: bool
    result: Any = None
    error: BaseException | None = None

    def deliver(self) -> None:
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(named_failure(self.error))


class GroupCommitWriter:
    """Runs operations of many threads in shared transactions, in the order they came."""

    def __init__(self, engine: Engine, max_operations: int) -> None:
        self._engine = engine
        self._max_operations = max_operations
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._held: list[_Operation | None] = []  # taken from the queue, for the next batch
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # whoever holds it writes
        self._at_once: Connection | None = None  # what callers write with; under that lock, too
        self._closed = False
        self._num_unmoved = 0  # operations in the log
        self.num_commits = 0
        self.num_operations = 0
        self._thread = threading.Thread(target=self._run, name="rorqual-writer", daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[Connection], T], *, synced: bool) -> "Future[T]":
        """The operation's result or error, once its transaction is committed, and on disk if
        synced."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # a half-done transaction cannot be cancelled
        with self._lock:
            if self._closed:
                raise RuntimeError("the database is closed")
            self._queue.put(_Operation(run, future, synced))
        return future

    def run_at_once(self, run: Callable[[Connection], T]) -> "Future[T] | None":
        """The operation done, committed and not synced; None if somebody else writes now, or if
        the connection for it cannot be had.

        The caller's thread does it, in a fraction of a millisecond, and does not wait.
        """
        if not self._queue.empty() or not self._writing.acquire(blocking=False):
            return None
        try:
            connection = None if self._closed else self._begin_at_once()
            if connection is None:
                return None
            operation = _Operation(run, Future(), synced=False)
            try:
                operation.result = run(connection)
                run_text(connection, "COMMIT")
                self.num_commits += 1
                self.num_operations += 1
                self._num_unmoved += 1
            except BaseException as error:
                operation.error = error
                self._take_back(connection)
            if connection.in_transaction():  # SQLAlchemy's own notion of it
                connection.commit()
        finally:
            self._writing.release()
        operation.deliver()
        return operation.future

    def _begin_at_once(self) -> Connection | None:
        try:
            if self._at_once is None:
                self._at_once = self._engine.connect()
                for pragma in _AT_ONCE:
                    run_text(self._at_once, f"PRAGMA {pragma}")
            raw = self._at_once.connection.driver_connection
            assert raw is not None
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # else another process writes
                self._leave_at_once()
            return None
        except (SQLAlchemyError, sqlite3.Error):  # the writer will say what it is
            self._leave_at_once()
            return None
        return self._at_once

    def _take_back(self, connection: Connection) -> None:
        try:
            run_text(connection, "ROLLBACK")
        except SQLAlchemyError:  # nothing of it is committed either way
            self._leave_at_once()

    def _leave_at_once(self) -> None:
        discard(self._at_once)
        self._at_once = None

    def close(self) -> None:
        """Commits what was submitted, then ends the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()
        with self._writing:
            self._leave_at_once()

    def _run(self) -> None:
        connection: Connection | None = None  # kept: to check one out costs as much as to use it
        level = None
        while (first := self._held.pop() if self._held else self._queue.get()) is not None:
            batch = [first]
            with self._writing:
                try:
                    if connection is None:
                        connection, level = self._engine.connect(), None
                        run_text(connection, "PRAGMA wal_autocheckpoint=0")
                    if level != SYNCHRONOUS[first.synced]:
                        level = SYNCHRONOUS[first.synced]
                        run_text(connection, f"PRAGMA synchronous={level}")
                    run_text(connection, "BEGIN IMMEDIATE")
                    self._run_batch(connection, batch)
                    run_text(connection, "COMMIT")
                    if connection.in_transaction():  # SQLAlchemy's own notion of it
                        connection.commit()
                except BaseException as error:  # begin or commit failed: nothing is on disk
                    for operation in batch:
                        operation.error = operation.error or error
                    discard(connection)
                    connection = None
                self.num_commits += 1
                self.num_operations += len(batch)
                self._num_unmoved += len(batch)
            for operation in batch:
                operation.deliver()
            if connection is not None and self._num_unmoved >= _CHECKPOINT_OPERATIONS:
                with self._writing:
                    self._move_log(connection)
        if connection is not None:
            connection.close()

    def _move_log(self, connection: Connection) -> None:
        """Moves the log into the database and begins the next one.

        What fails here (a reader may hold the log, a disk be full) has cost nobody anything: the
        log grows on, and whoever commits next hears of the disk.
        """
        self._num_unmoved = 0
        try:
            run_text(connection, "PRAGMA wal_checkpoint(PASSIVE)")
            (version,) = run_text(connection, "PRAGMA user_version").fetchone()
            # A write that changes nothing.
            run_text(connection, f"PRAGMA user_version={version}")
        except SQLAlchemyError:
            return

    def _run_batch(self, connection: Connection, batch: list[_Operation]) -> None:
        """Runs the first and adds what else has gathered, but no synced one to an unsynced."""
        self._run_first(connection, batch[0])
        while len(batch) < self._max_operations:
            try:
                operation = self._queue.get_nowait()
            except queue.Empty:
                return
            if operation is None or (operation.synced and not batch[0].synced):
                self._held.append(operation)
                return
            batch.append(operation)
            self._run_more(connection, operation)

    def _run_first(self, connection: Connection, operation: _Operation) -> None:
        """The only one in its transaction so far: what takes it back is the whole transaction."""
        try:
            operation.result = operation.run(connection)
        except Exception as error:  # handed to the caller, who waits for it
            operation.error = error
            run_text(connection, "ROLLBACK")
            run_text(connection, "BEGIN IMMEDIATE")

    def _run_more(self, connection: Connection, operation: _Operation) -> None:
        run_text(connection, "SAVEPOINT operation")
        try:
            operation.result = operation.run(connection)
        except Exception as error:
            operation.error = error
            run_text(connection, "ROLLBACK TO operation")
        run_text(connection, "RELEASE operation")


def discard(connection: Connection | None) -> None:
    """Closes a connection on which something failed; the next operation opens another."""
    if connection is not None:
        connection.invalidate()
        connection.close()
