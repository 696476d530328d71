"""What an answer must look like: a JSON schema, a regular expression, a choice or a grammar.

A `Structure` is the wish, checked for size when it is made. `StructureCompiler` turns it into a
matcher of the llguidance library, in a thread of its own, and keeps the recent ones by content.
`StructureState` follows one sequence and says which tokens may come next, as packed bits.

Schemas and patterns come from strangers. What is known to explode (deep nesting, tens of thousands
of properties, `multipleOf` a large number, directives that embed another language) is refused by
size or form; the rest is bounded by the library's own limits on work and by a time limit, after
which the compiler gives up. A thread cannot be killed, so it keeps its place until it is done;
with every place taken, further structures are refused and all other requests go on.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final, Literal, cast

from rorqual.errors import RequestError
from rorqual.tokenizer import Tools

StructureKind = Literal["json_object", "json_schema", "regex", "choice", "grammar", "tool_calls"]

MAX_SCHEMA_CHARACTERS: Final = 65_536
MAX_SCHEMA_DEPTH: Final = 64
MAX_SCHEMA_PROPERTIES: Final = 1_000
MAX_REGEX_CHARACTERS: Final = 8_192
MAX_CHOICES: Final = 4_096
MAX_CHOICE_CHARACTERS: Final = 65_536
MAX_GRAMMAR_CHARACTERS: Final = 32_768
MAX_MULTIPLE_OF_DIGITS: Final = 9_999  # as an integer without its trailing zeros
MAX_TOOLS: Final = 128
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LARK_DIRECTIVES: Final = ("import", "ignore", "declare")


@dataclass(frozen=True, slots=True)
class Structure:
    """A wish for the form of an answer; made by one of the class methods.

    `param` is the request field that an error is to name.
    """

    kind: StructureKind
    source: str
    param: str

    @classmethod
    def json_object(cls, *, param: str = "response_format") -> "Structure":
        """Any JSON object."""
        return cls("json_object", '{"type": "object"}', param)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any], *, param: str = "json_schema") -> "Structure":
        """JSON that a schema allows; properties come in the schema's order."""
        _check_schema(schema, param)
        try:
            text = json.dumps(schema, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise _refused(param, f"is not JSON ({error}); expected a JSON schema") from error
        _check_length(text, MAX_SCHEMA_CHARACTERS, param)
        return cls("json_schema", text, param)

    @classmethod
    def regex(cls, pattern: str, *, param: str = "regex") -> "Structure":
        """Text that matches a regular expression as a whole (Rust's syntax, no look-around)."""
        _check_length(pattern, MAX_REGEX_CHARACTERS, param)
        return cls("regex", pattern, param)

    @classmethod
    def choice(cls, options: Sequence[str], *, param: str = "choice") -> "Structure":
        """Exactly one of some texts."""
        if isinstance(options, str) or not all(isinstance(option, str) for option in options):
            raise _refused(param, "holds something else than text; expected a list of strings")
        if not 0 < len(options) <= MAX_CHOICES or not all(options):
            raise _refused(
                param,
                f"has {len(options)} options; expected 1 to {MAX_CHOICES}, none of them empty",
            )
        _check_length("".join(options), MAX_CHOICE_CHARACTERS, param)
        return cls("choice", json.dumps(list(options)), param)

    @classmethod
    def grammar(cls, lark: str, *, param: str = "grammar") -> "Structure":
        """Text that a context-free grammar in Lark's syntax derives from its rule `start`."""
        _check_length(lark, MAX_GRAMMAR_CHARACTERS, param)
        for part in lark.split("%")[1:]:
            if part[:1].isalpha() and not part.startswith(_LARK_DIRECTIVES):
                raise _refused(
                    param,
                    f"uses %{part.split(maxsplit=1)[0][:20]}; expected no directives but "
                    f"{', '.join('%' + name for name in _LARK_DIRECTIVES)}",
                )
        return cls("grammar", lark, param)

    @classmethod
    def tool_calls(
        cls,
        tools: Tools,
        *,
        name: str | None = None,
        parallel: bool = True,
        param: str = "tool_choice",
    ) -> "Structure":
        """A call of one of some tools in V3's and R1's syntax, its arguments as the tool says.

        `name` leaves only that tool; `parallel` allows more calls behind the first.
        """
        if len(tools) > MAX_TOOLS:
            raise _refused(param, f"comes with {len(tools)} tools; expected at most {MAX_TOOLS}")
        parameters: dict[str, object] = {}
        for tool in tools:
            function = tool.get("function", tool)
            fields = cast("Mapping[str, object]", function) if isinstance(function, Mapping) else {}
            own = fields.get("name")
            if not isinstance(own, str) or _TOOL_NAME.fullmatch(own) is None:
                raise _refused(param, "comes with a tool whose name is none; see tools")
            schema = fields.get("parameters") or {"type": "object"}
            _check_schema(schema, param)
            if name in (None, own):
                parameters[own] = schema
        if not parameters:
            raise _refused(
                param, f"asks for {name!r}, which is none of the tools; name one of them"
            )
        text = json.dumps({"parameters": parameters, "parallel": parallel})
        _check_length(text, MAX_SCHEMA_CHARACTERS, param)
        return cls("tool_calls", text, param)

    @property
    def key(self) -> bytes:
        """What structures of equal content share."""
        return sha256(f"{self.kind}\n{self.source}".encode("utf-8", "surrogatepass")).digest()


def _check_schema(schema: object, param: str) -> None:
    """Refuse what the library would need too long for; level by level, without recursion."""
    if not isinstance(schema, Mapping):
        raise _refused(param, f"is a {type(schema).__name__}; expected a JSON schema object")
    level: list[object] = [schema]
    num_values = 0
    for _ in range(MAX_SCHEMA_DEPTH):
        num_values += len(level)
        if num_values > MAX_SCHEMA_CHARACTERS:  # each is at least a character
            raise _refused(param, f"has more than {MAX_SCHEMA_CHARACTERS} values; simplify it")
        for value in level:
            if isinstance(value, Mapping):
                _check_keywords(cast("Mapping[object, object]", value), param)
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise _refused(param, f"nests deeper than {MAX_SCHEMA_DEPTH} levels; expected a flatter schema")


def _check_keywords(schema: Mapping[object, object], param: str) -> None:
    if len(schema) > MAX_SCHEMA_PROPERTIES:
        raise _refused(
            param,
            f"has an object of {len(schema)} properties; expected at most {MAX_SCHEMA_PROPERTIES}",
        )
    divisor = schema.get("multipleOf")
    if isinstance(divisor, int | float) and not isinstance(divisor, bool):
        number = Decimal(str(divisor))
        digits = number.normalize().as_tuple().digits if number.is_finite() else ()
        # The matcher's automaton has a state for every remainder.
        if len(digits) > 4 or int("".join(map(str, digits)) or "0") > MAX_MULTIPLE_OF_DIGITS:
            raise _refused(
                param, f"has multipleOf {divisor}; expected at most four significant digits"
            )


def _children(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return cast("Mapping[object, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list | tuple) else ()


def _check_length(text: str, limit: int, param: str) -> None:
    if not 0 < len(text) <= limit:
        raise _refused(param, f"has {len(text)} characters; expected 1 to {limit}, simplify it")


def _refused(param: str, problem: str) -> RequestError:
    return RequestError(f"{param} {problem}", code="invalid_structure", param=param)
