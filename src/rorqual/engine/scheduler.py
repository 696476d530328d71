"""Which sequences a step feeds, and how many tokens of each.

Everything follows one order, (priority, arrival): who is admitted first, who gets a block when
blocks are short, who gives his up. A sequence that needs a block and finds none takes those of the
last in the order, which goes back to the queue and is recomputed later. So the first in the order
always moves on, and since each request fits into the cache alone (checked when it is submitted),
everything ends: a full cache makes requests wait, never hang.

A sequence gets the blocks of all its present tokens when it is admitted; reading a prompt in
pieces never waits for memory half-way.
"""

from bisect import bisect_left, insort
from operator import attrgetter
from typing import NamedTuple

from rorqual.engine.blocks import BlockPool, blocks_for
from rorqual.engine.prefix_cache import Prefix
from rorqual.engine.requests import SequenceState
from rorqual.engine.sequence import Sequence
from rorqual.kernels.step import BLOCK_TOKENS

_by_order = attrgetter("order")


class Plan(NamedTuple):
    """What a step feeds: `decoding` sequences one token each, with their drafts behind it, then
    `reading` ones a piece each."""

    decoding: list[Sequence]
    reading: list[tuple[Sequence, int]]


class _Room:
    """What a step still has for prompts, and what they took of it."""

    def __init__(self, tokens: int, scored_tokens: int):
        self.tokens, self.scored_tokens = tokens, scored_tokens
        self.reading: list[tuple[Sequence, int]] = []

    def take(self, sequence: Sequence) -> None:
        """Give a sequence as many of its pending tokens as there is room for, perhaps none."""
        count = min(sequence.num_pending, self.tokens)
        if sequence.prompt_logprobs is not None:
            count = min(count, self.scored_tokens)
            self.scored_tokens -= count
        if count:
            self.tokens -= count
            self.reading.append((sequence, count))


class Scheduler:
    """The queue and the running sequences, both sorted by `Sequence.order`."""

    def __init__(self, pool: BlockPool, max_num_seqs: int, reserved_growth: float):
        self.pool = pool
        self.reserved_growth = reserved_growth
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.free_slots = list(range(max_num_seqs - 1, -1, -1))
        self.num_preemptions = 0
        self.drafting = False  # whether sequences that start now are read by the MTP module too
        # (sequence, available blocks, running ones) of the last admission that failed.
        self._refused: tuple[Sequence | None, int, int] = (None, 0, 0)

    def enqueue(self, sequence: Sequence) -> None:
        """Put a sequence into the queue."""
        sequence.state = SequenceState.WAITING
        insort(self.waiting, sequence, key=_by_order)

    def plan(self, budget_tokens: int, scored_tokens: int) -> Plan:
        """The next step: at most budget_tokens in all, but each running sequence may decode.

        scored_tokens: at most so many of prompts whose every logit is wanted.
        """
        decoding: list[Sequence] = []
        room = _Room(budget_tokens, scored_tokens)
        room.tokens -= self.num_decoding_rows()
        position = 0
        while position < len(self.running):
            sequence = self.running[position]
            position += 1
            if sequence.num_tokens - sequence.num_cached == 1:
                full = sequence.num_cached == len(sequence.blocks) * BLOCK_TOKENS
                if not full or self._grow(sequence):
                    decoding.append(sequence)
            elif room.tokens > 0:
                room.take(sequence)
        while room.tokens > 0:
            admitted = self._admit()
            if admitted is None:
                break
            room.take(admitted)
        for sequence in decoding:
            if sequence.drafts:
                self._make_room_for_drafts(sequence)
        return Plan(decoding, room.reading)

    def num_decoding_rows(self) -> int:
        """Rows that the decoding sequences feed in the next step, drafts included."""
        return sum(1 + len(s.drafts) for s in self.running if s.num_tokens - s.num_cached == 1)

    def _make_room_for_drafts(self, sequence: Sequence) -> None:
        """Blocks for drafts, of those that nobody needs for more; else fewer drafts."""
        missing = blocks_for(sequence.num_tokens + len(sequence.drafts)) - len(sequence.blocks)
        if missing > self.pool.num_available:
            del sequence.drafts[len(sequence.blocks) * BLOCK_TOKENS - sequence.num_tokens :]
        elif missing > 0:
            sequence.blocks += [self.pool.allocate() for _ in range(missing)]

    def _grow(self, sequence: Sequence) -> bool:
        """One more block; False if the sequence itself had to give way."""
        while not self.pool.num_available:
            last = self.running[-1]
            self.preempt(last)
            if last is sequence:
                return False
        sequence.blocks.append(self.pool.allocate())
        return True

    def make_way(self) -> None:
        """Let the head of the queue take the place of running sequences of a lower priority."""
        if not self.waiting:
            return
        head = self.waiting[0]
        later = [s for s in self.running if s.order[0] > head.order[0]]
        obtainable = self.pool.num_available + sum(len(s.blocks) for s in later)
        if not later or self._needed(head, self.lookup(head)) > obtainable:
            return
        while later:
            fits = self._needed(head, self.lookup(head)) <= self.pool.num_available
            if self.free_slots and fits:
                return
            self.preempt(later.pop())

    def _admit(self) -> Sequence | None:
        """Start the head of the queue, and return it, if there is room for it."""
        if not self.waiting or not self.free_slots:
            return None
        head = self.waiting[0]
        state = (head, self.pool.num_available, len(self.running))
        if self.running and self._refused == state:
            return None
        prefix = self.lookup(head)
        if self._needed(head, prefix) > self.pool.num_available:
            assert self.running, "a request that fits alone was refused by an empty cache"
            self._refused = state
            return None
        del self.waiting[0]
        self._start(head, prefix)
        return head

    def _needed(self, sequence: Sequence, prefix: Prefix) -> int:
        """Blocks that must be available for the sequence to start.

        Beside its present blocks, a share of what it and those before it may come to need must be
        there, or pre-emption would soon undo the admission. Those after it give way to it.
        """
        present = blocks_for(sequence.num_tokens)
        idle = sum(self.pool.references[block] == 0 for block in prefix.blocks)
        needed = present - len(prefix.blocks) + idle
        before = [s for s in self.running if s.order < sequence.order]
        if not before:
            return needed
        growth = sequence.worst_blocks - present
        growth += sum(s.worst_blocks - len(s.blocks) for s in before)
        return needed + int(growth * self.reserved_growth)

    def lookup(self, sequence: Sequence) -> Prefix:
        """What the prefix cache has of a sequence; at least its last token stays to be fed."""
        cache = self.pool.prefixes
        wants_all = sequence.prompt_logprobs is not None and not sequence.num_written
        if not cache.enabled or wants_all:
            return Prefix([], sequence.group.request.cache_salt)
        salt = sequence.group.request.cache_salt
        return cache.lookup(salt, sequence.tokens, sequence.num_tokens - 1)

    def _start(self, sequence: Sequence, prefix: Prefix) -> None:
        for block in prefix.blocks:
            self.pool.share(block)
        missing = blocks_for(sequence.num_tokens) - len(prefix.blocks)
        sequence.blocks = prefix.blocks + [self.pool.allocate() for _ in range(missing)]
        sequence.num_registered = len(prefix.blocks)
        sequence.num_cached = len(prefix.blocks) * BLOCK_TOKENS
        sequence.link = prefix.link
        sequence.num_read = sequence.num_cached
        known = self.pool.read_by_module
        sequence.draftable = self._may_draft(sequence) and all(known[b] for b in prefix.blocks)
        if sequence.cached_prompt_tokens is None:
            sequence.cached_prompt_tokens = sequence.num_cached
        self.run(sequence)

    def _may_draft(self, sequence: Sequence) -> bool:
        # Routes are kept by the row; sequences of rollouts, which want them, do not speculate.
        return self.drafting and not sequence.group.request.record_routes

    def stop_drafting(self, sequence: Sequence) -> None:
        """The MTP module does not follow a sequence any further.

        What it has not read of registered blocks must not be taken for read.
        """
        if sequence.backlog is not None:
            first = sequence.num_read // BLOCK_TOKENS
            for block in sequence.blocks[first : sequence.num_registered]:
                self.pool.read_by_module[block] = False
        sequence.draftable, sequence.backlog = False, None

    def run(self, sequence: Sequence) -> None:
        """Give a slot to a sequence that holds the blocks of its tokens."""
        sequence.state = SequenceState.RUNNING
        sequence.slot, sequence.tabled = self.free_slots.pop(), 0
        insort(self.running, sequence, key=_by_order)

    def fork(self, source: Sequence, sibling: Sequence) -> tuple[int, int] | None:
        """Let a sibling go on from the prompt that `source` has just read, sharing its blocks.

        Returns the block to copy and the copy to make, equal if the prompt ends with its block;
        None if there is no room: then the sibling has to queue.
        """
        partial = sibling.num_tokens % BLOCK_TOKENS != 0
        growth = sibling.worst_blocks - len(source.blocks)
        growth += sum(s.worst_blocks - len(s.blocks) for s in self.running)
        needed = int(partial) + int(growth * self.reserved_growth)
        if not self.free_slots or needed > self.pool.num_available:
            return None
        shared = source.blocks[:-1] if partial else source.blocks
        for block in shared:
            self.pool.share(block)
        last = self.pool.allocate() if partial else source.blocks[-1]
        sibling.blocks = [*shared, last] if partial else list(shared)
        sibling.num_cached = source.num_cached
        sibling.num_registered, sibling.link = source.num_registered, source.link
        sibling.draftable, sibling.num_read = source.draftable, source.num_read
        self.run(sibling)
        return source.blocks[-1], last

    def preempt(self, sequence: Sequence) -> None:
        """Take a sequence's blocks; it is recomputed when it is admitted again."""
        self.num_preemptions += 1
        sequence.num_preemptions += 1
        self.stop(sequence)
        self.enqueue(sequence)

    def stop(self, sequence: Sequence) -> None:
        """Take a sequence out of the running ones and release what it holds."""
        del self.running[bisect_left(self.running, sequence.order, key=_by_order)]
        self.stop_drafting(sequence)
        sequence.drafts.clear()
        self.pool.release_all(sequence.blocks)
        self.free_slots.append(sequence.slot)
        sequence.slot = -1
        sequence.blocks = []
        sequence.num_cached = sequence.num_registered = 0

    def withdraw(self, sequence: Sequence) -> None:
        """Take a sequence out of the queue."""
        del self.waiting[bisect_left(self.waiting, sequence.order, key=_by_order)]
