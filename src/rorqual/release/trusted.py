"""The public keys of Rorqual's releases, and how an old key vouches for a new one.

A wheel carries them as `rorqual/keys/*.pem`, a checkout has them in `keys/`: whoever trusts the
package trusts these. `NAME.rotation.json` is a statement, signed by an older key, that NAME.pem is
its successor: with it a user of an older package can accept a newer key without taking it on faith.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rorqual.errors import CheckpointError, ConfigError
from rorqual.release.dsse import (
    Envelope,
    PrivateKey,
    PublicKey,
    parse_public_key,
    public_half,
    read_public_key,
    seal,
)

ROTATION_SUFFIX = ".rotation.json"
_ROTATION_TYPE = "application/vnd.rorqual.key-rotation+json"
_PACKAGE = Path(__file__).resolve().parents[1]
_KEY_FOLDERS = (_PACKAGE / "keys", _PACKAGE.parents[1] / "keys")


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Keys by fingerprint."""

    keys: dict[str, PublicKey]

    @classmethod
    def of(cls, *keys: PublicKey) -> "TrustedKeys":
        """These keys, each once."""
        return cls({key.fingerprint: key for key in keys})

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(self.keys.values())

    def find(self, fingerprint: str) -> PublicKey | None:
        """The key with that fingerprint."""
        return self.keys.get(fingerprint)

    def with_keys(self, *more: PublicKey) -> "TrustedKeys":
        """These keys and those; a key that is here keeps its name."""
        return TrustedKeys(TrustedKeys.of(*more).keys | self.keys)


def pinned_keys() -> TrustedKeys:
    """The keys that this package came with; none in an installation without them."""
    folder = next((folder for folder in _KEY_FOLDERS if folder.is_dir()), None)
    if folder is None:
        return TrustedKeys({})
    return TrustedKeys.of(*(read_public_key(path) for path in sorted(folder.glob("*.pem"))))


def rotate(old: PrivateKey, new: PublicKey) -> str:
    """The text of `NAME.rotation.json`: the old key names the new one as its successor."""
    statement = {
        "name": new.name,
        "key": new.pem,
        "previous": public_half(old, "").fingerprint,
    }
    payload = json.dumps(statement, ensure_ascii=False).encode("utf-8")
    return json.dumps(seal(_ROTATION_TYPE, payload, old), indent=1) + "\n"


def follow_rotations(trusted: TrustedKeys, folder: Path) -> TrustedKeys:
    """`trusted` and every key that one of them vouches for in `folder`, directly or in a chain.

    A statement by a key that is not trusted is passed over; CheckpointError where a trusted key's
    statement is not what it signed.
    """
    files = sorted(folder.glob(f"*{ROTATION_SUFFIX}"))
    if not files:
        raise ConfigError(f"{folder}: no NAME{ROTATION_SUFFIX} there; name a folder of keys")
    waiting = [_read_rotation(path) for path in files]
    while True:
        accepted = [found for found in waiting if trusted.find(found.previous) is not None]
        if not accepted:
            return trusted
        for found in accepted:
            old = trusted.find(found.previous)
            assert old is not None
            if not found.envelope.is_signed_by(old):
                raise CheckpointError(
                    f"{found.path}: not signed by {old.name} ({old.fingerprint}), whom it names; "
                    "do not use this key"
                )
        trusted = trusted.with_keys(*(found.key for found in accepted))
        waiting = [found for found in waiting if found not in accepted]


@dataclass(frozen=True, slots=True)
class _Rotation:
    path: Path
    envelope: Envelope
    previous: str
    key: PublicKey


def _read_rotation(path: Path) -> _Rotation:
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        envelope = Envelope.parse(raw, _ROTATION_TYPE, str(path))
        statement: Any = json.loads(envelope.payload)
        name, pem, previous = (str(statement[key]) for key in ("name", "key", "previous"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a statement on keys ({error!r})") from error
    return _Rotation(path, envelope, previous, parse_public_key(pem, name, str(path)))
