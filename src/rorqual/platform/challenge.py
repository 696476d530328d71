"""Proof of work: a client pays with hashes before it costs us a password hash or an account.

A challenge is a signed text that says what it is for, how hard it is and when it expires, so that
nothing is stored when one is handed out. A solution is a number whose SHA-256 together with the
challenge begins with so many zero bits. That each is used once is for the database to see to
(`challenge_id` is inserted as a primary key). This raises the price of a flood; solvers can be
bought, so it is no proof of a person.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass

from rorqual.platform.errors import NotAllowed

_MAX_CHALLENGE_CHARACTERS = 512
_MAX_NONCE_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class Solved:
    """A challenge that was solved: its identity, and when it may be forgotten."""

    challenge_id: str
    expires_seconds: float


@dataclass(frozen=True, slots=True)
class _Signed:
    bits: int
    expires: float
    id: str
    purpose: str


class Challenges:
    """Hands out challenges and checks their solutions. Every server with the secret can do both."""

    def __init__(self, secret: bytes, valid_seconds: float, clock: Callable[[], float]) -> None:
        self._secret = secret
        self._valid_seconds = valid_seconds
        self._clock = clock

    def issue(self, purpose: str, bits: int) -> str:
        """A fresh challenge for one purpose ('register', 'login:NAME')."""
        fields = _Signed(
            bits=bits,
            expires=round(self._clock() + self._valid_seconds, 3),
            id=secrets.token_hex(16),
            purpose=hashlib.sha256(purpose.encode("utf-8", "surrogatepass")).hexdigest(),
        )
        body = base64.urlsafe_b64encode(json.dumps(asdict(fields)).encode()).decode()
        return f"{body}.{self._signature(body)}"

    def check(self, challenge: str, nonce: str, purpose: str, bits: int) -> Solved:
        """Raises NotAllowed unless it is ours, for this, hard enough, in time and solved."""
        signed = self._signed_fields(challenge)
        if len(nonce) > _MAX_NONCE_CHARACTERS or not nonce.isdecimal():
            raise _refused("its nonce is not a decimal number")
        digest = hashlib.sha256(purpose.encode("utf-8", "surrogatepass")).hexdigest()
        if signed.purpose != digest:
            raise _refused("it was handed out for something else")
        if signed.expires < self._clock():
            raise _refused("it has expired")
        if signed.bits < bits:
            raise _refused(f"it is too easy: {signed.bits} bits, {bits} are needed now")
        if leading_zero_bits(challenge, nonce) < signed.bits:
            raise _refused("its nonce does not solve it")
        return Solved(signed.id, signed.expires)

    def _signed_fields(self, challenge: str) -> "_Signed":
        if len(challenge) > _MAX_CHALLENGE_CHARACTERS or not challenge.isascii():
            raise _refused("it is not one of ours")
        body, _, signature = challenge.partition(".")
        if not hmac.compare_digest(signature, self._signature(body)):
            raise _refused("it is not one of ours")
        return _Signed(**json.loads(base64.urlsafe_b64decode(body)))

    def _signature(self, body: str) -> str:
        return hmac.new(self._secret, body.encode(), hashlib.sha256).hexdigest()


def leading_zero_bits(challenge: str, nonce: str) -> int:
    """Of SHA-256(challenge ':' nonce): what a client counts, too."""
    digest = hashlib.sha256(f"{challenge}:{nonce}".encode()).digest()
    return 256 - int.from_bytes(digest, "big").bit_length()


def solve(challenge: str, bits: int) -> str:
    """The smallest nonce; for our own clients and tests."""
    nonce = 0
    while leading_zero_bits(challenge, str(nonce)) < bits:
        nonce += 1
    return str(nonce)


def _refused(reason: str) -> NotAllowed:
    return NotAllowed(
        f"proof of work refused: {reason}; ask for a new challenge and solve it",
        code="challenge_required",
        param="challenge",
    )
