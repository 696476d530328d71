"""Databases for the platform's tests: SQLite files, and a PostgreSQL server of the test's own."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from rorqual.config.server import ServerConfig
from rorqual.platform import Platform
from tests.conftest import IN_CI

PRICES = [
    {"model": "whale", "cache_hit": "0.07", "input": "0.27", "output": "1.10", "reasoning": "2.19"}
]


@dataclass
class ManualClock:
    """A clock that a test moves."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


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


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'platform.db'}"
    return request.getfixturevalue("postgres").new_schema()


def server_config(url: str, **sections: object) -> ServerConfig:
    """Platform mode with one priced model, cheap password hashes, and what the test changes."""
    accounts: dict[str, object] = {
        "registration": "open",
        "hash_memory_bytes": 2**20,
        "hash_passes": 1,
    }
    values: dict[str, object] = {
        "mode": "platform",
        "database": {"url": url},
        "prices": PRICES,
        "accounts": accounts | dict(sections.pop("accounts", {})),  # type: ignore[call-overload]
    }
    return ServerConfig.model_validate(values | sections)


OpenPlatform = Callable[..., Platform]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def open_platform(database_url: str, clock: ManualClock) -> Iterator[OpenPlatform]:
    """Opens platforms on the test's database; each call is another server process, so to say."""
    opened: list[Platform] = []

    def open_one(**sections: object) -> Platform:
        platform = Platform.open(server_config(database_url, **sections), clock=clock)
        opened.append(platform)
        return platform

    yield open_one
    for platform in opened:
        platform.close()


@pytest.fixture
def platform(open_platform: OpenPlatform) -> Platform:
    return open_platform()
