"""JSON as bytes, where it is made and read for every token and request: orjson, and behind it the
standard library for what orjson refuses: half a surrogate pair, integers beyond 64 bits, keys that
are no strings."""

import json
from typing import Any, Final

import orjson

# Made once: json.dumps with options builds an encoder at every call.
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(value: Any) -> bytes:
    """Compact JSON in UTF-8. Half a surrogate pair becomes "?", a number that is none null."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return _encode(value).encode("utf-8", "replace")


def decode(data: bytes) -> Any:
    """What `encode` wrote, or somebody else; ValueError for what is no JSON."""
    try:
        return orjson.loads(data)
    except ValueError:
        return json.loads(data)
