"""Group commit for SQLite: one thread writes, and one synced commit carries many operations.

SQLite has one writer at a time, and a commit that survives power loss costs an fsync. So callers
hand their operation to one thread, which runs whatever has gathered while the last commit was being
synced, each inside a savepoint (a failing one takes back only itself), and commits them together.
A caller gets its answer after the commit, never before.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from rorqual.platform.errors import Busy
from rorqual.platform.statements import run_text

T = TypeVar("T")


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
        self._lock = threading.Lock()
        self._closed = False
        self.num_commits = 0
        self.num_operations = 0
        self._thread = threading.Thread(target=self._run, name="rorqual-writer", daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[Connection], T]) -> "Future[T]":
        """The operation's result or error, once its transaction is on disk."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # a half-done transaction cannot be cancelled
        with self._lock:
            if self._closed:
                raise RuntimeError("the database is closed")
            self._queue.put(_Operation(run, future))
        return future

    def close(self) -> None:
        """Commits what was submitted, then ends the thread."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        connection: Connection | None = None  # kept: to check one out costs as much as to use it
        while (operation := self._queue.get()) is not None:
            batch, last = [operation], False
            try:
                connection = connection or self._engine.connect()
                run_text(connection, "BEGIN IMMEDIATE")
                last = self._run_batch(connection, batch)
                run_text(connection, "COMMIT")
                if connection.in_transaction():  # SQLAlchemy's own notion of it
                    connection.commit()
            except BaseException as error:  # begin or commit failed: nothing of this is on disk
                for operation in batch:
                    operation.error = error
                discard(connection)
                connection = None
            self.num_commits += 1
            self.num_operations += len(batch)
            for operation in batch:
                operation.deliver()
            if last:
                break
        if connection is not None:
            connection.close()

    def _run_batch(self, connection: Connection, batch: list[_Operation]) -> bool:
        """Runs the first and what else has gathered; True if the end of the queue was seen."""
        self._run_one(connection, batch[0])
        while len(batch) < self._max_operations:
            try:
                operation = self._queue.get_nowait()
            except queue.Empty:
                return False
            if operation is None:
                return True
            batch.append(operation)
            self._run_one(connection, operation)
        return False

    def _run_one(self, connection: Connection, operation: _Operation) -> None:
        run_text(connection, "SAVEPOINT operation")
        try:
            operation.result = operation.run(connection)
        except Exception as error:  # handed to the caller, who waits for it
            operation.error = error
            run_text(connection, "ROLLBACK TO operation")
        run_text(connection, "RELEASE operation")


def discard(connection: Connection | None) -> None:
    """Closes a connection on which something failed; the next operation opens another."""
    if connection is not None:
        connection.invalidate()
        connection.close()
