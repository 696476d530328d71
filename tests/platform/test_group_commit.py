"""Which commits are synced, and what shares one."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from rorqual.config.server import DatabaseConfig
from rorqual.errors import CapacityError
from rorqual.platform.database import Database
from tests.platform.postgres import Postgres

_FULL, _NORMAL = 2, 1  # SQLite's numbers


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(DatabaseConfig(url=f"sqlite:///{tmp_path / 'a.db'}"))
    found.write(lambda connection: connection.execute(text("CREATE TABLE t (x INTEGER)")).rowcount)
    yield found
    found.close()


def level(connection: Connection) -> int:
    return connection.exec_driver_sql("PRAGMA synchronous").scalar_one()


def add(connection: Connection) -> int:
    return connection.execute(text("INSERT INTO t VALUES (1)")).rowcount


def rows(database: Database) -> int:
    return database.read(lambda c: c.execute(text("SELECT count(*) FROM t")).scalar_one())


def test_only_what_asks_for_it_is_synced(database: Database) -> None:
    wanted = [True, False, False, True, False, True]
    found = [database.write(level, synced=synced) for synced in wanted]
    assert found == [_FULL if synced else _NORMAL for synced in wanted]
    assert database.write(level) == _FULL, "synced is what is meant without a word"


def test_a_small_operation_is_done_by_its_caller_while_nobody_writes(database: Database) -> None:
    seen: list[tuple[int, int]] = []

    def small(connection: Connection) -> int:
        seen.append((threading.get_ident(), level(connection)))
        return add(connection)

    before = database.commit_counts
    done = database.submit_small(small)
    assert done.done() and done.result() == 1
    assert seen == [(threading.get_ident(), _NORMAL)]
    assert [a - b for a, b in zip(database.commit_counts, before, strict=True)] == [1, 1]
    assert rows(database) == 1


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
    assert database.submit_small(add).done()


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


def test_a_small_operation_whose_connection_breaks_takes_another(database: Database) -> None:
    def broken(connection: Connection) -> int:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.close()
        return add(connection)

    with pytest.raises(Exception, match="closed"):
        database.submit_small(broken).result()
    assert database.submit_small(add).result() == 1


def test_no_caller_begins_a_log(database: Database, tmp_path: Path) -> None:
    """SQLite syncs the head of each new log, whatever it was told; so the thread writes it."""
    log, heads = tmp_path / "a.db-wal", list[bytes]()

    def head() -> bytes:
        with log.open("rb") as file:
            return file.read(32)

    for number in range(600):
        before = head()
        assert database.submit_small(add).result() == 1
        if database.submit_small(add).done():
            assert number == 0 or head() == before
        database.write(add)
        database.write(level)  # comes behind what the thread does after a commit
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


def test_who_cannot_have_a_connection_at_once_asks_the_writer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Connection:
        raise OperationalError("connect", None, Exception("no more files"))

    database.write(add)  # the writer has its own
    with monkeypatch.context() as patch:
        patch.setattr(database.engine, "connect", refuse)
        assert database.submit_small(add).result(20) == 1
    assert database.submit_small(add).done()
    assert rows(database) == 3


def test_a_synced_operation_never_shares_an_unsynced_commit(database: Database) -> None:
    """Four wait while one runs: the unsynced ones share its commit, the synced one ends it."""
    begun, go = threading.Event(), threading.Event()

    def hold(connection: Connection) -> int:
        begun.set()
        go.wait(20)
        return level(connection)

    before = database.commit_counts[0]
    first = database.submit(hold, synced=False)
    assert begun.wait(20)
    rest = [database.submit(level, synced=synced) for synced in (False, True, False, True)]
    go.set()
    assert first.result(20) == _NORMAL
    found = [future.result(20) for future in rest]
    assert found == [_NORMAL, _FULL, _FULL, _FULL], "an unsynced one may well be synced, too"
    assert database.commit_counts[0] - before == 2


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
