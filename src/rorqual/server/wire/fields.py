"""What becomes of each field of a request: honoured, accepted without effect, or refused.

A field is honoured if the body's model has it. Fields that the original service accepts and that
mean nothing here are dropped and named in the answer's X-Rorqual-Ignored header. Everything else is
refused by name, so that no client believes in something that does not happen.
"""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Never, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from rorqual.errors import RequestError

Body = TypeVar("Body", bound=BaseModel)
_MAX_NAME_CHARACTERS: Final = 64


class StrictBody(BaseModel):
    """A request body: no conversions, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class FieldTable(Generic[Body]):
    """The three lists of one endpoint. `refused` says of known fields what to do instead."""

    body: type[Body]
    ignored: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def honoured(self) -> frozenset[str]:
        """Fields with an effect, by the names that clients use."""
        fields = self.body.model_fields.items()
        return frozenset(known.alias or name for name, known in fields) - self.ignored

    def read(self, raw: Mapping[str, Any]) -> tuple[Body, tuple[str, ...]]:
        """The body and the names that were accepted without effect. A null field is not set."""
        given = {name: value for name, value in raw.items() if value is not None}
        for name in given:
            if name in self.refused:
                raise RequestError(
                    f"{name} is not supported here; {self.refused[name]}",
                    code="unsupported_parameter",
                    param=name,
                )
        dropped = tuple(sorted(name for name in given if name in self.ignored))
        kept = {name: value for name, value in given.items() if name not in self.ignored}
        try:
            return self.body.model_validate(kept), dropped
        except ValidationError as error:
            raise named(error) from None


def named(error: ValidationError) -> RequestError:
    """A validation error as one that names its field."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    parts = [str(part) for part in first["loc"] if not str(part).startswith("function-")]
    # What follows the name of a type is inside one of the field's alternatives.
    inside = itertools.takewhile(lambda part: part != "str" and "[" not in part, parts)
    where = ".".join(part[:_MAX_NAME_CHARACTERS] for part in inside)
    unknown = first["type"] == "extra_forbidden"
    message = "is not a known field; leave it out" if unknown else first["msg"]
    return RequestError(
        f"{where or 'body'}: {message}",
        code="unknown_parameter" if unknown else "invalid_request",
        param=where or None,
    )


def read_json(body: bytes) -> dict[str, Any]:
    """A JSON object; RequestError for anything else, however it is broken."""
    try:
        raw = _decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"the body is not valid JSON ({type(error).__name__}); expected an object in UTF-8",
            code="invalid_json",
        ) from None
    if not isinstance(raw, dict):
        raise RequestError("the body is not a JSON object; send one", code="invalid_json")
    if b"\\ud" in body.lower():
        try:
            json.dumps(raw, ensure_ascii=False).encode("utf-8")
        except (UnicodeEncodeError, RecursionError):
            raise RequestError(
                "the body holds half of a surrogate pair; expected Unicode text",
                code="invalid_json",
            ) from None
    return cast("dict[str, Any]", raw)


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON")


# Made once: json.loads with options builds a decoder at every call.
_decode: Final = json.JSONDecoder(parse_constant=_no_constant).decode
