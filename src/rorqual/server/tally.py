"""The tokens of one generation: what was handed out so far, and what the backend says in the end.

Until the end only `handed` can be billed: tokens that were given to the reader, or are being
committed for that, and the prompts whose answers have begun. So whoever leaves, and whatever
crashes, nobody pays for more than they got and one batch.
"""

from collections.abc import Sequence
from dataclasses import replace

from rorqual.engine import Usage
from rorqual.platform import TokenCounts
from rorqual.server.backends import Chunk, Prepared


class Tally:
    """Counts over all prompts; choice i of prompt p is p * n + i."""

    def __init__(self, prepared: Sequence[Prepared], n: int) -> None:
        self._prompts = [one.prompt_tokens for one in prepared]
        self._n = n
        self.prompt_tokens = sum(self._prompts)
        self.max_output_tokens = sum(one.max_output_tokens for one in prepared)
        self.handed = TokenCounts()
        self._usages: dict[int, Usage] = {}
        self._cached: dict[int, int] = {}  # of the prompts that have begun to be answered
        self._usage: Usage | None = None  # once it was asked for, until more comes

    @property
    def num_handed(self) -> int:
        """Generated tokens that were handed out."""
        return self.handed.output_tokens + self.handed.reasoning_tokens

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Takes in what is about to be handed out."""
        self._usage = None
        for chunk in chunks:
            if chunk.usage is not None:
                self._usages[chunk.index] = chunk.usage
            if chunk.cached_tokens is not None:
                self._cached.setdefault(chunk.index // self._n, chunk.cached_tokens)
        tokens = sum(chunk.num_tokens for chunk in chunks)
        # An upstream's events are only about one token each.
        tokens = min(tokens, self.max_output_tokens - self.num_handed)
        reasoning = min(sum(chunk.num_reasoning_tokens for chunk in chunks), tokens)
        begun = sum(self._prompts[number] for number in self._cached)
        cached = sum(self._cached.values())
        self.handed = TokenCounts(
            cache_hit_tokens=cached,
            input_tokens=begun - cached,
            output_tokens=self.handed.output_tokens + tokens - reasoning,
            reasoning_tokens=self.handed.reasoning_tokens + reasoning,
        )

    @property
    def usage(self) -> Usage:
        """Tokens of all choices together; a prompt counts once, however many answers it has."""
        if self._usage is None:
            self._usage = self._sum()
        return self._usage

    def _sum(self) -> Usage:
        prompt = cached = completion = 0
        for number, prompt_tokens in enumerate(self._prompts):
            found = [self._usages.get(number * self._n + i) for i in range(self._n)]
            known = [usage for usage in found if usage is not None]
            prompt += max((u.prompt_tokens for u in known), default=0) or prompt_tokens
            cached += known[0].cached_tokens if known else self._cached.get(number, 0)
            completion += sum(usage.completion_tokens for usage in known)
        completion = min(max(completion, self.num_handed), self.max_output_tokens)
        told = sum(usage.reasoning_tokens for usage in self._usages.values())
        most = completion - self.handed.output_tokens
        reasoning = max(self.handed.reasoning_tokens, min(told, most))
        return Usage(min(prompt, self.prompt_tokens), cached, completion, reasoning)

    @property
    def final(self) -> TokenCounts:
        """What an answer that was handed out to its end costs."""
        usage = self.usage
        return TokenCounts(
            cache_hit_tokens=usage.cached_tokens,
            input_tokens=usage.prompt_tokens - usage.cached_tokens,
            output_tokens=usage.completion_tokens - usage.reasoning_tokens,
            reasoning_tokens=usage.reasoning_tokens,
        )

    @property
    def partial(self) -> TokenCounts:
        """What an answer that broke off costs: nothing before its first token.

        Where a backend does not say what it had of a prompt, the prompt counts as not cached.
        """
        if not self.num_handed:
            return TokenCounts()
        if self._cached:
            return self.handed
        return replace(self.handed, input_tokens=self.prompt_tokens)
