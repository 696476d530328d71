"""Rorqual as a gateway beside LiteLLM's proxy, both in front of the same fixed-pace server.

    python benchmarks/peers/build.py litellm   # once
    python benchmarks/gateway.py               # under six minutes

Rorqual runs in platform mode with accounts, prices and its ledger on (SQLite, every commit synced),
LiteLLM with one key and no database, each as one server process with an OpenAI upstream. Streams
are asked for at a fixed rate; targets take turns, so a slow minute hits all of them. CPU is that of
the gateway's whole process tree, user and system: two answer lengths give the part of a request and
the part of a token. What a gateway adds is its median minus that of the upstream asked directly in
the same round. A token's delay is its arrival against the direct median of the same token: a
gateway that hands tokens on in batches shows it there.
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop
from peers.build import is_built, python_of
from stub_client import Answer, Client

from rorqual.config.sections import read_config_file
from rorqual.config.server import ServerConfig
from rorqual.platform import Platform

_SHORT_TOKENS = 1
_AFTER_SECONDS = 0.5  # for what a gateway does after it has answered
_START_SECONDS = 120.0
_MASTER_KEY = "sk-benchmark"
_RORQUAL_TOML = """mode = "platform"
[http]
port = {port}
[database]
url = "sqlite:///{folder}/ledger.db"
[[models]]
name = "stub"
upstream = "http://127.0.0.1:{stub}/v1"
thinking = "never"
[[prices]]
model = "stub"
cache_hit = "0.1"
input = "1"
output = "2"
[admission]
max_running = 512
max_running_per_account = 512
max_per_account = 1024
account_tokens_per_second = 1e9
account_burst_tokens = 1000000000
address_tokens_per_second = 1e9
address_burst_tokens = 1000000000
initial_tokens_per_second = 1e6
"""
_LITELLM_YAML = """model_list:
  - model_name: stub
    litellm_params:
      model: openai/stub
      api_base: http://127.0.0.1:{stub}/v1
      api_key: none
litellm_settings:
  telemetry: false
general_settings:
  master_key: {key}
"""


@dataclass
class Target:
    """Something that answers; pid is None where its CPU is not of interest."""

    name: str
    client: Client
    pid: int | None


@dataclass
class Load:
    """What one load did: CPU of the target's process tree, and every answer."""

    cpu_seconds: float
    answers: list[Answer]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of one load")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--tokens", type=int, default=48, help="of the long answers")
    parser.add_argument("--only", choices=("rorqual", "litellm"), help="leave the other out")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_args()
    if given.only != "rorqual" and not is_built("litellm"):
        parser.error("LiteLLM is not built: python benchmarks/peers/build.py litellm")
    found = measure(given)
    print_table(found)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(given: argparse.Namespace) -> dict:
    """Start everything, take turns, stop everything."""
    processes: list[subprocess.Popen[bytes]] = []
    folder = Path(tempfile.mkdtemp(prefix="gateway-"))
    try:
        targets = start_targets(folder, processes, given.only)
        return uvloop.run(take_turns(targets, given))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def start_targets(
    folder: Path, processes: list[subprocess.Popen[bytes]], only: str | None
) -> list[Target]:
    """The stub, and the gateways in front of it."""

    def start(name: str, command: list[str], url: str, **env: str) -> int:
        with (folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | env)
        processes.append(process)
        wait_until_up(process, url, folder / f"{name}.log")
        return process.pid

    stub, path = free_port(), "/v1/chat/completions"
    script = str(Path(__file__).with_name("stub_upstream.py"))
    start("stub", [sys.executable, script, str(stub)], f"http://127.0.0.1:{stub}/v1/models")
    targets = [Target("direct", Client(stub, path, "stub", "none"), None)]
    if only != "litellm":
        port = free_port()
        file = folder / "server.toml"
        file.write_text(_RORQUAL_TOML.format(port=port, folder=folder, stub=stub))
        key = make_account(file)
        command = [sys.executable, "-m", "rorqual.cli.main", "serve", "--config", str(file)]
        pid = start("rorqual", command, f"http://127.0.0.1:{port}/ready")
        targets.append(Target("rorqual", Client(port, path, "stub", key), pid))
    if only != "rorqual":
        port = free_port()
        file = folder / "litellm.yaml"
        file.write_text(_LITELLM_YAML.format(stub=stub, key=_MASTER_KEY))
        run = "from litellm.proxy.proxy_cli import run_server; run_server()"
        command = [str(python_of("litellm")), "-c", run, "--config", str(file)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        url = f"http://127.0.0.1:{port}/health/liveliness"
        pid = start("litellm", command, url, LITELLM_LOCAL_MODEL_COST_MAP="True", PYTHONPATH="")
        targets.append(Target("litellm", Client(port, path, "stub", _MASTER_KEY), pid))
    return targets


def make_account(file: Path) -> str:
    """An account with money in the server's database, and its key."""
    platform = Platform.open(ServerConfig.model_validate(read_config_file(file)))
    try:
        user = platform.accounts.create("benchmark", None)
        platform.ledger.top_up(user.id, 10**15, "benchmark")
        return platform.keys.create(user.id, "benchmark").secret
    finally:
        platform.close()


async def take_turns(targets: list[Target], given: argparse.Namespace) -> dict:
    """Rounds in which every target is loaded with short and with long answers."""
    num_requests = round(given.rate * given.seconds)
    lengths = (_SHORT_TOKENS, given.tokens)
    for target in targets:  # imports, connections and caches are warm when it counts
        for num_tokens in lengths:
            await target.client.load(num_tokens, given.rate, round(given.rate))
    rounds: list[dict] = []
    for number in range(given.rounds):
        ordered = targets if number % 2 == 0 else [targets[0], *reversed(targets[1:])]
        loads: dict[str, tuple[Load, Load]] = {}
        for target in ordered:
            short, long = [await one_load(target, n, given.rate, num_requests) for n in lengths]
            loads[target.name] = (short, long)
        direct = loads.pop("direct")
        rounds.append({name: compare(one, direct, lengths) for name, one in loads.items()})
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
    for target in targets:
        target.client.close()
    settings = {"requests_per_second": given.rate, "requests_per_load": num_requests}
    return {"settings": settings | {"tokens": given.tokens}, "rounds": rounds}


async def one_load(target: Target, num_tokens: int, rate: float, num_requests: int) -> Load:
    """One load and the CPU that it cost, that of its aftermath included."""
    before = 0.0 if target.pid is None else cpu_seconds(target.pid)
    answers = await target.client.load(num_tokens, rate, num_requests)
    await asyncio.sleep(_AFTER_SECONDS)
    after = 0.0 if target.pid is None else cpu_seconds(target.pid)
    return Load(after - before, answers)


def compare(
    loads: tuple[Load, Load], direct: tuple[Load, Load], lengths: tuple[int, int]
) -> dict[str, float]:
    """A gateway's figures of one round."""
    long = loads[1]
    per_request = [load.cpu_seconds / len(load.answers) for load in loads]
    per_token = (per_request[1] - per_request[0]) / (lengths[1] - lengths[0])
    plain = direct[1].answers
    due = [median(plain, lambda answer, n=n: answer.token_seconds[n]) for n in range(lengths[1])]
    late = [s - d for a in long.answers for s, d in zip(a.token_seconds, due, strict=True)]
    return {
        "cpu_ms_per_request": 1e3 * (per_request[0] - per_token * lengths[0]),
        "cpu_us_per_token": 1e6 * per_token,
        "cpu_ms_per_long_answer": 1e3 * per_request[1],
        "added_first_token_ms": 1e3 * (median(long.answers, first_token) - due[0]),
        "added_seconds_ms": 1e3 * (median(long.answers, whole) - median(plain, whole)),
        "token_delay_ms": 1e3 * statistics.median(late),
    }


def first_token(answer: Answer) -> float:
    """Seconds to the first token."""
    return answer.token_seconds[0]


def whole(answer: Answer) -> float:
    """Seconds to the end."""
    return answer.seconds


def median(answers: list[Answer], value: Callable[[Answer], float]) -> float:
    """The median over answers."""
    return statistics.median(value(answer) for answer in answers)


def print_table(found: dict) -> None:
    """Medians (min-max) over rounds, and ratios within rounds."""
    rounds = found["rounds"]
    names = list(rounds[0])
    print(json.dumps(found["settings"]))
    print(f"{'':24}" + "".join(f"{name:>28}" for name in names) + f"{'ratio':>22}")
    for figure in rounds[0][names[0]]:
        cells = [_spread([one[name][figure] for one in rounds]) for name in names]
        line = f"{figure:24}" + "".join(f"{cell:>28}" for cell in cells)
        if len(names) == 2 and figure.startswith("cpu"):
            line += (
                f"{_spread([one[names[0]][figure] / one[names[1]][figure] for one in rounds]):>22}"
            )
        print(line)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process and everything below it, the dead included.

    Of the living by the scheduler's clock, to the nanosecond: what the timer's ticks sample is off
    by a fifth for servers that wake for less than a tick.
    """
    try:
        own = time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(pid), as Linux builds it
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return 0.0
    own += sum(int(ticks) for ticks in fields[13:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Until the address answers with 200."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    sys.exit(f"{url} does not answer:\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    main()
