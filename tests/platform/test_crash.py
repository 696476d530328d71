"""Servers killed at random moments, power cut on top: every delivered token is billed, once."""

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select

from rorqual.platform import Platform, TokenCounts
from rorqual.platform.tables import generations, ledger
from tests.platform.conftest import server_config
from tests.platform.crash_worker import FLUSH_TOKENS, MAX_ITEM_TOKENS
from tests.platform.postgres import Postgres
from tests.platform.power import cut_power

ROOT = Path(__file__).resolve().parents[2]
MAX_BATCH_TOKENS = FLUSH_TOKENS + MAX_ITEM_TOKENS - 1
NUM_USERS = 3


@dataclass
class World:
    """What clients saw, over all rounds."""

    path: Path
    reserved: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    prompt: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        for line in self.path.read_text().split("\n")[:-1]:
            word, request_id, *numbers = line.split()
            if word == "sent":
                prompt, output = map(int, numbers)
                self.prompt[request_id] = prompt
                self.sent[request_id] = max(output, self.sent.get(request_id, 0))
            else:
                (self.reserved if word == "reserved" else self.settled).add(request_id)


def run_and_kill(
    url: str,
    world: World,
    round_name: str,
    *,
    after_seconds: float,
    threads: int = 8,
    requests: int = 100_000,
    syncs: str = "always",
    preload: Path | None = None,
) -> None:
    """One server, killed some seconds after it began to serve (or finished, whichever is first)."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = os.environ | {"PYTHONPATH": paths}
    if preload is not None:
        environment["LD_PRELOAD"] = str(preload)
    arguments = [url, str(world.path), round_name, str(threads), str(requests), syncs]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.platform.crash_worker", *arguments],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(after_seconds)
        process.kill()
    world.look()


def fund(url: str, amount_nano: int) -> None:
    platform = Platform.open(server_config(url))
    for index in range(NUM_USERS):
        user = platform.accounts.create(f"user {index}", None)
        platform.ledger.top_up(user.id, amount_nano, f"payment {index}")
    platform.close()


def find_losses(url: str, world: World, *, power_cut: bool = False) -> list[str]:
    """Sweeps as a restarted server does, and compares the books with what clients saw.

    A power cut may take back reservations that nothing followed."""
    platform = Platform.open(server_config(url))
    platform.sweeper.sweep(dead_after_seconds=0)
    problems = platform.usage.audit()
    requests = platform.database.read(
        lambda c: {row.id: row for row in c.execute(select(generations))}
    )
    charges = platform.database.read(
        lambda c: {
            row.request_id: -row.amount_nano
            for row in c.execute(select(ledger).where(ledger.c.kind == "settle"))
        }
    )
    price = platform.prices.current("whale")
    assert price is not None
    if power_cut:
        world.reserved &= set(requests) | set(world.sent) | world.settled
    problems += [f"{name} was acknowledged and is lost" for name in world.reserved - set(requests)]
    for name, row in requests.items():
        if row.state != "settled":
            problems.append(f"{name} is still open")
            continue
        if name in world.settled and row.outcome == "interrupted":
            problems.append(f"{name}: its settlement was acknowledged and is lost")
        billed = row.output_tokens + row.reasoning_tokens
        sent = world.sent.get(name, 0)
        if not sent <= billed <= sent + MAX_BATCH_TOKENS:
            problems.append(f"{name}: {sent} tokens delivered, {billed} billed")
        if sent and row.cache_hit_tokens + row.input_tokens != world.prompt[name]:
            problems.append(f"{name}: prompt not billed")
        counts = TokenCounts(
            row.cache_hit_tokens, row.input_tokens, row.output_tokens, row.reasoning_tokens
        )
        if charges.get(name) != price.charge_nano(counts):
            problems.append(f"{name}: charged {charges.get(name)} for {counts}")
    platform.close()
    return problems


AMPLE_NANO = 10**12


@pytest.mark.parametrize(
    ("power", "keep"), [("kept", 1.0), ("cut", 0.0), ("cut", 0.5)], ids=["kill", "cut", "torn"]
)
def test_sqlite_survives_kill_and_power_loss(
    tmp_path: Path, unsynced_library: Path, power: str, keep: float
) -> None:
    rng = random.Random(f"{power} {keep}")
    file = tmp_path / "platform.db"
    url, world = f"sqlite:///{file}", World(tmp_path / "world")
    fund(url, AMPLE_NANO)
    for index in range(2):
        preload = unsynced_library if power == "cut" else None
        seconds = 0.3 + rng.random()
        run_and_kill(url, world, f"round{index}", after_seconds=seconds, preload=preload)
        if power == "cut":
            cut_power(file, rng, keep=keep)
        assert find_losses(url, world, power_cut=power == "cut") == []
    assert len(world.sent) > 5, "the test is only worth something if something was served"


def test_the_power_cut_is_real(tmp_path: Path, unsynced_library: Path) -> None:
    """The same test, against a database that does not wait for the disk, finds the losses."""
    file = tmp_path / "platform.db"
    url, world = f"sqlite:///{file}", World(tmp_path / "world")
    fund(url, AMPLE_NANO)
    run_and_kill(url, world, "round", after_seconds=1.0, syncs="never", preload=unsynced_library)
    assert cut_power(file, random.Random(0), keep=0.0) > 0
    losses = find_losses(url, world, power_cut=True)
    assert any("acknowledged and is lost" in problem for problem in losses)


def test_postgresql_survives_kill(postgres: Postgres, tmp_path: Path) -> None:
    rng = random.Random(1)
    url, world = postgres.new_schema(), World(tmp_path / "world")
    fund(url, AMPLE_NANO)
    for index in range(2):
        run_and_kill(url, world, f"round{index}", after_seconds=0.3 + rng.random())
        assert find_losses(url, world) == []
    assert len(world.sent) > 5


def test_poor_accounts_stay_above_zero_through_kills(tmp_path: Path) -> None:
    url, world = f"sqlite:///{tmp_path / 'platform.db'}", World(tmp_path / "world")
    fund(url, 3_000_000)
    run_and_kill(url, world, "round", after_seconds=1.0)
    assert find_losses(url, world) == []
    assert world.reserved


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_ten_thousand_requests_and_twenty_kills(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, unsynced_library: Path
) -> None:
    """64 clients; on SQLite the power goes each time, torn or clean; on PostgreSQL the database
    server itself is stopped hard every fourth time."""
    rng = random.Random(kind)
    file = tmp_path / "platform.db"
    server: Postgres | None = None
    if kind == "postgresql":
        server = request.getfixturevalue("postgres")
    url = f"sqlite:///{file}" if server is None else server.new_schema()
    world = World(tmp_path / "world")
    fund(url, AMPLE_NANO)
    num_kills = 0
    while num_kills < 20 or len(world.reserved) < 10_000:
        name = f"round{num_kills}"
        seconds = 0.5 + 4 * rng.random()
        preload = unsynced_library if server is None else None
        run_and_kill(url, world, name, after_seconds=seconds, threads=64, preload=preload)
        if server is None:
            cut_power(file, rng, keep=rng.choice([0.0, 0.1, 0.5, 0.9]))
        elif num_kills % 4 == 3:
            server.stop("immediate")
            server.start()
        power_cut = server is None or num_kills % 4 == 3
        assert find_losses(url, world, power_cut=power_cut) == []
        num_kills += 1
