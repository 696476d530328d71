"""`rorqual serve` in a process of its own, over a tiny random network."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from rorqual.checkpoint import save_model
from rorqual.model import Transformer, initialize
from rorqual.tokenizer import Tokenizer
from tests.conftest import small_config


def save_tiny_model(tokenizer: Tokenizer, path: Path) -> None:
    """A random network in published form."""
    config = small_config(
        vocab_size=tokenizer.vocab_size,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    network = Transformer(config)
    initialize(network, 0)
    save_model(network, tokenizer, path)


class Served:
    """`rorqual serve` in a process of its own, with a file of settings."""

    def __init__(
        self,
        model: Path,
        folder: Path,
        extra: str = "",
        *,
        engine: str = "",
        database: str | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.database = database or f"sqlite:///{folder / 'server.db'}"
        self.environment = environment
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (folder / "server.toml").write_text(f"""{extra}
[http]
port = {port}
drain_seconds = 20
max_connections_per_address = 2000
[[models]]
name = "tiny"
path = "{model}"
[engine]
precision = "fp32"
max_cache_bytes = 16777216
num_threads = 1
{engine}
[database]
url = "{self.database}"
""")
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self.start()

    def start(self) -> None:
        command = "import typer; from rorqual.cli.serve import serve; typer.run(serve)"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", command, "--config", str(self.folder / "server.toml")],
                stderr=log,
                env=os.environ | self.environment,
            )
        until = time.monotonic() + 120
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if self.http.get("/ready").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        pytest.fail((self.folder / "log").read_text())

    def children(self) -> list[str]:
        pid = self.process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def close(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()


def all_gone(pids: list[str]) -> bool:
    """Whether the processes end, given a moment."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids):
            return True
        time.sleep(0.1)
    return False
