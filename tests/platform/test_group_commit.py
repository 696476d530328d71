"""Which commits are synced, who writes them, and what shares one."""

import asyncio
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from rorqual.config.server import DatabaseConfig
from rorqual.errors import CapacityError
from rorqual.platform import group_commit
from rorqual.platform.database import Database
from tests.platform.postgres import Postgres


class Disk:
    """The disk under the log: counts its syncs, and is as slow as `go` says."""

    def __init__(self, log: Path) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.go.set()
        self.error: OSError | None = None
        self.synced_bytes: list[int] = []
        self._log = log

    def sync(self, descriptor: int) -> None:
        assert os.path.samestat(os.fstat(descriptor), self._log.stat()), "another file"
        self.begun.set()
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error
        self.synced_bytes.append(self._log.stat().st_size)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(DatabaseConfig(url=f"sqlite:///{tmp_path / 'a.db'}"))
    found.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")).rowcount)
    yield found
    found.close()


@pytest.fixture
def disk(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    found = Disk(tmp_path / "a.db-wal")
    monkeypatch.setattr(group_commit, "_fdatasync", found.sync)
    yield found
    found.go.set()


def add(connection: Connection) -> int:
    return connection.execute(text("INSERT INTO t VALUES (1)")).rowcount


def broken(connection: Connection) -> int:
    """Its connection breaks under it."""
    raw = connection.connection.driver_connection
    assert raw is not None
    raw.close()
    return add(connection)


def rows(database: Database) -> int:
    return database.read(lambda c: c.execute(text("SELECT count(*) FROM t")).scalar_one())


def test_only_what_asks_for_it_is_synced(database: Database, disk: Disk, tmp_path: Path) -> None:
    for number, synced in enumerate([True, False, False, True, False, True]):
        before = len(disk.synced_bytes)
        assert database.write(add, synced=synced) == 1
        assert len(disk.synced_bytes) - before == synced
        if synced:
            assert disk.synced_bytes[-1] == (tmp_path / "a.db-wal").stat().st_size, "all of it"
        assert rows(database) == number + 1
    database.write(add)
    assert len(disk.synced_bytes) == 4, "synced is what is meant without a word"


def test_sqlite_leaves_the_sync_to_us(database: Database) -> None:
    def levels(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert database.write(levels) == ["wal", 1, 1]  # 1: NORMAL


@pytest.mark.parametrize("synced", [False, True])
def test_a_small_operation_is_done_by_its_caller_while_nobody_writes(
    database: Database, disk: Disk, synced: bool
) -> None:
    seen: list[int] = []

    def small(connection: Connection) -> int:
        seen.append(threading.get_ident())
        return add(connection)

    before = database.commit_counts
    disk.go.clear()
    done = database.submit_small(small, synced=synced)
    assert seen == [threading.get_ident()]
    assert [a - b for a, b in zip(database.commit_counts, before, strict=True)] == [1, 1]
    assert rows(database) == 1
    assert done.done() != synced, "not before it is on disk"
    disk.go.set()
    assert done.result(20) == 1
    assert len(disk.synced_bytes) == synced


def test_nobody_waits_for_the_sync_of_others(database: Database, disk: Disk) -> None:
    disk.go.clear()
    first = database.submit(add)
    assert disk.begun.wait(20)
    small = database.submit_small(add, synced=False)
    assert small.done() and small.result() == 1
    rest = [database.submit_small(add) for _ in range(2)]
    assert rows(database) == 4 and not any(future.done() for future in [first, *rest])
    rest += [database.submit(add), database.submit(add)]  # run by the thread
    disk.go.set()
    assert [future.result(20) for future in [first, *rest]] == [1] * 5
    assert len(disk.synced_bytes) == 2, "those who came meanwhile share one"


def test_an_event_loop_sends_for_one_sync_when_it_is_done(database: Database, disk: Disk) -> None:
    async def settle_twice() -> list[int]:
        both = [database.submit_small(add) for _ in range(2)]
        assert not disk.begun.wait(0.05), "the thread would only wait for this one"
        return await asyncio.gather(*map(asyncio.wrap_future, both))

    assert asyncio.run(settle_twice()) == [1, 1]
    assert len(disk.synced_bytes) == 1


def test_an_event_loop_that_waits_by_standing_still_is_answered(
    database: Database, disk: Disk
) -> None:
    async def stand_still() -> tuple[int, BaseException | None]:
        result = database.submit_small(add).result(20)
        return result, database.submit_small(add).exception(20)

    assert asyncio.run(stand_still()) == (1, None)
    assert len(disk.synced_bytes) == 2


def test_a_loop_that_ended_is_not_relied_on_by_the_next(database: Database, disk: Disk) -> None:
    first = asyncio.new_event_loop()
    left: list[Future[int]] = []

    def leave() -> None:
        first.stop()
        left.append(database.submit_small(add))  # what it calls soon is never called

    first.call_soon(leave)
    first.run_forever()
    first.close()
    assert not disk.begun.wait(0.05)

    async def settle() -> int:
        return await asyncio.wait_for(asyncio.wrap_future(database.submit_small(add)), 20)

    assert asyncio.run(settle()) == 1
    assert left[0].result(0) == 1 and len(disk.synced_bytes) == 1


def test_a_thread_does_not_wait_for_the_loop_of_another(database: Database, disk: Disk) -> None:
    synced = threading.Event()

    def settle() -> None:
        database.submit_small(add).add_done_callback(lambda _: synced.set())

    async def stand_still() -> bool:
        first = database.submit_small(add)
        thread = threading.Thread(target=settle)
        thread.start()
        is_synced = synced.wait(20)
        thread.join()
        return is_synced and first.done()

    assert asyncio.run(stand_still())


def test_what_a_stopped_event_loop_has_left_is_synced_at_the_end(
    database: Database, disk: Disk
) -> None:
    left: list[Future[int]] = []

    async def leave() -> None:
        left.append(database.submit_small(add))
        database.close()  # before the loop has sent for it

    asyncio.run(leave())
    assert left[0].result(0) == 1 and len(disk.synced_bytes) == 1


def test_what_is_committed_does_not_wait_for_another_process(
    database: Database, disk: Disk, tmp_path: Path
) -> None:
    disk.go.clear()
    first = database.submit(add)
    assert disk.begun.wait(20)
    committed = database.submit_small(add)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    late = database.submit(add)
    disk.go.set()
    assert [first.result(20), committed.result(20)] == [1, 1] and not late.done()
    other.execute("COMMIT")
    other.close()
    assert late.result(20) == 1


def test_an_unsynced_operation_is_answered_before_the_sync_of_its_neighbour(
    database: Database, disk: Disk
) -> None:
    begun, go = threading.Event(), threading.Event()

    def hold(connection: Connection) -> int:
        begun.set()
        go.wait(20)
        return add(connection)

    first = database.submit(hold, synced=False)
    assert begun.wait(20)
    disk.go.clear()
    synced, unsynced = database.submit(add), database.submit(add, synced=False)
    go.set()
    assert [first.result(20), unsynced.result(20)] == [1, 1] and not synced.done()
    disk.go.set()
    assert synced.result(20) == 1


@pytest.mark.parametrize("small", [False, True])
def test_a_disk_that_fails_is_told_to_those_who_wait_for_it(
    database: Database, disk: Disk, small: bool
) -> None:
    """And nothing is taken after that: the next sync would not write what this one has not."""
    disk.error = OSError(errno.EIO, "Input/output error")
    submit = database.submit_small if small else database.submit
    with pytest.raises(CapacityError, match="Input/output error"):
        submit(add).result(20)
    before = rows(database)
    disk.error = None
    for synced in (False, True):
        for again in (database.submit_small, database.submit):
            with pytest.raises(CapacityError, match="start the server again"):
                again(add, synced=synced).result(20)
    assert rows(database) == before
    database.close()
    other = Database(DatabaseConfig(url=str(database.url)))
    assert other.write(add) == 1
    other.close()


def test_what_waits_for_the_disk_when_it_is_closed_is_still_synced(
    database: Database, disk: Disk
) -> None:
    disk.go.clear()
    first = database.submit(add)
    assert disk.begun.wait(20)
    second = database.submit_small(add)
    closing = threading.Thread(target=database.close)
    closing.start()
    disk.go.set()
    closing.join(20)
    assert (first.result(0), second.result(0), len(disk.synced_bytes)) == (1, 1, 2)


def test_a_small_operation_waits_its_turn_behind_the_writer(database: Database) -> None:
    begun, go = threading.Event(), threading.Event()

    def hold(connection: Connection) -> int:
        begun.set()
        go.wait(20)
        return add(connection)

    first = database.submit(hold)
    assert begun.wait(20)
    second = database.submit_small(add)
    assert not second.done()
    go.set()
    assert (first.result(20), second.result(20), rows(database)) == (1, 1, 2)
    assert database.submit_small(add, synced=False).done()


def test_a_small_operation_does_not_wait_for_another_process(
    database: Database, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    later = database.submit_small(add)
    assert time.monotonic() - started < 1 and not later.done()  # the thread waits for the lock
    other.execute("COMMIT")
    assert later.result(20) == 1
    other.close()


@pytest.mark.parametrize("error", [ValueError("no"), OperationalError("x", None, Exception("io"))])
def test_a_small_operation_that_fails_leaves_nothing(database: Database, error: Exception) -> None:
    def half(connection: Connection) -> int:
        add(connection)
        raise error

    with pytest.raises((ValueError, CapacityError)):
        database.submit_small(half).result()
    assert rows(database) == 0
    assert database.submit_small(add).result() == 1
    assert database.write(add) == 1
    assert rows(database) == 2


def test_a_small_operation_whose_connection_breaks_takes_another(
    database: Database, disk: Disk
) -> None:
    """And its log, which may be another file: who looks after the disk compares them."""

    with pytest.raises(Exception, match="closed"):
        database.submit_small(broken).result(20)
    assert database.submit_small(add).result(20) == 1
    assert database.write(add) == 1


def test_no_caller_begins_a_log(database: Database, tmp_path: Path) -> None:
    """SQLite syncs the head of each new log, whatever it was told; so the thread writes it."""
    log, heads = tmp_path / "a.db-wal", list[bytes]()

    def head() -> bytes:
        with log.open("rb") as file:
            return file.read(32)

    for number in range(600):
        before = head()
        assert database.submit_small(add, synced=False).result(20) == 1
        if database.submit_small(add, synced=False).done():
            assert number == 0 or head() == before
        database.write(add)
        database.write(lambda _: None)  # comes behind what the thread does after a commit
        heads.append(head())
    assert len(set(heads)) > 3, "the log began anew"
    assert log.stat().st_size < 4_000_000
    assert rows(database) == 1800


def test_threads_that_write_at_once_lose_nothing(database: Database) -> None:
    def work() -> None:
        for number in range(100):
            future = database.submit_small(add) if number % 3 else database.submit(add)
            assert future.result(20) == 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows(database) == 600


def test_who_cannot_have_a_connection_is_told_and_may_ask_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Connection:
        raise OperationalError("connect", None, Exception("no more files"))

    with pytest.raises(Exception, match="closed"):
        database.submit_small(broken).result(20)
    with monkeypatch.context() as patch:
        patch.setattr(database.engine, "connect", refuse)
        for submit in (database.submit_small, database.submit):
            with pytest.raises(CapacityError, match="no more files"):
                submit(add).result(20)
    assert database.submit_small(add, synced=False).done()
    assert rows(database) == 1


def test_whoever_fails_first_takes_back_only_itself(database: Database) -> None:
    begun, go = threading.Event(), threading.Event()

    def fail(connection: Connection) -> None:
        add(connection)
        begun.set()
        go.wait(20)
        raise CapacityError("no")

    first = database.submit(fail)
    assert begun.wait(20)
    rest = [database.submit(add) for _ in range(2)]
    go.set()
    with pytest.raises(CapacityError, match="no"):
        first.result(20)
    assert [future.result(20) for future in rest] == [1, 1]
    assert rows(database) == 2


def test_what_waits_when_it_is_closed_is_still_written(tmp_path: Path) -> None:
    file = tmp_path / "b.db"
    database = Database(DatabaseConfig(url=f"sqlite:///{file}"))
    database.write(lambda c: c.execute(text("CREATE TABLE t (x INTEGER)")).rowcount)
    begun, go = threading.Event(), threading.Event()

    def hold(connection: Connection) -> int:
        begun.set()
        go.wait(20)
        return add(connection)

    futures = [database.submit(hold, synced=False)]
    assert begun.wait(20)
    futures.append(database.submit(add))
    closing = threading.Thread(target=database.close)
    closing.start()
    go.set()
    closing.join(20)
    assert [future.result(0) for future in futures] == [1, 1]
    again = Database(DatabaseConfig(url=f"sqlite:///{file}"))
    assert rows(again) == 2
    again.close()


def test_postgresql_leaves_the_sync_to_later_where_it_may(postgres: Postgres) -> None:
    database = Database(DatabaseConfig(url=postgres.new_schema()))

    def setting(connection: Connection) -> str:
        return connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()

    found = [database.write(setting, synced=synced) for synced in (True, False, True)]
    assert found == ["on", "off", "on"]
    assert database.submit(setting, synced=False).result(20) == "off"
    database.close()
