"""Requests and deltas as frames between the front end and an engine's process.

A frame is four bytes of length and JSON. JSON because a child process must not be able to make
its parent run anything (as pickle would), and because one frame a step is few.
"""

import json
import struct
from dataclasses import asdict, fields
from typing import Any, Final

from rorqual.engine import Delta, EngineStats, Request, SamplingParams
from rorqual.engine.requests import TokenLogprobs, Usage
from rorqual.engine.structure import Structure
from rorqual.errors import CapacityError, EngineError, RequestError, RorqualError

MAX_FRAME_BYTES: Final = 256 << 20
_HEADER: Final = struct.Struct(">I")
_DEFAULTS: Final = SamplingParams()


def pack(message: Any) -> bytes:
    """A frame of a JSON value."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )
    return _HEADER.pack(len(body)) + body


class FrameReader:
    """Whole frames out of bytes as they arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The frames that these bytes complete."""
        self._buffer += data
        found: list[Any] = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            (size,) = _HEADER.unpack_from(self._buffer, start)
            if size > MAX_FRAME_BYTES:
                raise EngineError(f"a frame of {size} bytes; the engine's process is broken")
            end = start + _HEADER.size + size
            if len(self._buffer) < end:
                break
            body = self._buffer[start + _HEADER.size : end]
            found.append(json.loads(body.decode("utf-8", "surrogatepass")))
            start = end
        del self._buffer[:start]
        return found


def request_to_json(request: Request) -> dict[str, Any]:
    """A request, without what its process decides itself (arrival)."""
    params: dict[str, Any] = {}
    for field in fields(SamplingParams):
        value = getattr(request.params, field.name)
        if value != getattr(_DEFAULTS, field.name):
            params[field.name] = value
    structure = params.get("structure")
    if isinstance(structure, Structure):
        params["structure"] = [structure.kind, structure.source, structure.param]
    return {
        "id": request.id,
        "prompt_ids": list(request.prompt_ids),
        "params": params,
        "priority": request.priority,
        "cache_salt": request.cache_salt.hex(),
        "split_reasoning": request.split_reasoning,
        "deadline": request.deadline,
    }


def request_from_json(raw: dict[str, Any]) -> Request:
    """The request that `request_to_json` wrote."""
    params: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in raw["params"].items()
    }
    if "logit_bias" in params:
        params["logit_bias"] = {int(key): bias for key, bias in params["logit_bias"].items()}
    if "structure" in params:
        params["structure"] = Structure(*params["structure"])
    return Request(
        id=raw["id"],
        prompt_ids=raw["prompt_ids"],
        params=SamplingParams(**params),
        priority=raw["priority"],
        cache_salt=bytes.fromhex(raw["cache_salt"]),
        split_reasoning=raw["split_reasoning"],
        deadline=raw["deadline"],
    )


def delta_to_json(delta: Delta) -> list[Any]:
    """A delta as a list; what only rollouts want (routes, policy statistics) stays behind."""
    head = [delta.request_id, delta.index, delta.token_ids, delta.text, delta.reasoning]
    if delta.finish_reason is None and delta.logprobs is None and delta.prompt_logprobs is None:
        return head if delta.cached_tokens is None else [*head, delta.cached_tokens]
    return [
        *head,
        delta.logprobs,
        delta.finish_reason,
        delta.stop_reason,
        delta.usage,
        None if delta.error is None else error_to_json(delta.error),
        delta.prompt_logprobs,
        delta.cached_tokens,
    ]


def delta_from_json(raw: list[Any]) -> Delta:
    """The delta that `delta_to_json` wrote."""
    if len(raw) <= 6:
        return Delta(*raw[:5], cached_tokens=raw[5] if len(raw) == 6 else None)
    name, index, ids, text, reasoning, logprobs, finish, stop, usage, error, prompt, cached = raw
    return Delta(
        name,
        index,
        ids,
        text,
        reasoning,
        logprobs=None if logprobs is None else [_logprobs(entry) for entry in logprobs],
        finish_reason=finish,
        stop_reason=stop,
        usage=None if usage is None else Usage(*usage),
        error=None if error is None else error_from_json(error),
        prompt_logprobs=None
        if prompt is None
        else [None if entry is None else _logprobs(entry) for entry in prompt],
        cached_tokens=cached,
    )


def stats_to_json(stats: EngineStats) -> dict[str, Any]:
    """The engine's figures."""
    return asdict(stats)


def error_to_json(error: BaseException) -> list[Any]:
    """[kind, message, code, param]: enough to raise it again on the other side."""
    if isinstance(error, RequestError):
        return ["request", str(error), error.code, error.param]
    kind = "capacity" if isinstance(error, CapacityError) else "engine"
    return [kind, str(error), None, None]


def error_from_json(raw: list[Any]) -> RorqualError:
    """The error that `error_to_json` wrote."""
    kind, message, code, param = raw
    if kind == "request":
        return RequestError(message, code=code, param=param)
    return CapacityError(message) if kind == "capacity" else EngineError(message)


def _logprobs(raw: list[Any]) -> TokenLogprobs:
    token_id, logprob, top = raw
    return TokenLogprobs(token_id, logprob, tuple((other, value) for other, value in top))
