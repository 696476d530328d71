"""Messages and tools in OpenAI's shape, checked before a template sees them.

A template reads fields blindly, so a wrong one would surface as a jinja error far from its
cause, or be printed as `None`. Every problem here is a RequestError that names the field.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from rorqual.errors import RequestError

Message = Mapping[str, Any]
Tools = Sequence[Mapping[str, Any]]
ROLES = ("system", "user", "assistant", "tool")
MAX_NESTING = 64


def check_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as the templates read them: each content one string, None only beside calls."""
    if not messages:
        raise _invalid("is empty; expected at least one message", "messages")
    return [_check_message(m, f"messages[{i}]") for i, m in enumerate(messages)]


def check_tools(tools: Tools | None) -> list[dict[str, Any]]:
    """Tool descriptions; none at all is the empty list."""
    return [check_object(tool, f"tools[{i}]") for i, tool in enumerate(tools or ())]


def check_object(value: object, where: str) -> dict[str, Any]:
    """A JSON object that nests no deeper than MAX_NESTING levels."""
    if not isinstance(value, Mapping):
        raise _invalid(f"got {type(value).__name__}; expected an object", where)
    checked = dict(cast("Mapping[str, Any]", value))
    level: list[object] = [checked]
    for _ in range(MAX_NESTING):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return checked
    raise _invalid(f"nests deeper than {MAX_NESTING} levels; expected flatter JSON", where)


def _children(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return cast("Mapping[object, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def _check_message(message: object, where: str) -> dict[str, Any]:
    checked = check_object(message, where)
    role = checked.get("role")
    if role not in ROLES:
        raise _invalid(f"role is {role!r}; expected one of {', '.join(ROLES)}", f"{where}.role")
    checked["content"] = _check_content(checked.get("content"), f"{where}.content")
    calls = checked.get("tool_calls")
    if calls and role == "assistant":
        checked["tool_calls"] = _check_tool_calls(calls, f"{where}.tool_calls")
    else:
        checked.pop("tool_calls", None)
        if checked["content"] is None:
            raise _invalid("content is missing; expected a string", f"{where}.content")
    reasoning = checked.get("reasoning_content")
    if reasoning is not None and not isinstance(reasoning, str):
        raise _invalid("expected a string or null", f"{where}.reasoning_content")
    return checked


def _check_content(content: object, where: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _invalid(f"got {type(content).__name__}; expected a string or text parts", where)
    texts: list[str] = []
    for part in cast("list[object]", content):
        fields = cast("dict[str, object]", part) if isinstance(part, dict) else {}
        text = fields.get("text")
        if fields.get("type") != "text" or not isinstance(text, str):
            raise _invalid("a part is not text; expected {'type': 'text', 'text': ...}", where)
        texts.append(text)
    return "".join(texts)


def _check_tool_calls(calls: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise _invalid(f"got {type(calls).__name__}; expected a list", where)
    checked: list[dict[str, Any]] = []
    for index, call in enumerate(cast("list[object]", calls)):
        fields = cast("dict[str, Any]", call) if isinstance(call, dict) else {}
        function = fields.get("function")
        function = cast("dict[str, Any]", function) if isinstance(function, dict) else {}
        named = isinstance(function.get("name"), str)
        if not named or not isinstance(function.get("arguments"), str | dict):
            raise _invalid(
                "expected {'type': 'function', 'function': {'name': ..., 'arguments': JSON}}",
                f"{where}[{index}]",
            )
        if fields.get("type", "function") != "function":
            raise _invalid(
                f"type is {fields['type']!r}; expected 'function'", f"{where}[{index}].type"
            )
        checked.append({**fields, "type": "function"})
    return checked


def _invalid(problem: str, param: str) -> RequestError:
    return RequestError(f"{param}: {problem}", code="invalid_messages", param=param)
