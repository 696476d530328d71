"""The OpenSSF model-signing bundle: a Sigstore bundle 0.3 around an in-toto statement.

Written so that the `model-signing` program verifies it, and read where that program wrote it with
a plain key (the method `files` with SHA-256). The statement lists every file with its digest; the
signature is over the statement's bytes.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

from rorqual.errors import CheckpointError
from rorqual.release.dsse import Envelope, PrivateKey, public_half, seal
from rorqual.release.manifest import IGNORED, SIGNATURE_FILE, Manifest

_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"


def sign_manifest(manifest: Manifest, name: str, key: PrivateKey) -> str:
    """The text of the signature file of a model of that name."""
    statement = {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": manifest.digest}}],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_FILE],
            },
            "resources": [
                {"name": file, "algorithm": "sha256", "digest": digest}
                for file, digest in manifest.files.items()
            ],
        },
    }
    payload = json.dumps(statement, ensure_ascii=False).encode("utf-8")
    bundle: dict[str, Any] = {
        "mediaType": _BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": public_half(key, "").fingerprint},
            "tlogEntries": [],
        },
        "dsseEnvelope": seal(_PAYLOAD_TYPE, payload, key),
    }
    return json.dumps(bundle, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A signature file as read. `hint`: the fingerprint of the key that it claims, if it does."""

    envelope: Envelope
    hint: str | None
    where: str

    @classmethod
    def parse(cls, text: str, where: str) -> "Bundle":
        """CheckpointError if it is not such a bundle."""
        try:
            raw: Any = json.loads(text)
            kind, material = raw["mediaType"], raw["verificationMaterial"]
            hint = material["publicKey"].get("hint") or None
            envelope = raw["dsseEnvelope"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{where}: not a model signature by a plain key ({error!r}); fetch it again, or "
                "sign anew"
            ) from error
        if kind != _BUNDLE_TYPE:
            raise CheckpointError(f"{where}: is a {kind!r}, expected {_BUNDLE_TYPE}")
        return cls(Envelope.parse(envelope, _PAYLOAD_TYPE, where), hint, where)

    def manifest(self) -> Manifest:
        """The files that the statement lists. To be asked only once the signature was checked."""
        try:
            statement: Any = json.loads(self.envelope.payload)
            kinds = (statement["_type"], statement["predicateType"])
            (subject,) = statement["subject"]
            claimed = str(subject["digest"]["sha256"])
            how = statement["predicate"]["serialization"]
            method, hash_type = how["method"], how["hash_type"]
            ignored = {str(path) for path in how.get("ignore_paths", [])}
            listed = [
                (str(entry["name"]), str(entry["algorithm"]), bytes.fromhex(entry["digest"]))
                for entry in statement["predicate"]["resources"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{self.where}: not a model statement ({error!r})") from error
        if kinds != (_STATEMENT_TYPE, _PREDICATE_TYPE):
            raise CheckpointError(
                f"{self.where}: states {kinds}, expected {_STATEMENT_TYPE} of {_PREDICATE_TYPE}"
            )
        if (method, hash_type) != ("files", "sha256"):
            raise CheckpointError(
                f"{self.where}: lists {method} by {hash_type}, only files by sha256 are read here; "
                "verify it with the model-signing program"
            )
        if ignored - IGNORED:
            raise CheckpointError(
                f"{self.where}: leaves out {', '.join(sorted(ignored - IGNORED))}, of which it "
                "therefore says nothing; sign every file"
            )
        return self._checked(listed, claimed)

    def _checked(self, listed: list[tuple[str, str, bytes]], claimed: str) -> Manifest:
        """The listed digests: of names inside the model, each once, that give the claimed one."""
        files: dict[str, str] = {}
        for name, algorithm, digest in listed:
            path = PurePosixPath(name)
            plain = str(path) == name and not path.is_absolute() and ".." not in path.parts
            if not plain or name in files:
                raise CheckpointError(f"{self.where}: lists {name!r}, a path or a name used twice")
            if algorithm != "sha256" or len(digest) != sha256().digest_size:
                raise CheckpointError(f"{self.where}: {name} has no SHA-256 ({algorithm})")
            files[name] = digest.hex()
        manifest = Manifest(files)
        if manifest.digest != claimed:
            raise CheckpointError(
                f"{self.where}: its digest is {claimed}, its files give {manifest.digest}"
            )
        return manifest
