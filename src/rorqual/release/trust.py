"""Whether a model is what its signature says, and whose signature that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rorqual.errors import CheckpointError
from rorqual.release.bundle import Bundle, sign_manifest
from rorqual.release.dsse import PrivateKey, PublicKey
from rorqual.release.machine import MACHINE, machine_key
from rorqual.release.manifest import (
    WHOLE_FILE,
    Manifest,
    file_digest,
    list_files,
    read_manifest,
    signature_path,
)
from rorqual.release.trusted import TrustedKeys, pinned_keys

TrustState = Literal["signed", "local", "unsigned", "unknown_key", "changed", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Trust:
    """What is known of a model.

    signed, local: every file is as the key signed it, a trusted one or this machine's; digest is
    the files', fingerprint and signer the key's. unknown_key: fingerprint is only what the
    signature claims. changed: problems say which files. elsewhere: served by another server.
    """

    state: TrustState
    digest: str | None = None
    fingerprint: str | None = None
    signer: str | None = None
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether a signature was checked and every file is as it was signed."""
        return self.state in ("signed", "local")

    @property
    def label(self) -> str:
        """In words, for people."""
        if self.state == "signed":
            return f"signed by {self.signer}"
        if self.state == "local":
            return "trained on this machine"
        if self.state == "unknown_key":
            return "signed by an unknown key"
        if self.state == "changed":
            return f"does not match its signature: {'; '.join(self.problems)}"
        return "unsigned" if self.state == "unsigned" else "served by another server"

    def to_json(self) -> dict[str, Any]:
        """For programs and for the app; digests and fingerprints in hexadecimal."""
        return {
            "state": self.state,
            "label": self.label,
            "digest": self.digest,
            "fingerprint": self.fingerprint,
            "signer": self.signer,
            "problems": list(self.problems),
        }


ELSEWHERE = Trust("elsewhere")


def known_keys(more: Sequence[PublicKey] = ()) -> TrustedKeys:
    """The package's keys, these, and this machine's."""
    own = machine_key()
    return pinned_keys().with_keys(*more).with_keys(*([] if own is None else [own]))


def sign_model(model: Path, key: PrivateKey) -> Manifest:
    """Sign every file of a model directory, or a model in one file; what was signed."""
    manifest = read_manifest(model)
    text = sign_manifest(manifest, model.resolve().name, key)
    signature_path(model).write_text(text, encoding="utf-8")
    return manifest


def examine(model: Path, trusted: TrustedKeys) -> Trust:
    """Check a model against its signature. Without a signature nothing is hashed."""
    path = signature_path(model)
    if not path.exists():
        return Trust("unsigned")
    name = path.name
    try:
        bundle = Bundle.parse(path.read_text(encoding="utf-8"), name)
        candidates = trusted if bundle.hint is None else [trusted.find(bundle.hint)]
        known = [key for key in candidates if key is not None]
        if not known:
            return Trust("unknown_key", fingerprint=bundle.hint)
        signer = next((key for key in known if bundle.envelope.is_signed_by(key)), None)
        if signer is None:
            return Trust("changed", problems=(f"{name} was changed after it was signed",))
        signed = bundle.manifest()
    except (CheckpointError, OSError, UnicodeDecodeError) as error:
        return Trust("changed", problems=(str(error),))
    problems = _differences(model, signed)
    if problems:
        return Trust("changed", None, signer.fingerprint, signer.name, tuple(problems))
    state = "local" if signer.name == MACHINE else "signed"
    return Trust(state, signed.digest, signer.fingerprint, signer.name)


def _differences(model: Path, signed: Manifest) -> list[str]:
    """Every file that is not as it was signed, in words that begin with its name."""
    files, special = list_files(model)
    found: list[str] = []
    for name, digest in signed.files.items():
        if name not in files:
            found.append(f"{_shown(model, name)} is missing")
            continue
        try:
            if file_digest(files[name]) != digest:
                found.append(f"{_shown(model, name)} was changed")
        except CheckpointError as error:
            found.append(str(error))
    found += [f"{_shown(model, name)} was added" for name in files if name not in signed.files]
    return [*found, *(f"{_shown(model, name)} is a link or a special file" for name in special)]


def _shown(model: Path, name: str) -> str:
    """A file's name: of a model in one file, that file's; control characters made visible."""
    text = model.name if name == WHOLE_FILE else name
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
