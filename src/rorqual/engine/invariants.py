"""What must hold of blocks, tables and queues between any two steps; our own bugs if not."""

from collections import Counter

from rorqual.engine.blocks import blocks_for
from rorqual.engine.requests import SequenceState
from rorqual.engine.scheduler import Scheduler
from rorqual.kernels.step import BLOCK_TOKENS


def check_blocks(scheduler: Scheduler) -> None:
    """Assert that every block is accounted for exactly once.

    A block is referenced as often as running sequences hold it; a block that nobody holds is
    either blank or idle, and idle exactly if the prefix cache knows it. Nothing else exists, so
    nothing leaks.
    """
    pool = scheduler.pool
    held = Counter(block for sequence in scheduler.running for block in sequence.blocks)
    blank, idle = set(pool.blank), set(pool.idle)
    assert len(blank) == len(pool.blank), "a blank block is listed twice"
    assert not blank & idle, f"blocks {blank & idle} are both blank and idle"
    for block in range(pool.num_blocks):
        references = pool.references[block]
        assert references == held[block], f"block {block}: {references} != {held[block]} holders"
        free = block in blank or block in idle
        assert free == (references == 0), f"block {block}: {references} holders, free: {free}"
        if free:
            assert (block in idle) == (block in pool.prefixes), f"block {block} is misfiled"
    _check_sequences(scheduler)


def _check_sequences(scheduler: Scheduler) -> None:
    orders = [sequence.order for sequence in scheduler.running]
    assert orders == sorted(orders), "running sequences are out of order"
    slots = [sequence.slot for sequence in scheduler.running] + scheduler.free_slots
    assert len(set(slots)) == len(slots), f"slots {sorted(slots)} are not disjoint"
    for sequence in scheduler.running:
        assert sequence.state is SequenceState.RUNNING
        assert len(sequence.blocks) == len(set(sequence.blocks)), "a table names a block twice"
        assert 0 <= sequence.num_cached < sequence.num_tokens <= sequence.max_tokens_total
        needed = blocks_for(sequence.num_tokens - 1)
        assert needed <= len(sequence.blocks) <= blocks_for(sequence.num_tokens)
        assert sequence.num_registered * BLOCK_TOKENS <= sequence.num_cached
        if sequence.draftable:
            kept = 0 if sequence.backlog is None else len(sequence.backlog)
            assert sequence.num_read + kept == sequence.num_cached, "the module lost states"
    for sequence in scheduler.waiting:
        assert sequence.state is SequenceState.WAITING
        assert not sequence.blocks and sequence.slot < 0, "a waiting sequence holds blocks"
