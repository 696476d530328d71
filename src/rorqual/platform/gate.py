"""What a login or a registration has to pay before it costs us anything.

Nobody is locked out by somebody else's failures. Failed logins of an account make its next logins,
the owner's too, need a proof of work (seconds, once, while the attack lasts); an address that tries
too often may go on against a harder proof. Only registrations of a busy address are told to wait.
State is in memory, bounded, and per process: a restart forgives everybody.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from rorqual.config.server import AccountsConfig
from rorqual.platform.buckets import TokenBuckets, address_group
from rorqual.platform.challenge import Challenges, Solved
from rorqual.platform.errors import NotAllowed, TooManyAttempts

_MAX_TRACKED = 65_536
_BUSY_ADDRESS_BITS = 4
_MAX_BITS = 26


@dataclass(frozen=True, slots=True)
class Proof:
    """A challenge and the number that a client found for it."""

    challenge: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Demand:
    """What a client has to solve first; bits=0 and no challenge when nothing is asked."""

    bits: int
    challenge: str | None


@dataclass(slots=True)
class _Failures:
    count: int
    first_seconds: float


class Gate:
    """Prices logins and registrations; raises before they are carried out."""

    def __init__(
        self,
        config: AccountsConfig,
        challenges: Challenges,
        *,
        overload_bits: Callable[[], int],
        spend: Callable[[Solved], bool],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._challenges = challenges
        self._overload_bits = overload_bits
        self._spend = spend
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._attempts = TokenBuckets(
            config.attempts_per_minute / 60, config.attempts_burst, _MAX_TRACKED
        )

    def registration_demand(self) -> Demand:
        """What a registration has to solve now."""
        return self._demand("register", self._bits(0))

    def login_demand(self, name: str, address: str) -> Demand:
        """What a login under this name from this address has to solve now."""
        return self._demand(f"login:{name}", self._login_bits(name, address))

    def pass_registration(self, address: str, proof: Proof | None) -> None:
        """Raises TooManyAttempts or NotAllowed (code challenge_required)."""
        group = "register " + address_group(address)
        with self._lock:
            now = self._clock()
            wait_seconds = self._attempts.missing_seconds(group, 1, now)
            if wait_seconds == 0:
                self._attempts.spend(group, 1, now)
        if wait_seconds > 0:
            raise TooManyAttempts("too many registrations from this address", wait_seconds)
        self._check(proof, "register", self._bits(0))

    def pass_login(self, name: str, address: str, proof: Proof | None) -> None:
        """Raises NotAllowed (code challenge_required) if a proof is due and not given."""
        self._check(proof, f"login:{name}", self._login_bits(name, address))
        with self._lock:
            self._attempts.spend("login " + address_group(address), 1, self._clock())

    def note_failure(self, name: str) -> None:
        """A login under this name failed (whether or not there is such an account)."""
        now = self._clock()
        with self._lock:
            failures = self._failures.setdefault(name, _Failures(0, now))
            if now - failures.first_seconds > self._config.failure_window_seconds:
                failures.count, failures.first_seconds = 0, now
            failures.count += 1
            self._failures.move_to_end(name)
            while len(self._failures) > _MAX_TRACKED:
                self._failures.popitem(last=False)

    def _login_bits(self, name: str, address: str) -> int:
        now = self._clock()
        with self._lock:
            failures = self._failures.get(name)
            group = "login " + address_group(address)
            busy = self._attempts.missing_seconds(group, 1, now) > 0
        recent = (
            failures is not None
            and now - failures.first_seconds <= self._config.failure_window_seconds
            and failures.count > self._config.free_failures
        )
        if busy:
            return self._bits(_BUSY_ADDRESS_BITS)
        return self._bits(0) if recent else 0

    def _bits(self, extra: int) -> int:
        if self._config.challenge_bits == 0:
            return 0
        return min(_MAX_BITS, self._config.challenge_bits + extra + self._overload_bits())

    def _demand(self, purpose: str, bits: int) -> Demand:
        return Demand(bits, self._challenges.issue(purpose, bits) if bits else None)

    def _check(self, proof: Proof | None, purpose: str, bits: int) -> None:
        if bits == 0:
            return
        if proof is None:
            raise NotAllowed(
                f"a proof of work of {bits} bits is needed; ask for a challenge and solve it",
                code="challenge_required",
                param="challenge",
            )
        solved = self._challenges.check(proof.challenge, proof.nonce, purpose, bits)
        if not self._spend(solved):
            raise NotAllowed(
                "proof of work refused: it was used before; ask for a new challenge",
                code="challenge_required",
                param="challenge",
            )
