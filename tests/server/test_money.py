"""The whole server under crashes: what clients received is what was billed, within one batch.

Clients talk to `rorqual serve` over sockets while it, its engine, its database are killed and the
power is cut. A stream: delivered <= billed <= delivered + metering.flush_tokens. A whole answer is
one batch: its bill is nothing or all of it. Nothing is settled twice, balances are the sums of
their entries and never below zero.
"""

import asyncio
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from rorqual.platform import Platform, TokenCounts
from rorqual.platform.tables import generations, ledger
from tests.platform.conftest import server_config
from tests.platform.postgres import Postgres
from tests.platform.power import cut_power
from tests.server.crowd import Client, World
from tests.server.served import Served

FLUSH_TOKENS = 8
UNIT = 10**9
SETTINGS = f"""mode = "platform"
unsigned_models = "served"
[accounts]
hash_memory_bytes = 1048576
[metering]
flush_tokens = {FLUSH_TOKENS}
flush_seconds = 0.02
[admission]
max_running = 48
max_running_per_account = 32
max_queued = 64
account_tokens_per_second = 1e9
account_burst_tokens = 1000000000
address_tokens_per_second = 1e9
address_burst_tokens = 1000000000
[watch]
restart_seconds = 0.1
[[prices]]
model = "tiny"
cache_hit = "1"
input = "10"
output = "100"
reasoning = "200"
"""


@dataclass
class Town:
    """A server, who uses it, and how to break it."""

    served: Served
    keys: list[str]
    whole_keys: set[str]  # ids of keys whose requests are answered whole
    world: World
    rng: random.Random
    postgres: Postgres | None

    def kill_server(self) -> None:
        """The server, and on SQLite the power with it."""
        self.served.process.kill()
        self.served.process.wait()
        if self.postgres is None:
            file = Path(self.served.database.removeprefix("sqlite:///"))
            cut_power(file, self.rng, keep=self.rng.choice([0.0, 0.1, 0.5, 0.9]))
        self.served.start()

    def kill_engine(self) -> None:
        for pid in self.served.children():
            os.kill(int(pid), signal.SIGKILL)

    def kill_database(self) -> None:
        assert self.postgres is not None
        self.postgres.stop("immediate")
        self.postgres.start()


def open_town(
    model: Path, folder: Path, library: Path, postgres: Postgres | None, rng: random.Random
) -> Town:
    """Six accounts: rich and poor, streaming; one that wants whole answers."""
    url = f"sqlite:///{folder / 'server.db'}" if postgres is None else postgres.new_schema()
    platform = Platform.open(server_config(url))
    keys, whole = [], set[str]()
    for index in range(6):
        user = platform.accounts.create(f"user {index}", None)
        amount_nano = 1000 * UNIT if index < 5 else UNIT // 30
        platform.ledger.top_up(user.id, amount_nano, f"payment {index}")
        made = platform.keys.create(user.id, "test")
        keys.append(made.secret)
        if index == 0:
            whole.add(made.key.id)
    platform.close()
    preload = {"LD_PRELOAD": str(library)} if postgres is None else {}
    served = Served(model, folder, SETTINGS, database=url, environment=preload)
    return Town(served, keys, whole, World(), rng, postgres)


async def live(town: Town, *, clients: int, requests: int, kills: int) -> list[str]:
    """Clients ask until so many answers have begun and so much was killed; what was killed."""
    stop, killed = asyncio.Event(), list[str]()
    kinds: list[Callable[[], None]] = [town.kill_server, town.kill_engine, town.kill_server]
    if town.postgres is not None:
        kinds.append(town.kill_database)
    tasks = []
    for index in range(clients):
        number = index % len(town.keys)
        rng = random.Random(f"{town.rng.random()} {index}")
        port = town.served.http.base_url.port or 0
        client = Client(port, town.keys[number], number == 0, town.world, rng)
        tasks.append(asyncio.create_task(client.run(stop)))
    try:
        while len(killed) < kills or len(town.world.answers) < requests:
            began = len(town.world.answers)
            while len(town.world.answers) - began < requests / (kills + 1):
                await asyncio.sleep(0.05)
                done = [task for task in tasks if task.done()]
                if done:
                    done[0].result()
            if len(killed) < kills:
                await asyncio.sleep(town.rng.random() * 0.5)
                kill = kinds[len(killed) % len(kinds)]
                await asyncio.to_thread(kill)
                killed.append(kill.__name__)
    finally:
        stop.set()
        await asyncio.gather(*tasks, return_exceptions=True)
    return killed


def find_losses(town: Town) -> list[str]:
    """Compares the books with what clients saw, after the sweep of a restarted server."""
    platform = Platform.open(server_config(town.served.database))
    platform.sweeper.sweep(dead_after_seconds=0)
    problems = platform.usage.audit()
    rows, charges = platform.database.read(
        lambda c: (
            {row.id: row for row in c.execute(select(generations))},
            {
                row.request_id: -row.amount_nano
                for row in c.execute(select(ledger).where(ledger.c.kind == "settle"))
            },
        )
    )
    price = platform.prices.current("tiny")
    assert price is not None
    problems += [f"{name} was answered and is lost" for name in town.world.answers.keys() - rows]
    for name, row in rows.items():
        found = town.world.answers.get(name)
        sent = 0 if found is None else found.tokens
        billed = row.output_tokens + row.reasoning_tokens
        most = sent + FLUSH_TOKENS
        if row.key_id in town.whole_keys and not sent:
            most = row.max_output_tokens if row.outcome in ("finished", "expired") else 0
        elif row.key_id in town.whole_keys:
            most = sent
        if row.state != "settled":
            problems.append(f"{name} is still open")
        if not sent <= billed <= most:
            problems.append(f"{name} ({row.outcome}): {sent} tokens delivered, {billed} billed")
        prompt = row.cache_hit_tokens + row.input_tokens
        if prompt != (row.prompt_tokens if billed else 0):
            problems.append(
                f"{name} ({row.outcome}): {prompt} of {row.prompt_tokens} prompt tokens"
            )
        counts = TokenCounts(
            row.cache_hit_tokens, row.input_tokens, row.output_tokens, row.reasoning_tokens
        )
        if charges.get(name) != price.charge_nano(counts):
            problems.append(f"{name}: charged {charges.get(name)} for {counts}")
    platform.close()
    return problems


def through_crashes(town: Town, *, clients: int, requests: int, kills: int) -> None:
    try:
        killed = asyncio.run(live(town, clients=clients, requests=requests, kills=kills))
    finally:
        town.served.close()
    assert find_losses(town) == []
    world = town.world
    assert len(killed) == kills and len(world.answers) >= requests
    assert set(world.statuses) <= {0, 200, 402, 429, 500, 503}, world.statuses
    assert sum(answer.tokens for answer in world.answers.values()) > requests
    assert any(answer.tokens and not answer.ended for answer in world.answers.values())


def test_what_clients_received_is_billed_through_crashes(
    model: Path, tmp_path: Path, unsynced_library: Path
) -> None:
    town = open_town(model, tmp_path, unsynced_library, None, random.Random(5))
    through_crashes(town, clients=12, requests=90, kills=2)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_ten_thousand_requests_of_64_clients_and_twenty_kills(
    kind: str, request: pytest.FixtureRequest, model: Path, tmp_path: Path, unsynced_library: Path
) -> None:
    """Server, engine and, on PostgreSQL, database are killed in turn; on SQLite the power goes
    with the server, torn or clean."""
    postgres = request.getfixturevalue("postgres") if kind == "postgresql" else None
    town = open_town(model, tmp_path, unsynced_library, postgres, random.Random(kind))
    through_crashes(town, clients=64, requests=10_000, kills=20)
