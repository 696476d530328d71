"""`rorqual serve` over the model that ships, in a process of its own; its engine can be held."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rorqual.config.sections import read_config_file
from rorqual.config.server import ServerConfig
from rorqual.platform import Platform

REPOSITORY = Path(__file__).parents[2]
POCKET = REPOSITORY / "models" / "rorqual-pocket"
CHANGE = {"X-Rorqual": "1"}
# One commit a token, so that a browser sees thinking grow; a dead server's runs end soon.
_METERING = """
[metering]
flush_tokens = 1
heartbeat_seconds = 0.3
dead_after_seconds = 1.5
"""
PLATFORM = """
mode = "platform"
[accounts]
registration = "open"
starting_balance = "2"
challenge_bits = 12
[[prices]]
model = "rorqual-pocket"
cache_hit = 1
input = 10
output = 100
reasoning = 200
"""


class RealServer:
    """Started, killed and started again on one port, one database and one folder of runs."""

    def __init__(self, folder: Path, mode: str = "local") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.database = f"sqlite:///{folder / 'server.db'}"
        self.runs = folder / "runs"
        self._folder = folder
        (folder / "server.toml").write_text(
            f"""{PLATFORM if mode == "platform" else ""}{_METERING}
[http]
port = {port}
[[models]]
name = "rorqual-pocket"
path = "{POCKET}"
[engine]
num_threads = 1
[database]
url = "{self.database}"
[watch]
silence_seconds = 600
[lab]
runs_folder = "{self.runs}"
"""
        )
        self.start()

    def start(self) -> None:
        """Returns when the model is loaded."""
        command = [sys.executable, "-m", "rorqual.cli.main", "serve", "--config", "server.toml"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        until = time.monotonic() + 300
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/ready").status_code == 200:
                    return
            time.sleep(0.2)
        self.kill()
        pytest.fail((self._folder / "log").read_text())

    def kill(self) -> None:
        """kill -9, as a crash or the kernel's own hand would."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def client(self, cookies: Any = None) -> httpx.Client:
        """Speaks the app's interface; it does not raise."""
        return httpx.Client(base_url=self.url, headers=CHANGE, cookies=cookies, timeout=60)

    @contextlib.contextmanager
    def platform(self) -> Iterator[Platform]:
        """The server's own books, read from another process as an operator's tools do."""
        config = read_config_file(self._folder / "server.toml")
        opened = Platform.open(ServerConfig.model_validate(config))
        yield opened
        opened.close()

    def _engine(self) -> int:
        """The process in which the model runs."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            if b"backends.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        raise AssertionError(f"the server has no engine among its children: {children}")

    @contextlib.contextmanager
    def stepped(self) -> Iterator["Stepper"]:
        """Within, the engine stands still but for the steps that are asked for: a pocket model in
        the middle of a thought for as long as a test needs, however busy the machine is."""
        engine = self._engine()
        os.kill(engine, signal.SIGSTOP)
        try:
            yield Stepper(engine)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(engine, signal.SIGCONT)


class Stepper:
    """Lets a stopped process run for a little of its own time, over and over."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def until(self, page: Any, selector: str, seconds_each: float = 0.003) -> None:
        """Steps until the page shows something."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            self._run(seconds_each)
            page.wait_for_timeout(50)
            if page.locator(selector).count():
                return
        raise AssertionError(f"{selector} never came")

    def _run(self, seconds: float) -> None:
        enough = self._used_seconds() + seconds
        idle = time.monotonic() + 0.3  # nothing to do, or other processes have the processor
        os.kill(self._pid, signal.SIGCONT)
        while self._used_seconds() < enough and time.monotonic() < idle:
            time.sleep(0.001)
        os.kill(self._pid, signal.SIGSTOP)

    def _used_seconds(self) -> float:
        tasks = Path(f"/proc/{self._pid}/task")
        return sum(int((one / "schedstat").read_text().split()[0]) for one in tasks.iterdir()) / 1e9
