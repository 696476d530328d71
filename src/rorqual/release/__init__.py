"""Releases that can be checked: OpenSSF model signatures, keys and their rotation, the SBOM.

No torch. Nothing here reaches a network.
"""

from rorqual.release.dsse import (
    PrivateKey,
    PublicKey,
    fresh_key,
    public_half,
    read_private_key,
    read_public_key,
    write_private_key,
)
from rorqual.release.machine import machine_key, sign_here
from rorqual.release.manifest import SIGNATURE_FILE, Manifest, read_manifest, signature_path
from rorqual.release.trust import ELSEWHERE, Trust, examine, known_keys, sign_model
from rorqual.release.trusted import (
    ROTATION_SUFFIX,
    TrustedKeys,
    follow_rotations,
    pinned_keys,
    rotate,
)

__all__ = [
    "ELSEWHERE",
    "ROTATION_SUFFIX",
    "SIGNATURE_FILE",
    "Manifest",
    "PrivateKey",
    "PublicKey",
    "Trust",
    "TrustedKeys",
    "examine",
    "follow_rotations",
    "fresh_key",
    "known_keys",
    "machine_key",
    "pinned_keys",
    "public_half",
    "read_manifest",
    "read_private_key",
    "read_public_key",
    "rotate",
    "sign_here",
    "sign_model",
    "signature_path",
    "write_private_key",
]
