"""Ten times what the engine can do: refusals are quick, accepted requests end, memory stays."""

import asyncio
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.server.served import Served

LIMITS = """mode = "local"
[admission]
max_running = 8
max_running_per_account = 8
max_queued = 16
max_per_account = 10000
max_wait_seconds = 20
account_tokens_per_second = 1e9
account_burst_tokens = 1000000000
address_tokens_per_second = 1e9
address_burst_tokens = 1000000000
"""
ASK = {"prompt": "The whale", "max_tokens": 24, "ignore_eos": True, "stream": True}


@dataclass
class Outcome:
    """What a crowd of clients saw."""

    tokens: int = 0
    accepted: int = 0
    broken: int = 0
    refusal_seconds: list[float] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)


async def crowd(url: str, num_clients: int, seconds: float) -> Outcome:
    """So many clients ask again and again; refused ones come back a little later."""
    outcome, until = Outcome(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=num_clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:

        async def one() -> None:
            while True:
                began = time.monotonic()
                async with http.stream("POST", "/v1/completions", json=ASK) as answer:
                    outcome.statuses.add(answer.status_code)
                    text = (await answer.aread()).decode()
                if answer.status_code == 200:
                    outcome.accepted += 1
                    outcome.tokens += ASK["max_tokens"] * ('finish_reason":"length' in text)
                    outcome.broken += not text.endswith("data: [DONE]\n\n")
                else:
                    outcome.refusal_seconds.append(time.monotonic() - began)
                    await asyncio.sleep(0.2)
                if time.monotonic() > until:
                    return

        await asyncio.gather(*(one() for _ in range(num_clients)))
    return outcome


def memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def overload(model: Path, folder: Path, seconds: float) -> tuple[Outcome, Outcome, float]:
    """(at capacity, at ten times that, growth of memory)."""
    served = Served(model, folder, LIMITS)
    try:
        url = str(served.http.base_url)
        calm = asyncio.run(crowd(url, 8, seconds / 4))
        before = memory_bytes(served.process.pid)
        busy = asyncio.run(crowd(url, 240, seconds))
        growth = memory_bytes(served.process.pid) / before
    finally:
        served.close()
    return calm, busy, growth


def check(calm: Outcome, busy: Outcome, growth: float) -> None:
    assert calm.statuses == {200} and busy.statuses <= {200, 429, 503}
    assert calm.broken == busy.broken == 0 and busy.accepted > 0
    assert busy.refusal_seconds and growth < 2


def test_a_short_flood_leaves_no_request_without_an_end(model: Path, tmp_path: Path) -> None:
    check(*overload(model, tmp_path, seconds=3))


@pytest.mark.soak
def test_goodput_stays_and_refusals_are_quick_for_a_minute(model: Path, tmp_path: Path) -> None:
    calm, busy, growth = overload(model, tmp_path, seconds=60)
    check(calm, busy, growth)
    assert busy.tokens / 60 >= 0.9 * calm.tokens / 15
    assert statistics.median(busy.refusal_seconds) < 0.25  # the client's own queueing included
