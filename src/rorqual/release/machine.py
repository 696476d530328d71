"""The key of this machine: what was trained here is told from what came from elsewhere.

Made at the first save, kept among the user's own data, read by its owner alone. It proves nothing
to anybody else, and nothing on another machine.
"""

import os
import warnings
from contextlib import suppress
from pathlib import Path

from rorqual.release.bundle import sign_manifest
from rorqual.release.dsse import (
    PrivateKey,
    PublicKey,
    fresh_key,
    public_half,
    read_private_key,
    write_private_key,
)
from rorqual.release.manifest import SIGNATURE_FILE, read_manifest

MACHINE = "this machine"


def machine_key_path() -> Path:
    """rorqual/machine-key.pem among the user's data (XDG_DATA_HOME, by default ~/.local/share)."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "rorqual" / "machine-key.pem"


def machine_key() -> PublicKey | None:
    """The public half; None where nothing was saved yet."""
    path = machine_key_path()
    return public_half(read_private_key(path), MACHINE) if path.is_file() else None


def sign_here(directory: Path, name: str) -> None:
    """Sign a directory that was made on this machine, of that name once it is in place.

    Where no key can be kept (a home that cannot be written), a warning, and it stays unsigned.
    """
    try:
        key = _own_key()
    except OSError as error:
        warnings.warn(
            f"{machine_key_path()}: cannot be kept ({error}); what is saved stays unsigned. Set "
            "XDG_DATA_HOME to a folder that can be written",
            stacklevel=2,
        )
        return
    text = sign_manifest(read_manifest(directory), name, key)
    (directory / SIGNATURE_FILE).write_text(text, encoding="utf-8")


def _own_key() -> PrivateKey:
    path = machine_key_path()
    if not path.is_file():
        with suppress(FileExistsError):  # another process was first: its key is taken
            write_private_key(path, fresh_key())
    return read_private_key(path)
