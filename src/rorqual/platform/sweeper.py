"""What a crash left open is closed: requests settled from their log, runs marked interrupted.

Each server process is an instance that says every few seconds that it lives. An instance that has
been silent for `dead_after_seconds` is taken for dead, and any other server, or itself after a
restart, closes what it had open. Should it come back after all, its next `log` is refused, so it
cannot deliver unbilled tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, or_, select, update

from rorqual.config.server import MeteringConfig
from rorqual.platform.conversations import Conversations
from rorqual.platform.database import Database
from rorqual.platform.ledger import Ledger
from rorqual.platform.responses import Responses
from rorqual.platform.tables import generations, instances, runs, spent_challenges


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep closed."""

    num_requests: int
    num_runs: int


class Sweeper:
    """Keeps this instance alive in the database, and cleans up after dead ones."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        conversations: Conversations,
        responses: Responses,
        config: MeteringConfig,
        *,
        instance_id: str,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._conversations = conversations
        self._responses = responses
        self._config = config
        self._instance_id = instance_id
        self._clock = clock

    def beat(self) -> None:
        """Says that this instance lives."""
        now_ms = round(self._clock() * 1000)
        row = {"id": self._instance_id, "started_ms": now_ms, "beat_ms": now_ms}

        def beat_once(connection: Connection) -> None:
            mine = update(instances).where(instances.c.id == self._instance_id)
            if connection.execute(mine.values(beat_ms=now_ms)).rowcount == 0:
                connection.execute(insert(instances), row)

        self._database.write(beat_once)

    def sweep(self, *, dead_after_seconds: float | None = None) -> Swept:
        """Closes what dead instances left open, and requests past their expiry.

        dead_after_seconds=0 takes every other instance for dead: right where there can be only one,
        as after the restart of a single server.
        """
        now_ms = round(self._clock() * 1000)
        silent = (
            self._config.dead_after_seconds if dead_after_seconds is None else dead_after_seconds
        )
        alive = select(instances.c.id).where(
            or_(
                instances.c.beat_ms > now_ms - round(silent * 1000),
                instances.c.id == self._instance_id,
            )
        )
        if dead_after_seconds == 0:
            alive = select(instances.c.id).where(instances.c.id == self._instance_id)
        abandoned = select(generations.c.id).where(
            generations.c.state == "open",
            or_(generations.c.instance_id.not_in(alive), generations.c.expires_ms < now_ms),
        )
        dead_runs = select(runs.c.id).where(
            runs.c.state == "running", runs.c.instance_id.not_in(alive)
        )
        request_ids, run_ids = self._database.read(
            lambda connection: (
                connection.execute(abandoned).scalars().all(),
                connection.execute(dead_runs).scalars().all(),
            )
        )
        for run_id in run_ids:
            self._conversations.interrupt(run_id)
        for request_id in request_ids:
            self._ledger.settle(request_id, outcome="interrupted")
        self._forget(now_ms)
        self._conversations.forget_events()
        self._responses.forget_old()
        return Swept(len(request_ids), len(run_ids))

    def retire(self) -> None:
        """This instance ends by itself and leaves nothing open."""
        mine = delete(instances).where(instances.c.id == self._instance_id)
        self._database.write(lambda connection: connection.execute(mine).rowcount)

    def _forget(self, now_ms: int) -> None:
        day_ms = 86_400_000
        old = delete(spent_challenges).where(spent_challenges.c.expires_ms < now_ms)
        gone = delete(instances).where(instances.c.beat_ms < now_ms - day_ms)

        def forget(connection: Connection) -> None:
            connection.execute(old)
            connection.execute(gone)

        self._database.write(forget)
