"""Databases for the platform's tests: SQLite files, and a PostgreSQL server of the test's own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rorqual.config.server import ServerConfig
from rorqual.platform import Platform
from tests.platform.postgres import Postgres as Postgres
from tests.platform.postgres import postgres as postgres
from tests.platform.power import unsynced_library as unsynced_library

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
