"""The migrations build exactly the schema of tables.py, and a repeated start changes nothing."""

import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import ValidationError
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from rorqual.config.server import DatabaseConfig
from rorqual.errors import ConfigError
from rorqual.platform import Busy, Platform, group_commit
from rorqual.platform.database import Database
from rorqual.platform.migrate import migrate
from rorqual.platform.tables import metadata
from tests.platform.conftest import OpenPlatform, Postgres, server_config


def test_migrated_schema_is_the_declared_one(platform: Platform) -> None:
    with platform.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_opening_again_keeps_what_is_there(open_platform: OpenPlatform) -> None:
    user = open_platform().accounts.create("ahab", None)
    again = open_platform()
    assert again.accounts.get(user.id) == user
    assert len(again.prices.history()) == 1


def test_only_the_owner_can_read_the_database_file(tmp_path: Path) -> None:
    Platform.open(server_config(f"sqlite:///{tmp_path / 'new' / 'a.db'}")).close()
    for file in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_file_that_cannot_be_opened_is_named() -> None:
    with pytest.raises(ConfigError, match=r"/proc/nowhere/a\.db"):
        Database(DatabaseConfig(url="sqlite:////proc/nowhere/a.db"))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///", "mysql://a/b"])
def test_a_url_that_would_lose_money_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        DatabaseConfig(url=url)


def test_a_locked_database_is_busy_not_broken(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    platform = Platform.open(server_config(url, database={"url": url, "lock_timeout_seconds": 0.2}))
    other = Database(DatabaseConfig(url=url))
    with other.engine.begin() as connection:
        connection.execute(text("INSERT INTO settings VALUES ('held', '1')"))
        with pytest.raises(Busy, match="locked"):
            platform.accounts.create("ahab", None)
    assert platform.accounts.create("ahab", None).name == "ahab"
    other.close()
    platform.close()


def test_a_commit_that_fails_at_the_end_does_not_keep_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(DatabaseConfig(url=f"sqlite:///{tmp_path / 'a.db'}"))
    migrate(database)
    run, held = group_commit.run_text, threading.Event()

    def full(connection: Connection, text: str, values: object = ()) -> object:
        if text == "COMMIT":
            raise OperationalError(text, None, sqlite3.OperationalError("disk is full"))
        return run(connection, text, values)

    monkeypatch.setattr(group_commit, "run_text", full)
    future = database.submit(lambda _: held.wait(10))
    closing = threading.Thread(target=database.close)
    closing.start()  # the order to end is in the batch whose commit fails
    time.sleep(0.1)
    held.set()
    closing.join(10)
    assert not closing.is_alive()
    with pytest.raises(Busy, match="disk is full"):
        future.result(1)


def test_a_lost_server_costs_one_operation_not_one_a_connection(postgres: Postgres) -> None:
    platform = Platform.open(server_config(postgres.new_schema()))
    together = threading.Barrier(4)

    def backend(connection: Connection) -> int:
        together.wait(10)
        return connection.execute(text("SELECT pg_backend_pid()")).scalar_one()

    pids = {one.result() for one in [platform.database.submit(backend) for _ in range(4)]}
    assert len(pids) == 4
    other = Platform.open(server_config(postgres.new_schema()))
    end = text("SELECT pg_terminate_backend(:pid)")
    for pid in pids:
        other.database.write(lambda c, pid=pid: c.execute(end, {"pid": pid}).scalar_one())
    failed = 0
    for _ in range(8):
        try:
            platform.prices.current("whale")
        except Busy:
            failed += 1
    assert failed == 1
    other.close()
    platform.close()


def test_operations_share_commits(tmp_path: Path) -> None:
    database = Database(DatabaseConfig(url=f"sqlite:///{tmp_path / 'a.db'}"))
    migrate(database)
    insert = text("INSERT INTO settings VALUES (:name, '1')")
    futures = [
        database.submit(lambda c, i=i: c.execute(insert, {"name": f"n{i}"}).rowcount)
        for i in range(300)
    ]
    assert [future.result() for future in futures] == [1] * 300
    commits, operations = database.commit_counts
    assert operations == 300 and commits < 100
    database.close()
