"""A PostgreSQL server of the test session's own, reached through a socket in its own directory."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.conftest import IN_CI


@dataclass
class Postgres:
    """A PostgreSQL server of this test session, reached through a socket in its own directory."""

    directory: Path
    binaries: Path
    user: str | None

    @property
    def url(self) -> str:
        return f"postgresql://rorqual@/postgres?host={self.directory}"

    def new_schema(self) -> str:
        """The URL of an empty schema: much cheaper than a database of its own."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        engine = create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        engine.dispose()
        return f"{self.url}&options=-csearch_path%3D{name}"

    def run(self, *command: str) -> None:
        subprocess.run(
            [str(self.binaries / command[0]), *command[1:]],
            user=self.user,
            cwd=self.directory,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    def start(self) -> None:
        # Tests kill processes, never the machine: without fsync nothing is lost, and much faster.
        options = f"-c listen_addresses= -c unix_socket_directories={self.directory} -c fsync=off"
        log = str(self.directory / "log")
        self.run("pg_ctl", "-D", "data", "-w", "-t", "60", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "-D", "data", "-w", "-m", mode, "stop")


def _postgres_binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server on a Unix socket, run by an ordinary user; missing programs fail in CI."""
    binaries = _postgres_binaries()
    if binaries is None:
        message = "PostgreSQL is missing; install the package postgresql"
        pytest.fail(message) if IN_CI else pytest.skip(message)
    directory = Path(tempfile.mkdtemp(prefix="rorqual-pg-", dir="/tmp"))
    user = None
    if os.getuid() == 0:  # the server refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        shutil.chown(directory, user)
    server = Postgres(directory, binaries, user)
    try:
        server.run("initdb", "-D", "data", "-U", "rorqual", "-A", "trust", "-E", "UTF8", "-N")
        server.start()
        yield server
        server.stop("immediate")
    finally:
        shutil.rmtree(directory)
