"""Physical cache blocks: who uses them, which can be had, and which free ones are worth keeping.

A block is *used* (its reference count is the number of sequences that hold it), *blank* (free,
nothing of worth in it) or *idle* (free, but the prefix cache knows its content). Blank blocks are
handed out first, then the least recently used idle one, which the prefix cache then forgets.
"""

from collections import OrderedDict

from rorqual.engine.prefix_cache import PrefixCache
from rorqual.kernels.step import BLOCK_TOKENS


def blocks_for(num_tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-num_tokens // BLOCK_TOKENS)


class BlockPool:
    """The blocks of one cache, numbered from 0."""

    def __init__(self, num_blocks: int, prefixes: PrefixCache):
        self.num_blocks = num_blocks
        self.prefixes = prefixes
        self.references = [0] * num_blocks
        self.blank = list(range(num_blocks - 1, -1, -1))  # popped from the end: block 0 first
        self.idle: OrderedDict[int, None] = OrderedDict()  # least recently used first
        # Of the blocks that the prefix cache knows: whether the MTP module's layer is filled too.
        self.read_by_module = bytearray(num_blocks)

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can hand out now."""
        return len(self.blank) + len(self.idle)

    def allocate(self) -> int:
        """A block for one holder; its content is undefined."""
        if self.blank:
            block = self.blank.pop()
        else:
            assert self.idle, "allocate was called without an available block"
            block, _ = self.idle.popitem(last=False)
            self.prefixes.forget(block)
        self.references[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more holder of a block whose content is known."""
        if self.references[block] == 0:
            del self.idle[block]
        self.references[block] += 1

    def release(self, block: int) -> None:
        """One holder fewer."""
        self.references[block] -= 1
        left = self.references[block]
        assert left >= 0, f"block {block} was released more often than held"
        if left:
            return
        if block in self.prefixes:
            self.idle[block] = None
        else:
            self.blank.append(block)

    def release_all(self, blocks: list[int]) -> None:
        """Release a sequence's blocks, last first: prefixes outlive what was built on them."""
        for block in reversed(blocks):
            self.release(block)

    def forget_prefixes(self) -> None:
        """Drop everything that the prefix cache knows: the weights have changed."""
        self.prefixes.clear()
        self.blank.extend(self.idle)
        self.idle.clear()
