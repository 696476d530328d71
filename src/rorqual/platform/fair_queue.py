"""Deficit round robin: accounts take turns, and a turn is worth tokens, not requests.

Each account with waiting requests stands in a ring. On its turn its deficit grows by a quantum
times its weight; it starts requests while the deficit covers their cost, and keeps what is left for
its next turn. So between accounts that always have something waiting, the tokens served differ by
less than one quantum and one request at any moment, however unlike their requests are, and an
account with one short request waits for one turn of each other account at most.

Shreedhar and Varghese, "Efficient fair queueing using deficit round robin", 1995.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """A waiting request of an account."""

    account_id: str
    cost_tokens: int
    item: T


@dataclass(slots=True)
class _Lane(Generic[T]):
    account_id: str
    weight: float
    entries: deque[Entry[T]] = field(default_factory=deque)
    deficit: float = 0.0
    on_turn: bool = False


class FairQueue(Generic[T]):
    """Pure policy: no clock, no threads."""

    def __init__(self, quantum_tokens: int) -> None:
        self._quantum = quantum_tokens
        self._lanes: dict[str, _Lane[T]] = {}
        self._ring: deque[_Lane[T]] = deque()
        self._num_entries = 0

    def __len__(self) -> int:
        return self._num_entries

    def push(self, account_id: str, cost_tokens: int, item: T, *, weight: float = 1.0) -> Entry[T]:
        """Puts a request at the end of its account's lane."""
        lane = self._lanes.get(account_id)
        if lane is None:
            lane = _Lane[T](account_id, weight)
            self._lanes[account_id] = lane
            self._ring.append(lane)
        entry = Entry(account_id, cost_tokens, item)
        lane.entries.append(entry)
        self._num_entries += 1
        return entry

    def remove(self, entry: Entry[T]) -> None:
        """Takes a waiting request out."""
        lane = self._lanes[entry.account_id]
        lane.entries.remove(entry)
        self._num_entries -= 1
        self._drop_if_empty(lane)

    def pop(self, blocked: Callable[[str], bool] = lambda _: False) -> Entry[T] | None:
        """The next request in turn; None if none waits outside blocked accounts.

        A blocked account (one at its limit of running requests) is passed over and gets no quantum.
        """
        passed = 0
        while self._ring:
            if passed == len(self._ring):
                if not self._skip_empty_rounds(blocked):
                    return None
                passed = 0
            lane = self._ring[0]
            if not blocked(lane.account_id):
                if not lane.on_turn:
                    lane.on_turn = True
                    lane.deficit += self._quantum * lane.weight
                if lane.entries[0].cost_tokens <= lane.deficit:
                    return self._take(lane)
            lane.on_turn = False
            self._ring.rotate(-1)
            passed += 1
        return None

    def refund(self, account_id: str, tokens: int) -> None:
        """Gives back what a served request did not use, if its account still has some waiting."""
        lane = self._lanes.get(account_id)
        if lane is not None:
            lane.deficit += tokens

    def order(self) -> list[Entry[T]]:
        """All waiting requests in the order in which they would be taken if nothing else came."""
        copy = FairQueue[T](self._quantum)
        for lane in self._ring:
            twin = _Lane(lane.account_id, lane.weight, deque(lane.entries), lane.deficit)
            twin.on_turn = lane.on_turn
            copy._lanes[lane.account_id] = twin
            copy._ring.append(twin)
        copy._num_entries = self._num_entries
        return list(copy._drain())

    def num_waiting(self, account_id: str) -> int:
        """How many requests of an account wait."""
        lane = self._lanes.get(account_id)
        return 0 if lane is None else len(lane.entries)

    def last_of_longest_lane(self) -> Entry[T] | None:
        """The newest request of the account that has the most waiting."""
        if not self._ring:
            return None
        return max(self._ring, key=lambda lane: len(lane.entries)).entries[-1]

    def _drain(self) -> Iterator[Entry[T]]:
        while (entry := self.pop()) is not None:
            yield entry

    def _take(self, lane: _Lane[T]) -> Entry[T]:
        entry = lane.entries.popleft()
        lane.deficit -= entry.cost_tokens
        self._num_entries -= 1
        self._drop_if_empty(lane)
        return entry

    def _drop_if_empty(self, lane: _Lane[T]) -> None:
        """An account with nothing waiting keeps no deficit: turns cannot be saved up."""
        if not lane.entries:
            del self._lanes[lane.account_id]
            self._ring.remove(lane)

    def _skip_empty_rounds(self, blocked: Callable[[str], bool]) -> bool:
        """After a round that served nobody: adds as many quanta to all as bring the next service
        within one round, so that a huge request costs no more steps than a small one."""
        open_lanes = [lane for lane in self._ring if not blocked(lane.account_id)]
        if not open_lanes:
            return False
        rounds = min(
            math.ceil((lane.entries[0].cost_tokens - lane.deficit) / (self._quantum * lane.weight))
            for lane in open_lanes
        )
        for lane in open_lanes:
            lane.deficit += max(0, rounds - 1) * self._quantum * lane.weight
        return True
