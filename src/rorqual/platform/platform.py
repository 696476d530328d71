"""The platform, opened: one object that the server holds, and the thread that keeps it in order."""

import secrets
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, delete, select

from rorqual.config.server import ServerConfig
from rorqual.errors import RorqualError
from rorqual.platform.accounts import Accounts, User
from rorqual.platform.admission import Admission
from rorqual.platform.challenge import Challenges, Solved
from rorqual.platform.conversations import Conversations
from rorqual.platform.database import Database
from rorqual.platform.gate import Gate, Proof
from rorqual.platform.keys import ApiKeys
from rorqual.platform.ledger import Ledger
from rorqual.platform.meter import Meter
from rorqual.platform.migrate import migrate
from rorqual.platform.overload import Level
from rorqual.platform.prices import Prices
from rorqual.platform.responses import Responses
from rorqual.platform.secret_text import new_id
from rorqual.platform.statements import insert_if_absent
from rorqual.platform.sweeper import Sweeper
from rorqual.platform.tables import settings, spent_challenges
from rorqual.platform.usage import Usage
from rorqual.units import parse_nano

T = TypeVar("T")
_TICK_SECONDS = 0.25
_HELD_LEVEL = "overload.held_level"
_CHALLENGE_SECRET = "challenge.secret"


class Platform:
    """Accounts, keys, money, admission and conversations over one database."""

    @classmethod
    def open(
        cls,
        config: ServerConfig,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> "Platform":
        """Opens the database, brings its schema up to date and enters the configured prices."""
        database = Database(config.database)
        try:
            migrate(database)
            platform = cls(database, config, clock=clock, monotonic=monotonic)
            platform.prices.add_all(config.prices)
            platform.sweeper.beat()
        except BaseException:
            database.close()
            raise
        return platform

    def __init__(
        self,
        database: Database,
        config: ServerConfig,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.config = config
        self.database = database
        self.instance_id = new_id("server")
        self._clock = clock
        self._monotonic = monotonic
        self.admission = Admission(config.admission, config.overload, monotonic)
        gate = Gate(
            config.accounts,
            Challenges(self._secret(), config.accounts.challenge_seconds, clock),
            overload_bits=lambda: int(self.admission.ladder.level),
            spend=self._spend_challenge,
            clock=clock,
        )
        self.accounts = Accounts(
            database,
            config.accounts,
            gate,
            registration_open=lambda: self.admission.ladder.registration_open,
            clock=clock,
        )
        self.keys = ApiKeys(database, clock)
        self.prices = Prices(database, clock)
        self.ledger = Ledger(database, config.metering, instance_id=self.instance_id, clock=clock)
        self.usage = Usage(database)
        self.conversations = Conversations(database, instance_id=self.instance_id, clock=clock)
        self.responses = Responses(database, config.responses, clock)
        self.sweeper = Sweeper(
            database,
            self.ledger,
            self.conversations,
            self.responses,
            config.metering,
            instance_id=self.instance_id,
            clock=clock,
        )
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None
        self.last_failure: RorqualError | None = None

    def register(self, name: str, password: str, *, address: str, proof: Proof | None) -> User:
        """A new user by their own wish, with the balance that new accounts are given."""
        user = self.accounts.register(name, password, address=address, proof=proof)
        gift_nano = parse_nano(self.config.accounts.starting_balance)
        if gift_nano:
            self.ledger.top_up(user.id, gift_nano, f"welcome-{user.id}", note="welcome")
        return self.accounts.get(user.id)

    def local_user(self) -> User | None:
        """The user whom nobody has to log in as, in local mode; None in platform mode."""
        return self.accounts.local_user() if self.config.mode == "local" else None

    def meter(self, request_id: str) -> "Meter[T]":
        """Holds a stream's items back until their tokens are committed."""
        return Meter(self.ledger, self.config.metering, request_id, clock=self._monotonic)

    def hold_level(self, level: Level | None) -> None:
        """Holds every server of this database at a step of the overload ladder, or lets go."""

        def keep(connection: Connection) -> None:
            connection.execute(delete(settings).where(settings.c.name == _HELD_LEVEL))
            if level is not None:
                row = {"name": _HELD_LEVEL, "value": str(int(level))}
                insert_if_absent(connection, settings, row)

        self.database.write(keep)
        self.admission.hold_level(level)

    def start(self) -> None:
        """Starts the thread that ticks admission, beats, and sweeps up after dead servers."""
        assert self._keeper is None, "the platform is started once"
        self._keeper = threading.Thread(target=self._keep, name="rorqual-platform", daemon=True)
        self._keeper.start()

    def close(self) -> None:
        """Ends the thread and closes the database; open requests are left to the next sweep."""
        self._stop.set()
        if self._keeper is not None:
            self._keeper.join()
        try:
            self.keys.note_uses()
            self.sweeper.retire()
        finally:
            self.database.close()

    def _keep(self) -> None:
        metering = self.config.metering
        next_beat = next_sweep = self._monotonic()
        while not self._stop.wait(_TICK_SECONDS):
            self.admission.tick()
            now = self._monotonic()
            if now < next_beat:
                continue
            next_beat = now + metering.heartbeat_seconds
            try:
                self.sweeper.beat()
                if now >= next_sweep:  # the dead have been silent for longer than this anyway
                    self.sweeper.sweep()
                    next_sweep = now + metering.dead_after_seconds / 2
                self.keys.note_uses()
                self.admission.hold_level(self._held_level())
                self.last_failure = None
            except RorqualError as error:  # kept for /ready; the next beat tries again
                self.last_failure = error

    def _held_level(self) -> Level | None:
        query = select(settings.c.value).where(settings.c.name == _HELD_LEVEL)
        value = self.database.read(lambda connection: connection.execute(query).scalar())
        return None if value is None else Level(int(value))

    def _secret(self) -> bytes:
        """What challenges are signed with: one secret a database, made by whoever comes first."""
        fresh = {"name": _CHALLENGE_SECRET, "value": secrets.token_hex(32)}
        query = select(settings.c.value).where(settings.c.name == _CHALLENGE_SECRET)

        def make(connection: Connection) -> str:
            insert_if_absent(connection, settings, fresh)
            return connection.execute(query).scalar_one()

        return bytes.fromhex(self.database.write(make))

    def _spend_challenge(self, solved: Solved) -> bool:
        row = {"id": solved.challenge_id, "expires_ms": round(solved.expires_seconds * 1000) + 1000}
        return self.database.write(
            lambda connection: insert_if_absent(connection, spent_challenges, row)
        )
