"""A sequence on its way through the engine, and the group of them that one request makes."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rorqual.engine.adjust import LogitAdjuster
from rorqual.engine.blocks import blocks_for
from rorqual.engine.output_text import OutputText
from rorqual.engine.prefix_cache import Link
from rorqual.engine.requests import OnDelta, Request, SequenceState, TokenLogprobs

_UNIFORMS_AT_A_TIME: Final = 64

Order = tuple[int, float, int, int]
"""What the queue is sorted by: priority, arrival, submission number, index within the request."""


class Uniforms:
    """One number in [0, 1) per token, from the sequence's seed and index alone (Philox counter).

    Index 0 draws what model/sample.py draws from the same seed.
    """

    def __init__(self, seed: int, index: int):
        self._generator = np.random.Generator(np.random.Philox(key=seed + (index << 64)))
        self._ready: list[float] = []
        self._begin = 0  # the token that the first of them belongs to

    def at(self, number: int) -> float:
        """The number of the answer's token `number`; may look ahead, but hardly back."""
        place = number - self._begin
        while place >= len(self._ready):
            outdated = len(self._ready) - _UNIFORMS_AT_A_TIME
            if outdated > 0:
                del self._ready[:outdated]
                self._begin += outdated
                place -= outdated
            self._ready += self._generator.random(_UNIFORMS_AT_A_TIME).tolist()
        return self._ready[place]


class Sequence:
    """One answer being written: its tokens, its place in the cache, its sampling state.

    tokens [capacity] holds prompt and answer; the first num_cached of them are in the cache, in
    the order of `blocks`, of which num_registered are known to the prefix cache. `slot` is its row
    in the step's tables while it runs, `tabled` how many of its blocks are written there.
    max_tokens_total: where it ends at the latest.

    Speculation: `drafts` are guesses at the tokens that follow, fed behind the last one. The MTP
    module has read the first num_read cached tokens of a `draftable` sequence; `backlog` [rows, H]
    holds the main model's states of those that it has not read, up to the step before.
    """

    __slots__ = (
        "adjuster",
        "backlog",
        "blocks",
        "cached_prompt_tokens",
        "draftable",
        "drafts",
        "group",
        "index",
        "last_token",
        "link",
        "max_tokens_total",
        "num_cached",
        "num_preemptions",
        "num_prompt",
        "num_read",
        "num_registered",
        "num_tokens",
        "order",
        "output",
        "prompt_logprobs",
        "routes",
        "slot",
        "state",
        "tabled",
        "tokens",
        "uniforms",
    )

    def __init__(
        self, group: "Group", index: int, prompt: NDArray[np.int32], max_tokens_total: int
    ):
        self.group, self.index = group, index
        self.order: Order = (0, 0.0, 0, index)
        self.num_prompt = self.num_tokens = len(prompt)
        self.max_tokens_total = max_tokens_total
        self.tokens: NDArray[np.int32] = np.empty(max_tokens_total, dtype=np.int32)
        self.tokens[: len(prompt)] = prompt
        self.state = SequenceState.WAITING
        self.slot, self.tabled = -1, 0
        self.last_token = int(prompt[-1])
        self.blocks: list[int] = []
        self.link: Link = group.request.cache_salt
        self.num_cached = self.num_registered = 0
        self.drafts: list[int] = []
        self.draftable, self.num_read = False, 0
        self.backlog: NDArray[np.float32] | None = None
        self.cached_prompt_tokens: int | None = None
        self.num_preemptions = 0
        self.uniforms: Uniforms | None = None
        self.adjuster: LogitAdjuster | None = None
        self.output: OutputText | None = None
        self.prompt_logprobs: list[TokenLogprobs | None] | None = None
        self.routes: NDArray[np.int16] | None = None

    @property
    def num_pending(self) -> int:
        """Tokens that are known but not yet in the cache; 1 while decoding."""
        return self.num_tokens - self.num_cached

    @property
    def num_written(self) -> int:
        """Tokens of the answer so far."""
        return self.num_tokens - self.num_prompt

    @property
    def worst_blocks(self) -> int:
        """Blocks at its longest; the last token of an answer is never fed."""
        return blocks_for(max(self.max_tokens_total - 1, self.num_prompt))

    @property
    def draws_depend(self) -> bool:
        """Whether a drawn token changes how the next one is drawn."""
        budget = self.group.request.params.thinking_budget
        return self.adjuster is not None or budget is not None

    def append(self, token_id: int) -> None:
        """One more token of the answer."""
        self.tokens[self.num_tokens] = self.last_token = token_id
        self.num_tokens += 1


class Group:
    """A request with its n sequences.

    All but the first wait in `unforked` until the prompt is in the cache, then share its blocks.
    """

    __slots__ = ("num_open", "on_delta", "request", "sequences", "unforked")

    def __init__(self, request: Request, on_delta: OnDelta):
        self.request, self.on_delta = request, on_delta
        self.sequences: list[Sequence] = []
        self.unforked: list[Sequence] = []
        self.num_open = 0

    def add(self, sequence: Sequence) -> None:
        """Take in a sequence that is still to be written."""
        self.sequences.append(sequence)
        self.num_open += 1
        if sequence.index:
            self.unforked.append(sequence)
