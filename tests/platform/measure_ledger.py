"""Operations a second of the ledger, each durable: reserve, three logs, settle.

python -m tests.platform.measure_ledger [SECONDS] [postgresql://... of an empty schema]

Without a URL on a fresh SQLite file. On PostgreSQL each operation is a commit of its own.

Printed per number of callers: operations and commits a second, operations per commit, the time that
one caller waits for its commit, and the CPU time of an operation, callers included. `futures` keeps
so many operations in flight from one thread, as an asynchronous server does.
"""

import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from rorqual.platform import Platform, TokenCounts
from tests.platform.conftest import server_config

OPERATIONS_PER_REQUEST = 5


def one_request(platform: Platform, user_id: str, request_id: str) -> list[float]:
    """Seconds that each operation took."""
    ledger = platform.ledger
    seconds: list[float] = []

    def timed(started: float) -> None:
        seconds.append(time.perf_counter() - started)

    started = time.perf_counter()
    ledger.reserve(request_id, user_id, "whale", prompt_tokens=100, max_output_tokens=50)
    timed(started)
    for output in (1, 9, 17):
        started = time.perf_counter()
        ledger.log(request_id, TokenCounts(0, 100, output, 0))
        timed(started)
    started = time.perf_counter()
    ledger.settle(request_id, TokenCounts(0, 100, 20, 0))
    timed(started)
    return seconds


def measure_threads(platform: Platform, user_id: str, num_threads: int, seconds: float) -> str:
    until = time.perf_counter() + seconds
    waits: list[list[float]] = [[] for _ in range(num_threads)]

    def run(thread: int) -> None:
        index = 0
        while time.perf_counter() < until:
            waits[thread] += one_request(platform, user_id, f"{num_threads}-{thread}-{index}")
            index += 1

    before = platform.database.commit_counts[0]
    started, cpu = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    everything = [wait for own in waits for wait in own]
    return report(f"{num_threads:4d} threads", platform, before, elapsed, cpu, everything)


def measure_futures(platform: Platform, user_id: str, in_flight: int, seconds: float) -> str:
    """Logs of one open request each, kept in flight from one thread."""
    ledger = platform.ledger
    for index in range(in_flight):
        request_id = f"f{in_flight}-{index}"
        ledger.reserve(request_id, user_id, "whale", prompt_tokens=1, max_output_tokens=10**6)
    counts = [0] * in_flight
    pending: dict[Future[None], tuple[int, float]] = {}

    def submit(index: int) -> None:
        counts[index] += 1
        future = ledger.submit_log(f"f{in_flight}-{index}", TokenCounts(0, 1, counts[index], 0))
        pending[future] = (index, time.perf_counter())

    before = platform.database.commit_counts[0]
    started, cpu = time.perf_counter(), time.process_time()
    waits: list[float] = []
    for index in range(in_flight):
        submit(index)
    while pending:
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            index, submitted = pending.pop(future)
            future.result()
            waits.append(time.perf_counter() - submitted)
            if time.perf_counter() - started < seconds:
                submit(index)
    elapsed = time.perf_counter() - started
    return report(f"{in_flight:4d} futures (logs only)", platform, before, elapsed, cpu, waits)


def report(
    name: str,
    platform: Platform,
    commits_before: int,
    elapsed: float,
    cpu: float,
    waits: list[float],
) -> str:
    cpu_ms = (time.process_time() - cpu) / len(waits) * 1000
    commits = platform.database.commit_counts[0] - commits_before
    if not platform.database.is_sqlite:
        commits = len(waits)
    middle = statistics.median(waits) * 1000
    late = statistics.quantiles(waits, n=100)[98] * 1000
    return (
        f"{name}: {len(waits) / elapsed:.0f} operations/s, {commits / elapsed:.0f} commits/s, "
        f"{len(waits) / commits:.1f} a commit, wait p50 {middle:.2f} ms, p99 {late:.2f} ms, "
        f"{cpu_ms:.3f} ms CPU an operation"
    )


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    with tempfile.TemporaryDirectory() as directory:
        own = f"sqlite:///{Path(directory) / 'platform.db'}"
        platform = Platform.open(server_config(sys.argv[2] if len(sys.argv) > 2 else own))
        user_id = platform.accounts.create("ahab", None).id
        platform.ledger.top_up(user_id, 10**15, "payment")
        for num_threads in (1, 4, 16, 64):
            print(measure_threads(platform, user_id, num_threads, seconds), flush=True)
        for in_flight in (16, 256):
            print(measure_futures(platform, user_id, in_flight, seconds), flush=True)
        problems = platform.usage.audit()
        for request in ("f16", "f256"):
            platform.ledger.settle(f"{request}-0")
        platform.close()
        print(f"audit: {problems or 'the books add up'}")


if __name__ == "__main__":
    main()
