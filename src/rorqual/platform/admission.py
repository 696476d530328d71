"""Admission: the one queue. Who may start, when, and who is told at once that it will not be soon.

A request passes, in this order, its account's concurrency, the token buckets of its address and its
account, room in the queue, and the question whether it would start before its deadline at the rate
that the engine was measured at. Then it waits its turn in the fair queue. Each refusal is a named
error with retry_after_seconds; each accepted request either starts or is refused by its deadline.

Costs are tokens: the prompt, what may be generated, and a fixed overhead. What was not used is
given back, to the buckets and to the account's turn.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Final

from rorqual.config.server import AdmissionConfig, OverloadConfig
from rorqual.platform.buckets import TokenBuckets, address_group
from rorqual.platform.errors import (
    ConcurrencyLimited,
    DeadlineExceeded,
    DeadlineUnmeetable,
    LimitState,
    QueueFull,
    RateLimited,
    Refused,
)
from rorqual.platform.fair_queue import Entry, FairQueue
from rorqual.platform.overload import Level, OverloadLadder
from rorqual.platform.rate import RateMeter

_INSIDE_PER_RUNNING: Final = 4  # answers that run or wait for their readers, per place
_CALM_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What admission has to know of a request."""

    account_id: str
    address: str
    prompt_tokens: int
    max_output_tokens: int
    max_wait_seconds: float | None = None
    weight: float = 1.0


@dataclass(slots=True, eq=False)
class Ticket:
    """A request's stay. `started` resolves when it may run, or raises why it may not."""

    job: Job
    cost_tokens: int
    deadline_seconds: float
    started: "Future[None]" = field(default_factory=Future)
    entry: "Entry[Ticket] | None" = None
    running: bool = False
    done: bool = False
    unread: bool = False  # its place is free, its reader has not taken all of it
    used_tokens: int = 0

    def __post_init__(self) -> None:
        # Only admission resolves it: a waiter that is cancelled calls `leave`.
        self.started.set_running_or_notify_cancel()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request stands: position 0 is running, 1 is next."""

    position: int
    num_queued: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class AdmissionStats:
    """For metrics and the status page."""

    num_running: int
    num_queued: int
    queued_tokens: int
    tokens_per_second: float
    wait_seconds: float
    load: float
    level: Level
    held_level: Level | None


class Admission:
    """Thread-safe. `tick` must be called a few times a second: deadlines and the ladder need it."""

    def __init__(
        self, config: AdmissionConfig, overload: OverloadConfig, clock: Callable[[], float]
    ) -> None:
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: FairQueue[Ticket] = FairQueue(config.quantum_tokens)
        self._running: set[Ticket] = set()
        self._running_of: Counter[str] = Counter()
        self._unread_of: Counter[str] = Counter()
        self._queued_tokens = 0
        self._accounts = TokenBuckets(
            config.account_tokens_per_second, config.account_burst_tokens, config.max_tracked
        )
        self._addresses = TokenBuckets(
            config.address_tokens_per_second, config.address_burst_tokens, config.max_tracked
        )
        self._rate = RateMeter(config.initial_tokens_per_second, clock)
        self._order: list[Entry[Ticket]] | None = None
        self._refused_seconds = -math.inf  # when somebody was, last
        self.ladder = OverloadLadder(overload, clock)

    @property
    def is_calm(self) -> bool:
        """Nobody was refused lately, so it is not worth asking `check` about a request."""
        return self._clock() - self._refused_seconds > _CALM_SECONDS

    def check(self, account_id: str, address: str) -> None:
        """Raises what `enter` would raise however little the request cost.

        Nearly free: in a flood it is asked before a request is read.
        """
        try:
            with self._lock:
                self._check_account(account_id)
                self._check_buckets(account_id, address_group(address), 1, self._clock())
                self._make_room(account_id, 1)
        except Refused:
            self._refused_seconds = self._clock()
            raise

    def enter(self, job: Job) -> Ticket:
        """Accepts a request, perhaps starting it at once, or raises a Refused."""
        try:
            return self._enter(job)
        except Refused:
            self._refused_seconds = self._clock()
            raise

    def _enter(self, job: Job) -> Ticket:
        cost = job.prompt_tokens + job.max_output_tokens + self._config.request_overhead_tokens
        group = address_group(job.address)
        max_wait = job.max_wait_seconds
        if max_wait is None or max_wait > self._config.max_wait_seconds:
            max_wait = self._config.max_wait_seconds
        with self._lock:
            now = self._clock()
            self._check_account(job.account_id)
            self._check_buckets(job.account_id, group, cost, now)
            displaced = self._make_room(job.account_id, cost)
            ticket = Ticket(job, cost, now + max_wait)
            ticket.entry = self._queue.push(job.account_id, cost, ticket, weight=job.weight)
            self._queued_tokens += cost
            self._order = None
            wait = self._wait_seconds(ticket)
            if wait > max_wait:
                self._unqueue(ticket)
                raise DeadlineUnmeetable(
                    f"the request would start in {wait:.0f} s, later than {max_wait:.0f} s; try "
                    "again later",
                    max(1.0, wait - max_wait),
                )
            if displaced is not None:
                self._unqueue(displaced)
                self._refused_seconds = now
            self._accounts.spend(job.account_id, cost, now)
            self._addresses.spend(group, cost, now)
            started = self._pump()
        if displaced is not None:
            full = QueueFull("the queue is full and others wait with fewer requests", 5.0)
            self._give_back(displaced, 0)
            displaced.started.set_exception(full)
        _announce(started)
        return ticket

    def progress(self, ticket: Ticket, used_tokens: int) -> None:
        """Tokens of a running request so far, prompt included: keeps the measured rate fresh."""
        with self._lock:
            self._note_use(ticket, used_tokens)

    def finish(self, ticket: Ticket, used_tokens: int, *, is_read: bool = True) -> None:
        """A started request ended, having used so many tokens; the next may start.

        is_read=False: its reader has not taken all of it. It counts against its account, and a
        little against all, until it is finished again: answers that nobody takes must not pile up.
        """
        with self._lock:
            ends_now = ticket.running
            if ends_now:
                self._end(ticket, used_tokens)
            elif not ticket.unread:
                return
            self._set_unread(ticket, not is_read)
            started = self._pump()
        if ends_now:
            self._give_back(ticket, ticket.used_tokens)
        _announce(started)

    def leave(self, ticket: Ticket) -> None:
        """A client that waits gives up; a running request is finished instead."""
        with self._lock:
            queued = not ticket.done and not ticket.running
            if queued:
                self._unqueue(ticket)
            used = ticket.used_tokens
        if queued:
            self._give_back(ticket, 0)
            ticket.started.set_exception(CancelledError())
        else:
            self.finish(ticket, used)

    def tick(self) -> None:
        """Refuses who waited too long, moves the ladder, starts who may start."""
        with self._lock:
            now = self._clock()
            late = [e.item for e in self._queue_order() if e.item.deadline_seconds <= now]
            for ticket in late:
                self._unqueue(ticket)
                self._refused_seconds = now
            self.ladder.update(self._load())
            started = self._pump()
            wait = self._wait_seconds(None)
        for ticket in late:
            self._give_back(ticket, 0)
            ticket.started.set_exception(
                DeadlineExceeded("the request waited for its deadline and did not start", wait + 1)
            )
        _announce(started)

    def place(self, ticket: Ticket) -> Place:
        """Where the request stands, and how long it will probably wait."""
        with self._lock:
            if ticket.running or ticket.done:
                return Place(0, len(self._queue), 0.0)
            position = 1 + self._queue_order().index(self._entry(ticket))
            return Place(position, len(self._queue), self._wait_seconds(ticket))

    def limit(self, account_id: str) -> LimitState:
        """The account's token bucket, for the headers of an answer."""
        with self._lock:
            return self._accounts.state(account_id, self._clock())

    def hold_level(self, level: Level | None) -> None:
        """An administrator's word on the ladder; None lets load decide."""
        with self._lock:
            self.ladder.hold(level)

    @property
    def num_queued(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def stats(self) -> AdmissionStats:
        """A consistent look at everything."""
        with self._lock:
            return AdmissionStats(
                num_running=len(self._running),
                num_queued=len(self._queue),
                queued_tokens=self._queued_tokens,
                tokens_per_second=self._rate.tokens_per_second,
                wait_seconds=self._wait_seconds(None),
                load=self._load(),
                level=self.ladder.level,
                held_level=self.ladder.held,
            )

    # Below, the lock is held.

    def _check_account(self, account_id: str) -> None:
        inside = self._running_of[account_id] + self._unread_of[account_id]
        inside += self._queue.num_waiting(account_id)
        if inside >= self._config.max_per_account:
            raise ConcurrencyLimited(
                f"the account has {inside} requests under way, its limit; wait for one to end",
                self._rate.seconds_for(self._mean_remaining_tokens()) + 1.0,
            )

    def _check_buckets(self, account_id: str, group: str, cost: int, now: float) -> None:
        for who, name, buckets in (
            ("address", group, self._addresses),
            ("account", account_id, self._accounts),
        ):
            wait = buckets.missing_seconds(name, cost, now)
            if wait > 0:
                raise RateLimited(
                    f"the {who}'s token rate is used up; wait {wait:.1f} s",
                    wait,
                    buckets.state(name, now),
                )

    def _make_room(self, account_id: str, cost: int) -> Ticket | None:
        """Raises QueueFull, or names the request that must go: the newest of whoever has most."""
        if self._has_slot(account_id) and not len(self._queue):
            return None
        fits = self._queued_tokens + cost <= self._config.max_queued_tokens
        if len(self._queue) < self._config.max_queued and fits:
            return None
        longest = self._queue.last_of_longest_lane()
        mine = self._queue.num_waiting(account_id)
        if longest is not None and self._queue.num_waiting(longest.account_id) > mine + 1:
            left = self._queued_tokens - longest.cost_tokens + cost
            if left <= self._config.max_queued_tokens:
                return longest.item
        raise QueueFull(
            f"{len(self._queue)} requests of {self._queued_tokens} tokens wait already; try again",
            max(1.0, self._rate.seconds_for(self._mean_remaining_tokens())),
        )

    def _has_slot(self, account_id: str) -> bool:
        return not self._is_full() and not self._at_limit(account_id)

    def _is_full(self) -> bool:
        inside = len(self._running) + self._unread_of.total()
        most = self._config.max_running
        return len(self._running) >= most or inside >= _INSIDE_PER_RUNNING * most

    def _at_limit(self, account_id: str) -> bool:
        running, most = self._running_of[account_id], self._config.max_running_per_account
        inside = running + self._unread_of[account_id]
        return running >= most or inside >= _INSIDE_PER_RUNNING * most

    def _has_its_share(self, account_id: str) -> bool:
        """Under overload one request an account comes first, whoever sends how many."""
        crowded = self.ladder.level >= Level.QUEUE_ONLY
        return self._at_limit(account_id) or (crowded and self._running_of[account_id] > 0)

    def _pump(self) -> list[Ticket]:
        started: list[Ticket] = []
        while len(self._queue) and not self._is_full():
            entry = self._queue.pop(self._has_its_share)
            if entry is None:  # a place that nobody else wants is not left empty
                entry = self._queue.pop(self._at_limit)
            if entry is None:
                break
            ticket = entry.item
            ticket.running = True
            self._queued_tokens -= ticket.cost_tokens
            self._running.add(ticket)
            self._running_of[ticket.job.account_id] += 1
            self._order = None
            started.append(ticket)
        self._rate.set_busy(bool(self._running))
        return started

    def _end(self, ticket: Ticket, used_tokens: int) -> None:
        self._note_use(ticket, used_tokens)
        ticket.running, ticket.done = False, True
        self._running.discard(ticket)
        _count_down(self._running_of, ticket.job.account_id)
        self._rate.note_finished(ticket.used_tokens, ticket.cost_tokens)
        self._rate.set_busy(bool(self._running))
        unused = max(0, ticket.cost_tokens - ticket.used_tokens)
        self._queue.refund(ticket.job.account_id, unused)
        self._order = None

    def _set_unread(self, ticket: Ticket, unread: bool) -> None:
        if unread and not ticket.unread:
            self._unread_of[ticket.job.account_id] += 1
        elif ticket.unread and not unread:
            _count_down(self._unread_of, ticket.job.account_id)
        ticket.unread = unread

    def _unqueue(self, ticket: Ticket) -> None:
        self._queue.remove(self._entry(ticket))
        self._queued_tokens -= ticket.cost_tokens
        self._order = None
        ticket.done = True

    def _note_use(self, ticket: Ticket, used_tokens: int) -> None:
        if ticket.running and used_tokens > ticket.used_tokens:
            self._rate.note_tokens(used_tokens - ticket.used_tokens)
            ticket.used_tokens = used_tokens

    def _queue_order(self) -> list[Entry[Ticket]]:
        if self._order is None:
            self._order = self._queue.order()
        return self._order

    def _wait_seconds(self, ticket: Ticket | None) -> float:
        """Until this request, or one behind all others, would start."""
        if not self._is_full() and (ticket is None or not self._at_limit(ticket.job.account_id)):
            return 0.0
        ahead = 0
        for entry in self._queue_order():
            if entry.item is ticket:
                break
            ahead += entry.cost_tokens
        return self._rate.seconds_for(ahead + self._mean_remaining_tokens())

    def _mean_remaining_tokens(self) -> float:
        if not self._running:
            return 0.0
        left = sum(max(0, t.cost_tokens - t.used_tokens) for t in self._running)
        return left / len(self._running)

    def _load(self) -> float:
        waiting = self._wait_seconds(None) / self._config.max_wait_seconds
        return max(waiting, len(self._queue) / max(1, self._config.max_queued))

    def _entry(self, ticket: Ticket) -> Entry[Ticket]:
        assert ticket.entry is not None, "a queued ticket has an entry"
        return ticket.entry

    # The lock is not held.

    def _give_back(self, ticket: Ticket, used_tokens: int) -> None:
        unused = max(0, ticket.cost_tokens - used_tokens - self._config.request_overhead_tokens)
        with self._lock:
            now = self._clock()
            self._accounts.spend(ticket.job.account_id, -unused, now)
            self._addresses.spend(address_group(ticket.job.address), -unused, now)


def _count_down(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]


def _announce(started: list[Ticket]) -> None:
    """Outside the lock: whoever waits for the future runs its callbacks here."""
    for ticket in started:
        ticket.started.set_result(None)
