"""What a backend has said of a generation and its reader has not taken yet."""

import asyncio
import math
import time
from collections.abc import Callable

from rorqual.server.backends import Chunk


class Inbox:
    """Chunks in their order, and one reader who waits for them. For the event loop's thread."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._arrived = asyncio.Event()
        self._wake_tokens: float = 0  # the reader is not woken for fewer
        self.num_tokens = 0

    def __len__(self) -> int:
        return len(self._chunks)

    def put(self, chunk: Chunk) -> None:
        """One more; `wake` tells the reader."""
        self._chunks.append(chunk)
        self.num_tokens += chunk.num_tokens

    def wake(self, *, at_once: bool) -> None:
        """Wakes the reader if what is here is worth it, or at once."""
        if at_once or self.num_tokens >= self._wake_tokens:
            self._arrived.set()

    def take(self, most_tokens: float) -> list[Chunk]:
        """The first chunks, of no more tokens than that; but one in any case."""
        tokens = count = 0
        for chunk in self._chunks:
            if count and tokens + chunk.num_tokens > most_tokens:
                break
            tokens += chunk.num_tokens
            count += 1
        taken, self._chunks = self._chunks[:count], self._chunks[count:]
        self.num_tokens -= tokens
        self._arrived.clear()
        return taken

    async def wait(self, seconds: float) -> bool:
        """Whether more came within so many seconds."""
        if seconds <= 0:
            return False
        self._arrived.clear()
        count, timer = len(self._chunks), None
        if seconds < math.inf:
            timer = asyncio.get_running_loop().call_later(seconds, self._arrived.set)
        try:
            await self._arrived.wait()
        finally:
            if timer is not None:
                timer.cancel()
        return len(self._chunks) > count

    async def fill(self, most_tokens: float, until: float, is_open: Callable[[], bool]) -> None:
        """Until so many tokens are here, that moment has come, or no more will come."""
        self._wake_tokens = most_tokens
        while is_open() and self.num_tokens < most_tokens:
            if not await self.wait(until - time.monotonic()):
                break
        self._wake_tokens = 0
