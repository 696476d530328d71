"""Group commit for SQLite: one sync of its log carries many operations.

SQLite has one writer at a time, and a commit that survives power loss costs a sync of the log. So
SQLite itself commits without one, and a thread syncs: whoever waits while the disk is at work is
served by the next sync, together. A caller gets the answer after that, never before. An operation
may be content with its commit: it holds when the process dies, and a power cut may take it back
until the next sync, which carries all before it.

Operations are run by that thread, whatever has gathered in one transaction (a failing one takes
back only itself); a small one by its caller, if nobody writes at the moment: the way to the thread
and back costs several times what SQLite does. An event loop tells the thread of such a one when it
has done what else it has to do: sooner, the two would only wait for each other. Both write with one
connection, in turns: a second one would read again every page that the first has changed. So that
no caller has to sync, the thread also moves the log into the database, and writes what begins the
next log, which SQLite syncs whatever it was told.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from rorqual.platform.errors import Busy
from rorqual.platform.statements import run_text

T = TypeVar("T")
_PRAGMAS: Final = ("busy_timeout=0", "synchronous=NORMAL", "wal_autocheckpoint=0")
_fdatasync: Final = getattr(os, "fdatasync", os.fsync)  # not everywhere
_CHECKPOINT_OPERATIONS: Final = 128  # of some eight pages of 4 KB each


def named_failure(error: BaseException) -> BaseException:
    """Busy for what the database itself could not do (locked, disk full, gone); else the error."""
    if not isinstance(error, OperationalError):
        return error
    return _busy(" ".join(str(error.orig).split()), error)


class LogFile:
    """SQLite's write-ahead log, to be synced. Closed when nobody holds it any more, so that nobody
    closes it under somebody's sync."""

    def __init__(self, path: str) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _busy(f"{path}: {error.strerror}", error) from error

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._descriptor)

    def sync(self) -> None:
        """Until everything that was written to it before is on disk; OSError where that fails."""
        _fdatasync(self._descriptor)


@dataclass(slots=True)
class _Operation:
    run: Callable[[Connection], Any]
    future: Future[Any]
    synced: bool
    result: Any = None
    error: BaseException | None = None
    log: LogFile | None = None  # what it was committed to

    @property
    def wants_sync(self) -> bool:
        return self.synced and self.error is None

    def deliver(self) -> None:
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(named_failure(self.error))


class _SyncDue(Future[Any]):
    """Of what was run at once. Whoever waits for it sends for the sync, which an event loop does
    only after what it is doing, perhaps just that."""

    def __init__(self, send: Callable[[], None]) -> None:
        super().__init__()
        self._send = send

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self._send()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done():
            self._send()
        return super().exception(timeout)


class GroupCommitWriter:
    """Runs operations of many threads in shared transactions, in the order they came."""

    def __init__(self, engine: Engine, max_operations: int, lock_timeout_seconds: float) -> None:
        self._engine = engine
        self._max_operations = max_operations
        self._lock_timeout_ms = round(lock_timeout_seconds * 1000)
        # What the thread has to do; "sync": `_unsynced`, which were run by their callers.
        self._queue: queue.SimpleQueue[_Operation | Literal["sync", "end"]] = queue.SimpleQueue()
        self._unsynced: list[_Operation] = []
        self._sender: asyncio.AbstractEventLoop | None = None  # who will send for their sync
        self._syncing = threading.Lock()
        self._lock = threading.Lock()
        self._num_waiting = 0  # operations of the queue that were not run yet
        self._closed = False
        self._writing = threading.Lock()  # whoever holds it writes, with this connection:
        self._connection: Connection | None = None
        self._log: LogFile | None = None
        self._failure: Busy | None = None  # of a sync, once there was one
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
            self._num_waiting += 1
            self._queue.put(_Operation(run, future, synced))
        return future

    def run_at_once(self, run: Callable[[Connection], T], *, synced: bool) -> "Future[T] | None":
        """The operation, done and committed; if synced, its future resolves later. None if somebody
        else writes or waits for that, or if there is no connection for it.

        The caller's thread does it, in a fraction of a millisecond, and does not wait.
        """
        if self._num_waiting or self._failure or not self._writing.acquire(blocking=False):
            return None
        operation = _Operation(run, _SyncDue(partial(self._queue.put, "sync")), synced)
        try:
            connection = None if self._closed else self._begin_at_once()
            if connection is None:
                return None
            try:
                operation.result = run(connection)
                self._commit(connection, [operation])
            except BaseException as error:
                operation.error = error
                self._take_back(connection)
        finally:
            self._writing.release()
        if not operation.wants_sync:
            operation.deliver()
        elif not self._hand_over(operation):
            self._answer([operation])
        return operation.future

    def _hand_over(self, operation: _Operation) -> bool:
        """Leaves its sync to the thread; False if that has ended."""
        operation.future.set_running_or_notify_cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        with self._lock:
            if self._closed:
                return False
            is_sent = bool(self._unsynced) and self._sender is loop
            self._unsynced.append(operation)
            self._sender = loop
        if loop is None:
            self._queue.put("sync")
        elif not is_sent:
            loop.call_soon(self._queue.put, "sync")
        return True

    def close(self) -> None:
        """Commits and syncs what was submitted, then ends the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put("end")
        self._thread.join()
        with self._writing:
            if self._connection is not None:
                self._connection.close()
                self._connection = self._log = None

    # Writing; the lock is held

    def _begin_at_once(self) -> Connection | None:
        """The connection in a transaction, unless another process writes."""
        try:
            return self._begin()
        except (SQLAlchemyError, Busy) as error:
            if not _is_locked(error):  # the thread will say what it is
                self._leave()
            return None

    def _begin(self) -> Connection:
        connection = self._connection or self._connect()
        run_text(connection, "BEGIN IMMEDIATE")
        if self._log is None:  # there is one from here on
            ((_, _, path), *_) = run_text(connection, "PRAGMA database_list").fetchall()
            self._log = LogFile(f"{path}-wal")
        return connection

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        try:
            for pragma in _PRAGMAS:
                run_text(connection, f"PRAGMA {pragma}")
        except BaseException:
            discard(connection)
            raise
        self._connection = connection
        return connection

    def _begin_patiently(self, before_waiting: Callable[[], None]) -> Connection:
        """`_begin`, which waits for other processes that write."""
        try:
            return self._begin()
        except SQLAlchemyError as error:
            if not _is_locked(error) or self._connection is None:
                raise
        before_waiting()
        run_text(self._connection, f"PRAGMA busy_timeout={self._lock_timeout_ms}")
        try:
            return self._begin()
        finally:
            run_text(self._connection, "PRAGMA busy_timeout=0")

    def _commit(self, connection: Connection, operations: Sequence[_Operation]) -> None:
        run_text(connection, "COMMIT")
        if connection.in_transaction():  # SQLAlchemy's own notion of it
            connection.commit()
        for operation in operations:
            operation.log = self._log
        self.num_commits += 1
        self.num_operations += len(operations)
        self._num_unmoved += len(operations)

    def _take_back(self, connection: Connection) -> None:
        try:
            run_text(connection, "ROLLBACK")
            if connection.in_transaction():
                connection.rollback()
        except SQLAlchemyError:  # nothing of it is committed either way
            self._leave()

    def _leave(self) -> None:
        connection, self._connection, self._log = self._connection, None, None
        with contextlib.suppress(Exception):  # it is given up, whatever it says to that
            discard(connection)

    def _move_log(self) -> None:
        """Moves the log into the database and begins the next one.

        What fails here (a reader may hold the log, a disk be full) has cost nobody anything: the
        log grows on, and whoever commits next hears of the disk.
        """
        self._num_unmoved = 0
        connection = self._connection
        if connection is None:
            return
        try:
            run_text(connection, "PRAGMA wal_checkpoint(PASSIVE)")
            (version,) = run_text(connection, "PRAGMA user_version").fetchone()
            # A write that changes nothing.
            run_text(connection, f"PRAGMA user_version={version}")
        except Exception as error:
            if not _is_locked(error):
                self._leave()

    # The thread

    def _run(self) -> None:
        is_last = False
        while not is_last:
            waiting, is_last = self._gather()
            with self._lock:
                written, self._unsynced = self._unsynced, []
            if waiting:
                with self._writing:
                    self._write(waiting, partial(self._answer, written))
                with self._lock:
                    self._num_waiting -= len(waiting)
            self._answer([*written, *waiting])
            if self._num_unmoved >= _CHECKPOINT_OPERATIONS:
                with self._writing:
                    self._move_log()

    def _answer(self, operations: list[_Operation]) -> None:
        """Syncs for those who want it, and empties the list."""
        for operation in operations:
            if not operation.wants_sync:
                operation.deliver()
        waiting = [operation for operation in operations if operation.wants_sync]
        operations.clear()
        failure = self._sync({operation.log for operation in waiting})
        for operation in waiting:
            operation.error = failure
            operation.deliver()

    def _sync(self, logs: Collection[LogFile | None]) -> Busy | None:
        """After one that failed nobody knows what is on disk, and the next would succeed without
        having written it: so nothing is taken any more, until this is opened again."""
        with self._syncing:  # of two at once, the system might tell only one that it fails
            for log in logs:
                try:
                    assert log is not None, "it was committed"
                    if self._failure is None:
                        log.sync()
                except BaseException as error:
                    self._failure = _sync_failed(error)
            return self._failure

    def _gather(self) -> tuple[list[_Operation], bool]:
        """Waits for something to do; the operations to be run, and whether it is the end."""
        waiting: list[_Operation] = []
        wanted = self._queue.get()
        while wanted != "end":
            if wanted != "sync":
                waiting.append(wanted)
            try:
                if len(waiting) == self._max_operations:
                    break
                wanted = self._queue.get_nowait()
            except queue.Empty:
                break
        return waiting, wanted == "end"

    def _write(self, operations: Sequence[_Operation], before_waiting: Callable[[], None]) -> None:
        """before_waiting: what is due before another process is waited for."""
        try:
            if self._failure is not None:
                raise self._failure
            connection = self._begin_patiently(before_waiting)
            self._run_first(connection, operations[0])
            for operation in operations[1:]:
                self._run_more(connection, operation)
            self._commit(connection, operations)
        except BaseException as error:  # begin or commit failed: nothing is on disk
            for operation in operations:
                operation.error = operation.error or error
            self._leave()

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


def _sync_failed(error: BaseException) -> Busy:
    reason = (error.strerror if isinstance(error, OSError) else None) or repr(error)
    busy = Busy(
        f"database: its log could not be synced ({reason}), so nothing more is taken; see to the "
        "disk, then start the server again",
        10.0,
    )
    busy.__cause__ = error
    return busy


def _busy(reason: str, error: BaseException) -> Busy:
    busy = Busy(f"database: {reason}; check that it runs and that its disk has room", 2.0)
    busy.__cause__ = error
    return busy


def _is_locked(error: BaseException) -> bool:
    """Whether another process is writing."""
    original = error.orig if isinstance(error, OperationalError) else None
    return (
        isinstance(original, sqlite3.OperationalError)
        and original.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    )


def discard(connection: Connection | None) -> None:
    """Closes a connection on which something failed; the next operation opens another."""
    if connection is not None:
        connection.invalidate()
        connection.close()
