"""What a step computed, noted on its sequences: routes, known blocks, siblings that part."""

import numpy as np
from numpy.typing import NDArray

from rorqual.engine.batch import StepTables
from rorqual.engine.blocks import blocks_for
from rorqual.engine.runner import Runner
from rorqual.engine.scheduler import Scheduler
from rorqual.engine.sequence import Sequence
from rorqual.kernels.step import BLOCK_TOKENS


def keep_routes(sequence: Sequence, routes: NDArray[np.int16] | None, row: int, count: int) -> None:
    """Keep the experts of the answer's tokens that were fed. routes [T, layers, K]"""
    if routes is None or not sequence.group.request.record_routes:
        return
    if sequence.routes is None:
        room = sequence.max_tokens_total - sequence.num_prompt
        sequence.routes = np.zeros((room, *routes.shape[1:]), dtype=np.int16)
    skipped = max(sequence.num_prompt - sequence.num_cached, 0)
    begin = sequence.num_cached + skipped - sequence.num_prompt
    fed = routes[row + skipped : row + count] if skipped < count else routes[:0]
    sequence.routes[begin : begin + len(fed)] = fed


def register_blocks(scheduler: Scheduler, tables: StepTables, sequence: Sequence) -> None:
    """Make full blocks known; where the content already was, hold that block instead."""
    pool = scheduler.pool
    prefixes = pool.prefixes
    if not prefixes.enabled:
        return
    for number in range(sequence.num_registered, sequence.num_cached // BLOCK_TOKENS):
        begin = number * BLOCK_TOKENS
        tokens = sequence.tokens[begin : begin + BLOCK_TOKENS]
        own = sequence.blocks[number]
        known, sequence.link = prefixes.register(sequence.link, tokens, own)
        if known == own:
            pool.read_by_module[own] = sequence.draftable
        else:
            pool.share(known)
            pool.release(own)
            sequence.blocks[number] = known
            tables.replace(sequence, number, known)
            if sequence.draftable and not pool.read_by_module[known]:
                scheduler.stop_drafting(sequence)
        sequence.num_registered = number + 1


def fork_siblings(scheduler: Scheduler, runner: Runner, source: Sequence) -> list[Sequence]:
    """Start the siblings that wait for this prompt; those without room go to the queue."""
    started: list[Sequence] = []
    for sibling in source.group.unforked:
        sibling.cached_prompt_tokens = source.cached_prompt_tokens
        copied = scheduler.fork(source, sibling)
        if copied is None:
            scheduler.enqueue(sibling)
            continue
        if copied[0] != copied[1]:
            runner.copy_block(*copied)
        started.append(sibling)
    source.group.unforked.clear()
    return started


def drop_drafts(scheduler: Scheduler, tables: StepTables, sequence: Sequence) -> None:
    """Forget the drafts that were not drawn, and give back the blocks they were fed into."""
    sequence.drafts.clear()
    kept = blocks_for(sequence.num_tokens)
    if kept < len(sequence.blocks):
        scheduler.pool.release_all(sequence.blocks[kept:])
        del sequence.blocks[kept:]
        tables.shorten(sequence)
