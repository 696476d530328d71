"""Blocks, prefixes and pace, each alone."""

import numpy as np
import pytest

from rorqual.engine.blocks import BlockPool, blocks_for
from rorqual.engine.invariants import check_blocks
from rorqual.engine.pace import Pace
from rorqual.engine.prefix_cache import PrefixCache
from rorqual.engine.scheduler import Scheduler
from rorqual.kernels.step import BLOCK_TOKENS


def block_of(value: int) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    return np.full(BLOCK_TOKENS, value, dtype=np.int32)


def test_blocks_for_counts_started_blocks() -> None:
    assert [blocks_for(n) for n in (0, 1, 32, 33)] == [0, 1, 1, 2]


def test_idle_blocks_are_taken_last_and_oldest_first() -> None:
    prefixes = PrefixCache()
    pool = BlockPool(4, prefixes)
    held = [pool.allocate() for _ in range(3)]
    link: int | bytes = b""
    for value, block in enumerate(held):
        _, link = prefixes.register(link, block_of(value), block)
    pool.release_all(held)
    assert pool.num_available == 4 and len(prefixes) == 3
    assert pool.allocate() not in held  # the blank one
    assert pool.allocate() == held[2]  # the end of the chain goes before its beginning
    tokens = np.concatenate([block_of(0), block_of(1), block_of(2)])
    assert prefixes.lookup(b"", tokens, len(tokens)).blocks == held[:2]
    pool.share(held[0])
    assert pool.num_available == 1


def test_a_prefix_is_found_by_its_tokens_and_all_before_them() -> None:
    prefixes = PrefixCache()
    _, link = prefixes.register(b"", block_of(1), 10)
    prefixes.register(link, block_of(2), 11)
    prefixes.register(b"", block_of(2), 12)
    both = np.concatenate([block_of(1), block_of(2)])
    assert prefixes.lookup(b"", both, 64).blocks == [10, 11]
    assert prefixes.lookup(b"", both, 63).blocks == [10]
    assert prefixes.lookup(b"", block_of(2), 32).blocks == [12]
    assert prefixes.lookup(b"salt", both, 64).blocks == []


def test_known_content_is_named_instead_of_stored_again() -> None:
    prefixes = PrefixCache()
    first, link = prefixes.register(b"", block_of(1), 10)
    assert prefixes.register(b"", block_of(1), 20) == (first, link)
    assert 20 not in prefixes


def test_what_hung_on_a_forgotten_block_is_not_found_again() -> None:
    prefixes = PrefixCache()
    _, link = prefixes.register(b"", block_of(1), 10)
    prefixes.register(link, block_of(2), 11)
    prefixes.forget(10)
    prefixes.register(b"", block_of(1), 30)
    both = np.concatenate([block_of(1), block_of(2)])
    assert prefixes.lookup(b"", both, 64).blocks == [30]


def test_a_leak_and_a_double_release_are_caught() -> None:
    pool = BlockPool(4, PrefixCache())
    scheduler = Scheduler(pool, 2, 0.0)
    check_blocks(scheduler)
    block = pool.allocate()
    with pytest.raises(AssertionError, match="1 != 0 holders"):
        check_blocks(scheduler)
    pool.release(block)
    with pytest.raises(AssertionError, match="more often than held"):
        pool.release(block)


def test_the_budget_follows_the_measured_line() -> None:
    pace = Pace(0.05, 32, 2048)
    assert pace.budget() == 64  # nothing measured: twice the fewest
    for tokens in (16, 64, 200, 900, 16, 300):
        pace.observe(tokens, 0.004 + 1e-4 * tokens)
    assert pace.line() == (pytest.approx(0.004), pytest.approx(1e-4))
    assert pace.budget() == pytest.approx(460, abs=1)
    for _ in range(200):  # the machine became four times slower
        for tokens in (16, 100, 300):
            pace.observe(tokens, 0.016 + 4e-4 * tokens)
    assert pace.budget() == pytest.approx(85, abs=1)


def test_the_budget_grows_step_by_step_and_has_bounds() -> None:
    fast = Pace(1.0, 32, 2048)
    budgets = []
    for _ in range(8):
        budgets.append(fast.budget())
        fast.observe(budgets[-1], 1e-5 * budgets[-1])
    assert budgets == [64, 128, 256, 512, 1024, 2048, 2048, 2048]
    slow = Pace(0.001, 32, 2048)
    slow.observe(500, 3.0)
    assert slow.budget() == 32
