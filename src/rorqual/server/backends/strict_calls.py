"""Strict functions: the model decides whether to call, the schema decides what arguments can be.

When an answer begins a call of a strict function, the request is ended there and another takes
over, whose prompt goes up to the arguments (its prefix is in the cache) and whose answer is bound
to the function's schema. The client sees one answer. A strict call is the last of its turn.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rorqual.engine import Delta, Request, Usage
from rorqual.engine.structure import Structure
from rorqual.engine.tool_calls import ToolCallArguments
from rorqual.server.backends.base import ChatInput, Chunk, OnChunks
from rorqual.server.backends.delta_reader import DeltaReader, EngineCall, StrictCall
from rorqual.server.backends.engine_link import EngineLink
from rorqual.server.backends.forced_calls import call_head
from rorqual.tokenizer import Tokenizer


def strict_schemas(chat: ChatInput) -> dict[str, Mapping[str, Any]]:
    """Schemas of the functions that are strict."""
    functions = [tool["function"] for tool in chat.tools]
    return {
        function["name"]: function.get("parameters") or {"type": "object"}
        for function in functions
        if function.get("strict") is True
    }


def follower_id(request_id: str) -> str:
    """The id of the request that writes a strict call's arguments."""
    return f"{request_id}.strict"


class StrictFollower:
    """Writes the arguments of one strict call, and ends the answer."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        link: EngineLink,
        call: EngineCall,
        reader: DeltaReader,
        on_chunks: OnChunks,
    ) -> None:
        self._tokenizer = tokenizer
        self._link = link
        self._call = call
        self._reader = reader
        self._on_chunks = on_chunks
        self._started: StrictCall | None = None

    @property
    def is_started(self) -> bool:
        """Whether it writes, or has written."""
        return self._started is not None

    def start(self, call: StrictCall) -> None:
        """Takes over where the arguments begin."""
        self._started = call
        first = self._call.request
        head = call_head(self._tokenizer, call.name)
        left = (first.params.max_tokens or 0) - call.num_written
        if left < 1:
            self._on_chunks([Chunk(0, finish="length", usage=self._usage(None))])
            return
        schema = self._call.strict[call.name]
        params = replace(
            first.params,
            structure=Structure.json_schema(schema, param="tools"),
            max_tokens=left,
            min_tokens=0,
            thinking_budget=None,
            stop=(),
            logprobs=None,
        )
        prompt_ids = [*first.prompt_ids, *call.ids_before, *head]
        name = follower_id(first.id)
        request = Request(
            id=name,
            prompt_ids=prompt_ids,
            params=params,
            cache_salt=first.cache_salt,
            split_reasoning=False,
            deadline=first.deadline,
        )
        self._link.submit(request, self._take)

    def _take(self, deltas: list[Delta]) -> None:
        assert self._started is not None
        chunks: list[Chunk] = []
        for delta in deltas:
            chunk = Chunk(0, num_tokens=len(delta.token_ids))
            if delta.text:
                chunk.tools = (ToolCallArguments(self._started.index, delta.text),)
            if delta.finish_reason is not None:
                self._link.forget(delta.request_id)
                chunk.finish, chunk.error = delta.finish_reason, delta.error
                if delta.finish_reason == "stop":
                    chunk.finish = "tool_calls"
                if delta.error is None:
                    chunk.usage = self._usage(delta.usage)
            chunks.append(chunk)
        self._on_chunks(chunks)

    def _usage(self, rest: Usage | None) -> Usage:
        """Of both requests together; the second prompt is the first one's and is not counted."""
        assert self._started is not None
        first = self._reader.usage
        written = self._started.num_written + (0 if rest is None else rest.completion_tokens)
        if first is None:
            return Usage(len(self._call.request.prompt_ids), 0, written, 0)
        return Usage(first.prompt_tokens, first.cached_tokens, written, first.reasoning_tokens)
