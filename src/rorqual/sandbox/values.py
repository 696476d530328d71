"""Values that cross the border: plain types by exact type, as JSON text with tags.

A value is a scalar (None, bool, int, float, str) or a tagged array: `["l", ...]` list,
`["d", [key, value], ...]` dict, and in the wider dialect `["t", ...]` tuple, `["s", ...]` set and
`["c", real, imaginary]` complex. Types are compared with `is`, so a subclass whose `__eq__` always
says yes never crosses. The plain dialect is JSON's: tuples become lists, keys are str.

Both sides of the border run this file; the reading side trusts nothing it reads. Limits: depth,
digits of an int (Python's own limit on parsing them), and no lone surrogates, which would fail
later, in a log.
"""

import json
from typing import Any, cast

MAX_DEPTH = 32
_SCALARS = (int, float, str, bool, type(None))


class ValueRefused(Exception):
    """The value, or the text that claims to be one, may not cross."""


def encode_value(value: object, *, plain: bool) -> str:
    """JSON text of a value; raises ValueRefused for any other type and for deep or cyclic ones."""
    try:
        return json.dumps(_tagged(value, plain, 0))
    except (ValueError, UnicodeError) as error:
        raise ValueRefused(f"{error}") from None


def decode_value(text: str | bytes, *, plain: bool) -> Any:
    """The value that `encode_value` wrote; raises ValueRefused on any other text."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueRefused(f"not a value: {type(error).__name__}") from None
    return _untagged(raw, plain, 0)


def _tagged(value: object, plain: bool, depth: int) -> object:
    kind = type(value)
    if kind in _SCALARS:
        if kind is str:
            _check_text(cast(str, value))
        return value
    if depth >= MAX_DEPTH:
        raise ValueRefused(f"a value deeper than {MAX_DEPTH} levels may not cross")
    if kind is list or kind is tuple:
        items = cast(list[object], value)
        tag = "l" if plain or kind is list else "t"
        return [tag, *[_tagged(item, plain, depth + 1) for item in items]]
    if kind is dict:
        pairs = cast(dict[object, object], value)
        for key in pairs:
            if plain and type(key) is not str:
                raise ValueRefused(f"a dict key of type {_name(type(key))} may not cross, only str")
        return [
            "d",
            *[
                [_tagged(key, plain, depth + 1), _tagged(item, plain, depth + 1)]
                for key, item in pairs.items()
            ],
        ]
    if kind is set and not plain:
        return ["s", *[_tagged(item, plain, depth + 1) for item in cast(set[object], value)]]
    if kind is complex and not plain:
        number = cast(complex, value)
        return ["c", number.real, number.imag]
    raise ValueRefused(f"a value of type {_name(kind)} may not cross, only plain data")


def _untagged(raw: object, plain: bool, depth: int) -> Any:
    if not isinstance(raw, list):
        if isinstance(raw, dict):
            raise ValueRefused("not a value: a bare object")
        if isinstance(raw, str):
            _check_text(raw)
        return raw
    fields = cast(list[Any], raw)
    if depth >= MAX_DEPTH or not fields or type(fields[0]) is not str:
        raise ValueRefused("not a value: too deep or without a tag")
    tag, items = fields[0], fields[1:]
    if tag == "l":
        return [_untagged(item, plain, depth + 1) for item in items]
    if tag == "d":
        return _untagged_dict(items, plain, depth)
    if not plain and tag == "t":
        return tuple(_untagged(item, plain, depth + 1) for item in items)
    if not plain and tag == "s":
        return {_hashable(_untagged(item, plain, depth + 1)) for item in items}
    if not plain and tag == "c" and len(items) == 2 and all(type(x) is float for x in items):
        return complex(items[0], items[1])
    raise ValueRefused(f"not a value: tag {tag[:8]!r}")


def _untagged_dict(items: list[Any], plain: bool, depth: int) -> dict[Any, Any]:
    pairs: dict[Any, Any] = {}
    for item in items:
        pair = cast(list[Any], item) if type(item) is list else []
        if len(pair) != 2:
            raise ValueRefused("not a value: a dict without pairs")
        key = _hashable(_untagged(pair[0], plain, depth + 1))
        if plain and type(key) is not str:
            raise ValueRefused("not a value: a dict key that is not str")
        pairs[key] = _untagged(pair[1], plain, depth + 1)
    return pairs


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        raise ValueRefused("not a value: a list, dict or set as key or set member") from None
    return value


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueRefused("a str with lone surrogates may not cross") from None


def _name(kind: type) -> str:
    """The class's name through the one door that a metaclass cannot stand in."""
    return str(type.__dict__["__name__"].__get__(kind))[:64]
