"""What deploy/, the Dockerfile and docs/deploy.md name is there: files, commands, keys, routes."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from rorqual.cli.main import build_app
from rorqual.config.server import ServerConfig
from rorqual.platform import Level
from rorqual.server.serving import check_bind

ROOT = Path(__file__).resolve().parents[1]
SERVICE = (ROOT / "deploy" / "rorqual.service").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()


def settings() -> dict:
    return tomllib.loads((ROOT / "deploy" / "server.toml").read_text())


def value(name: str) -> str:
    """A setting of the unit."""
    (found,) = re.findall(rf"^{name}=(.*)$", SERVICE, re.MULTILINE)
    return found


def check_command(words: list[str]) -> None:
    """Every verb and flag of a `rorqual ...` line exists."""
    command: Any = get_command(build_app(words[0]))
    while hasattr(command, "get_command"):
        name = words.pop(0)
        command = command.get_command(None, name)
        assert command is not None, name
    known = {flag for param in command.params for flag in param.opts}
    assert {word for word in words if word.startswith("--")} <= known, words


def test_the_example_configuration_may_be_served() -> None:
    config = ServerConfig.model_validate(settings())
    check_bind(config)
    assert config.mode == "platform"
    assert {price.model for price in config.prices} == {model.name for model in config.models}
    assert value("StateDirectory") == "rorqual" and "/var/lib/rorqual/" in config.database.url


def test_a_container_may_listen_on_every_address_behind_its_proxy() -> None:
    raw = settings()
    raw["http"] |= {"host": "0.0.0.0", "trusted_proxies": ["172.17.0.1"]}
    check_bind(ServerConfig.model_validate(raw))


def test_the_unit_starts_what_exists_and_waits_for_the_drain() -> None:
    path, *words = value("ExecStart").split()
    assert path.endswith("/bin/rorqual")
    check_command(words)
    config = ServerConfig.model_validate(settings())
    assert int(value("TimeoutStopSec")) > config.http.drain_seconds
    assert int(value("LimitNOFILE")) > 2 * config.http.max_connections


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    binary = tmp_path / "rorqual"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    unit = tmp_path / "rorqual.service"
    unit.write_text(SERVICE.replace("/opt/rorqual/bin/rorqual", str(binary)))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    told = [line for line in done.stderr.splitlines() if "rorqual" in line]
    assert done.returncode == 0 and told == []


def copied() -> list[str]:
    """What the Dockerfile copies from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_the_image_is_built_from_what_exists_and_is_sent() -> None:
    allowed = [
        line[1:].rstrip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert len(copied()) > 8
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(source.rstrip("/") == one or source.startswith(f"{one}/") for one in allowed)
    installed = re.findall(r"install\(DIRECTORY (\w+)", (ROOT / "CMakeLists.txt").read_text())
    assert {"configs", "web"} <= set(installed) <= {source.rstrip("/") for source in copied()}
    for used in re.findall(r"-r (\S+)|python (scripts/\S+)", DOCKERFILE):
        assert "".join(used) in copied()


def test_the_image_serves_without_root_and_without_torch() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER rorqual$", last, re.MULTILINE) and "apt-get" not in last
    lock = (ROOT / "requirements" / "run.lock").read_text()
    assert not re.search(r"^torch==", lock, re.MULTILINE)
    assert "/ready" in last
    entry = re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", last, re.MULTILINE)
    words = [word for part in entry for word in re.findall(r'"([^"]*)"', part)]
    assert words[0] == "rorqual"
    check_command(words[1:])


def test_the_document_names_what_exists() -> None:
    commands = re.findall(r"^rorqual (.*)$", DOCUMENT, re.MULTILINE)
    commands += re.findall(r"`rorqual (admin[^`]*)`", DOCUMENT)
    assert len(commands) > 5
    for command in commands:
        check_command(command.split())
    fields = ServerConfig.model_fields
    for section, key in re.findall(r"`(\w+)\.(\w+)\b[^`]*`", DOCUMENT):
        if section in fields:
            kind = fields[section].annotation
            assert key in kind.model_fields, f"{section}.{key}"  # type: ignore[union-attr]
    for section in re.findall(r"`\[(\w+)\]`", DOCUMENT):
        assert section in fields, section
    for path in re.findall(r"\]\(([\w./-]+)\)", DOCUMENT):
        assert (ROOT / "docs" / path).exists(), path
    assert len(re.findall(r"^\d\. ", DOCUMENT, re.MULTILINE)) == len(Level) - 1
