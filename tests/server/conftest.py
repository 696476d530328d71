"""Servers for tests: the real application on a real loopback port, always stopped."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from rorqual.config.server import ServerConfig
from rorqual.platform import Balance, Platform
from rorqual.server import Models, Services, create_app
from rorqual.server.backends import Backend, EngineBackend, ModelInfo, ThreadLink
from rorqual.server.logs import RequestLog
from rorqual.server.serving import PublicServer, uvicorn_config
from rorqual.tokenizer import Tokenizer
from tests.platform.postgres import Postgres as Postgres
from tests.platform.postgres import postgres as postgres
from tests.platform.power import unsynced_library as unsynced_library
from tests.server.scripted import ScriptRunner, make_engine, make_tokenizer
from tests.server.served import save_tiny_model

MODEL = "whale"
UNIT = 10**9  # of money
PRICES = [{"model": MODEL, "cache_hit": "1", "input": "10", "output": "100", "reasoning": "200"}]


@dataclass
class Running:
    """A server that answers."""

    url: str
    services: Services
    server: PublicServer
    thread: threading.Thread
    runner: ScriptRunner | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def http(self) -> httpx.Client:
        """A client of it that does not raise."""
        return httpx.Client(base_url=self.url, timeout=20)

    @property
    def platform(self) -> Platform:
        return self.services.platform

    def settled(self, user_id: str) -> Balance:
        """The account's balance once nothing is reserved any more, or after a while."""
        until = time.monotonic() + 20
        while (balance := self.platform.ledger.balance(user_id)).reserved_nano:
            if time.monotonic() > until:
                break
            time.sleep(0.02)
        return balance

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive(), "the server does not stop"


def new_key(server: Running, name: str, *, money: int = UNIT, **fields: Any) -> tuple[str, str]:
    """(user id, key) of a fresh account."""
    user = server.platform.accounts.create(name, None)
    if money:
        server.platform.ledger.top_up(user.id, money, f"first-{name}")
    return user.id, server.platform.keys.create(user.id, "test", **fields).secret


def serve(services: Services) -> Running:
    """Run the application on a free port."""
    server = PublicServer(uvicorn_config(create_app(services), services.config.http), services)
    ready = threading.Event()
    inner = server.startup

    async def startup(sockets: Any = None) -> None:
        await inner(sockets)
        ready.set()

    server.startup = startup  # type: ignore[method-assign]

    def run() -> None:
        asyncio.run(server.serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(20), "the server does not start"
    (listener,) = server.servers[0].sockets
    return Running(f"http://127.0.0.1:{listener.getsockname()[1]}", services, server, thread)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random network on disk."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_tiny_model(tokenizer, path)
    return path


def scripted_backend(
    tokenizer: Tokenizer, runner: ScriptRunner, *, name: str = MODEL, **engine: object
) -> Backend:
    info = ModelInfo(name, name.title(), 512, "choice", 1_700_000_000, 1000)
    return EngineBackend(
        info, tokenizer, ThreadLink(make_engine(runner, tokenizer, **engine)), {"temperature": 0.0}
    )


ServerFactory = Callable[..., Running]


@pytest.fixture(scope="module")
def start_server(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerFactory]:
    """Starts servers; keyword arguments are sections of the configuration."""
    running: list[Running] = []

    def start(
        answers: dict[str, str] | None = None,
        *,
        backends: dict[str, Backend] | None = None,
        runner: ScriptRunner | None = None,
        **sections: Any,
    ) -> Running:
        folder: Path = tmp_path_factory.mktemp("server")
        values: dict[str, Any] = {
            "database": {"url": f"sqlite:///{folder / 'rorqual.db'}"},
            "accounts": {"registration": "open", "hash_memory_bytes": 2**20, "hash_passes": 1,
                         "challenge_bits": 8} | sections.pop("accounts", {}),
            "prices": PRICES,
            "http": {"port": 0} | sections.pop("http", {}),
            "lab": {"runs_folder": str(folder / "runs"), "presets": []} | sections.pop("lab", {}),
        }  # fmt: skip
        config = ServerConfig.model_validate(values | sections)
        script = runner or ScriptRunner(tokenizer, answers or {})
        found = backends or {MODEL: scripted_backend(tokenizer, script)}
        lines: list[str] = []
        services = Services(
            config, Platform.open(config), Models(found, {"alias": next(iter(found))}),
            log=RequestLog(lines.append),
        )  # fmt: skip
        one = serve(services)
        one.runner, one.lines = script, lines
        running.append(one)
        return one

    yield start
    for one in running:
        one.stop()
