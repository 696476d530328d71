"""Signed envelopes (DSSE 1.0) and the keys that make them.

The bytes signed are the payload behind its type and both lengths, so that a payload of one kind
cannot be passed off as another. Keys are on NIST curves, the only plain keys that the OpenSSF
model-signing bundle knows; each curve has the hash of its own size. Signatures are deterministic
(RFC 6979): the same files and key give the same bundle.
"""

import base64
import binascii
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rorqual.errors import CheckpointError, ConfigError

PrivateKey = ec.EllipticCurvePrivateKey
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
_CURVES = "P-256, P-384 or P-521"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are checked with, under the name of its file."""

    name: str
    key: ec.EllipticCurvePublicKey

    @property
    def pem(self) -> str:
        """The text of its file."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_bytes(serialization.Encoding.PEM, form).decode("ascii")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the PEM text, hexadecimal: what `sha256sum NAME.pem` prints."""
        return sha256(self.pem.encode("ascii")).hexdigest()


def fresh_key() -> PrivateKey:
    """A new private key on P-256; it is nowhere but in this process."""
    return ec.generate_private_key(ec.SECP256R1())


def public_half(key: PrivateKey, name: str) -> PublicKey:
    """The public half of a private key."""
    return PublicKey(name, key.public_key())


def parse_public_key(pem: str, name: str, where: str) -> PublicKey:
    """A public key from its PEM text; `where` begins the error message."""
    try:
        key = serialization.load_pem_public_key(pem.encode("utf-8"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{where}: not a public key ({error}), expected PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise ConfigError(f"{where}: a key of another kind, expected {_CURVES}")
    return PublicKey(name, key)


def read_public_key(path: Path) -> PublicKey:
    """The public key in a PEM file, named after the file."""
    return parse_public_key(_text(path, "a public key"), path.stem, str(path))


def read_private_key(path: Path) -> PrivateKey:
    """The private key in an unencrypted PEM file."""
    try:
        key = serialization.load_pem_private_key(_text(path, "a private key").encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: not a private key ({error}), expected plain PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _HASHES:
        raise ConfigError(f"{path}: a key of another kind, expected {_CURVES}")
    return key


def write_private_key(path: Path, key: PrivateKey) -> None:
    """Keep a private key in a new file that only its owner reads; FileExistsError if it is there.

    Two processes that try at once agree: the file appears whole, for one of them.
    """
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text)
        os.link(temporary, path)
    finally:
        temporary.unlink()


def seal(payload_type: str, payload: bytes, key: PrivateKey) -> dict[str, Any]:
    """A payload with its signature, as DSSE writes it in JSON."""
    algorithm = _HASHES[key.curve.name]()
    signature = key.sign(
        _signed_bytes(payload_type, payload), ec.ECDSA(algorithm, deterministic_signing=True)
    )
    return {
        "payload": base64.b64encode(payload).decode("ascii"),
        "payloadType": payload_type,
        "signatures": [{"sig": base64.b64encode(signature).decode("ascii"), "keyid": ""}],
    }


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope as read: nothing in it is to be believed before `is_signed_by`."""

    payload_type: str
    payload: bytes
    signature: bytes

    @classmethod
    def parse(cls, raw: Any, payload_type: str, where: str) -> "Envelope":
        """CheckpointError if it is not an envelope with one signature over such a payload."""
        try:
            (signature,) = raw["signatures"]
            envelope = cls(
                raw["payloadType"],
                base64.b64decode(raw["payload"], validate=True),
                base64.b64decode(signature["sig"], validate=True),
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise CheckpointError(
                f"{where}: not a signed envelope ({error!r}); fetch it again"
            ) from error
        if envelope.payload_type != payload_type:
            raise CheckpointError(
                f"{where}: signs a {envelope.payload_type!r}, expected {payload_type}"
            )
        return envelope

    def is_signed_by(self, public: PublicKey) -> bool:
        """Whether the signature is that key's over exactly this payload."""
        algorithm = _HASHES[public.key.curve.name]()
        try:
            signed = _signed_bytes(self.payload_type, self.payload)
            public.key.verify(self.signature, signed, ec.ECDSA(algorithm))
        except InvalidSignature:
            return False
        return True


def _signed_bytes(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name a PEM file of {what}") from error
