"""Items of /v1/responses: checked, brought into one form, and read as a conversation.

The form is the one in which items are kept and listed: every message has parts and an id, so items
that were sent and items that the model wrote are read alike. Ids tell the response that they belong
to, which is how a reference to an item is followed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from rorqual.errors import RequestError
from rorqual.tokenizer.messages import check_object

Kind = Literal["msg", "rs", "fc", "fco"]
Item = Mapping[str, Any]
_ID: Final = re.compile(r"(?:msg|rs|fc|fco)_([0-9a-f]{24})_i?[0-9]{1,6}")
_RESPONSE_ID: Final = re.compile(r"resp_[0-9a-f]{24}")
_MAX_ID_CHARACTERS: Final = 64
# Beside what means something here, items carry what other parts of the original service read.
_BESIDE: Final = frozenset({"id", "type", "status", "phase", "annotations", "logprobs"})
_REASONING_PARTS: Final = ("reasoning_text", "text")
_SUMMARY_PARTS: Final = ("summary_text",)
_INPUT_PARTS: Final = ("input_text",)
_OUTPUT_PARTS: Final = ("output_text", "refusal")


def item_id(kind: Kind, response_id: str, place: str) -> str:
    """The id of a response's item: of its output by number, of its input as `i` and a number."""
    return f"{kind}_{response_id.removeprefix('resp_')}_{place}"


def is_response_id(name: str) -> bool:
    """Whether a name can be a response's."""
    return _RESPONSE_ID.fullmatch(name) is not None


def referred_responses(given: str | Sequence[Item]) -> list[str]:
    """Ids of the responses whose items are referred to."""
    if isinstance(given, str):
        return []
    found = (_ID.fullmatch(str(item.get("id"))) for item in given if _is_reference(item))
    return sorted({f"resp_{match[1]}" for match in found if match is not None})


def checked_items(
    given: str | Sequence[Item], response_id: str, known: Mapping[str, Item]
) -> list[dict[str, Any]]:
    """Input in the one form. known: what references may name."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    items: list[dict[str, Any]] = []
    for index, raw in enumerate(given):
        where = f"input[{index}]"
        given_fields = check_object(raw, where).items()
        item = {name: value for name, value in given_fields if value is not None}
        if _is_reference(item):
            items.append(_referred(item, where, known))
            continue
        kind = item.get("type", "message")
        check = _CHECKS.get(kind) if isinstance(kind, str) else None
        if check is None:
            raise _invalid(
                f"{where}.type",
                f"{str(kind)[:40]!r} is not read here; send messages, function_call, "
                "function_call_output and reasoning items",
            )
        short, checked = check(item, where)
        name = item.get("id", "")
        if not isinstance(name, str) or len(name) > _MAX_ID_CHARACTERS:
            raise _invalid(f"{where}.id", f"expected at most {_MAX_ID_CHARACTERS} characters")
        items.append({"id": name or item_id(short, response_id, f"i{index}"), **checked})
    return items


def conversation(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Items in the one form as messages in the shape of chat completions.

    What the assistant did in one go is one message there: reasoning, text, then calls.
    """
    messages: list[dict[str, Any]] = []
    turn: dict[str, Any] | None = None
    for item in items:
        if _is_assistants(item):
            if turn is None or not _continues(turn, item):
                turn = {"role": "assistant", "content": ""}
                messages.append(turn)
            _add(turn, item)
            continue
        turn = None
        if item["type"] == "message":
            role = "system" if item["role"] == "developer" else item["role"]
            messages.append({"role": role, "content": _joined(item["content"])})
        else:
            output = item["output"]
            text = output if isinstance(output, str) else _joined(output)
            message = {"role": "tool", "tool_call_id": item["call_id"], "content": text}
            messages.append(message)
    return messages


def _is_assistants(item: Item) -> bool:
    return item["type"] in ("reasoning", "function_call") or item.get("role") == "assistant"


def _continues(turn: Mapping[str, Any], item: Item) -> bool:
    """Whether the item can follow what the turn has."""
    if item["type"] == "function_call":
        return True
    if "tool_calls" in turn or turn["content"]:
        return False
    return item["type"] == "message" or "reasoning_content" not in turn


def _add(turn: dict[str, Any], item: Item) -> None:
    if item["type"] == "message":
        turn["content"] = _joined(item["content"])
    elif item["type"] == "reasoning":
        turn["reasoning_content"] = _joined(item.get("content") or item["summary"])
    else:
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        turn.setdefault("tool_calls", []).append(call)


def _joined(parts: Sequence[Mapping[str, Any]]) -> str:
    return "".join(part["text"] for part in parts)


def _is_reference(item: Item) -> bool:
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and set(item) == {"id"})


def _referred(item: Item, where: str, known: Mapping[str, Item]) -> dict[str, Any]:
    found = known.get(str(item.get("id")))
    if found is None:
        raise _invalid(f"{where}.id", "no item of yours that is kept has this id; send the item")
    return dict(found)


def _message(item: Item, where: str) -> tuple[Kind, dict[str, Any]]:
    _no_others(item, where, {"role", "content"})
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise _invalid(f"{where}.role", f"{role!r}; expected user, assistant, system or developer")
    kinds, kind = (_INPUT_PARTS, "input_text")
    if role == "assistant":
        kinds, kind = (_OUTPUT_PARTS, "output_text")
    texts = _texts(item.get("content"), f"{where}.content", kinds)
    extra = {"annotations": []} if role == "assistant" else {}
    parts = [{"type": kind, "text": text, **extra} for text in texts]
    return "msg", {"type": "message", "role": role, "status": "completed", "content": parts}


def _reasoning(item: Item, where: str) -> tuple[Kind, dict[str, Any]]:
    _no_others(item, where, {"summary", "content", "encrypted_content"})
    texts = _texts(item.get("content", []), f"{where}.content", _REASONING_PARTS)
    summary = _texts(item.get("summary", []), f"{where}.summary", _SUMMARY_PARTS)
    if "encrypted_content" in item and not texts and not summary:
        raise _invalid(f"{where}.encrypted_content", "cannot be read here; leave the item out")
    return "rs", {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text} for text in summary],
        "content": [{"type": "reasoning_text", "text": text} for text in texts],
        "status": "completed",
    }


def _call(item: Item, where: str) -> tuple[Kind, dict[str, Any]]:
    _no_others(item, where, {"call_id", "name", "arguments"})
    fields = {name: _string(item, where, name) for name in ("call_id", "name", "arguments")}
    return "fc", {"type": "function_call", **fields, "status": "completed"}


def _call_output(item: Item, where: str) -> tuple[Kind, dict[str, Any]]:
    _no_others(item, where, {"call_id", "output", "name"})
    output = item.get("output")
    if not isinstance(output, str):
        texts = _texts(output, f"{where}.output", _INPUT_PARTS)
        output = [{"type": "input_text", "text": text} for text in texts]
    call_id = _string(item, where, "call_id")
    kind = "function_call_output"
    return "fco", {"type": kind, "call_id": call_id, "output": output, "status": "completed"}


_CHECKS: Final[dict[str, Callable[[Item, str], tuple[Kind, dict[str, Any]]]]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _call,
    "function_call_output": _call_output,
}


def _texts(content: object, where: str, kinds: Sequence[str]) -> list[str]:
    """The texts of a string or of parts of these kinds."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise _invalid(where, "expected a string or a list of parts")
    texts: list[str] = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in kinds:
            raise _invalid(
                f"{where}[{index}].type", f"{str(kind)[:40]!r}; only {' and '.join(kinds)} here"
            )
        name = "refusal" if kind == "refusal" else "text"
        texts.append(_string(part, f"{where}[{index}]", name))
    return texts


def _string(item: Item, where: str, name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise _invalid(f"{where}.{name}", "expected a string")
    return value


def _no_others(item: Item, where: str, known: set[str]) -> None:
    unknown = set(item) - known - _BESIDE
    if unknown:
        raise _invalid(f"{where}.{min(unknown)}", "is not a known field; leave it out")


def _invalid(where: str, problem: str) -> RequestError:
    return RequestError(f"{where}: {problem}", code="invalid_input", param=where)
