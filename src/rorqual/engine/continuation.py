"""Prefix completion: an answer, or its reasoning, begun by the caller and continued by the model.

The last message is the assistant's and stays open. The text around the seam is encoded in one
piece, so the prompt has the ids that a whole turn has at this place, up to the last token.
"""

from collections.abc import Sequence
from typing import cast

from rorqual.engine.reasoning import ReasoningMarkers
from rorqual.errors import RequestError
from rorqual.tokenizer import Message, Tokenizer, Tools


def continuation_prompt(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    tools: Tools | None = None,
    thinking: bool | None = None,
) -> list[int]:
    """Ids of a conversation whose last message the model continues.

    With `reasoning_content` and no content the thinking is continued, with both it is closed and
    the content continued; content alone is answer, so thinking that the template opens is closed
    before it.
    """
    content, reasoning = _begun(messages)
    opening = tokenizer.encode_messages(
        messages[:-1], tools=tools, add_generation_prompt=True, thinking=thinking
    )
    if not content and not reasoning:
        return opening
    special = frozenset(tokenizer.special_tokens.values())
    head_length = len(opening)
    while head_length > 0 and opening[head_length - 1] not in special:
        head_length -= 1
    ids = opening[:head_length]
    seam = tokenizer.decode(opening[head_length:])  # what the template prints behind its marker
    markers = ReasoningMarkers.of(tokenizer)
    opened = markers is not None and _ends_with_marker(tokenizer, ids, seam, markers)
    if reasoning is None and not opened:
        return ids + tokenizer.encode(seam + content)
    if markers is None:
        raise RequestError(
            "reasoning_content was given in the message to continue, but this model does not mark "
            "reasoning; leave it out",
            code="unsupported_parameter",
            param=f"messages[{len(messages) - 1}].reasoning_content",
        )
    if not opened:
        ids, seam = _open(tokenizer, ids, seam, markers)
    if not content and reasoning is not None:
        return ids + tokenizer.encode(seam + reasoning)
    return _close(tokenizer, ids, seam + (reasoning or ""), markers, content)


def _begun(messages: Sequence[Message]) -> tuple[str, str | None]:
    """(content, reasoning) of the message to continue."""
    if len(messages) < 2 or messages[-1].get("role") != "assistant":
        raise RequestError(
            "messages: the last one is not the assistant's; expected a question and the beginning "
            "of its answer, append {'role': 'assistant', 'content': ..., 'prefix': true}",
            code="invalid_messages",
            param="messages",
        )
    where = f"messages[{len(messages) - 1}]"
    content, reasoning = messages[-1].get("content"), messages[-1].get("reasoning_content")
    if messages[-1].get("tool_calls"):
        raise RequestError(
            f"{where}.tool_calls cannot be continued; expected text alone, leave them out",
            code="invalid_messages",
            param=f"{where}.tool_calls",
        )
    for name, text in (("content", content or ""), ("reasoning_content", reasoning or "")):
        if not isinstance(text, str):
            raise RequestError(
                f"{where}.{name} is {type(text).__name__}; expected a string",
                code="invalid_messages",
                param=f"{where}.{name}",
            )
    return cast("str", content or ""), cast("str | None", reasoning)


def _ends_with_marker(
    tokenizer: Tokenizer, ids: list[int], seam: str, markers: ReasoningMarkers
) -> bool:
    """Whether the template has opened thinking and left it open."""
    if markers.by_id:
        return ids[-1:] == [markers.begin_ids[0]]
    return seam.rstrip().endswith(markers.begin)


def _open(
    tokenizer: Tokenizer, ids: list[int], seam: str, markers: ReasoningMarkers
) -> tuple[list[int], str]:
    if markers.by_id:
        return [*ids, *tokenizer.encode(seam), *markers.begin_ids], "\n"
    return ids, f"{seam}{markers.begin}\n"


def _close(
    tokenizer: Tokenizer, ids: list[int], thought: str, markers: ReasoningMarkers, content: str
) -> list[int]:
    if markers.by_id:
        inside = tokenizer.encode(thought + "\n")
        return [*ids, *inside, *markers.end_ids, *tokenizer.encode("\n\n" + content)]
    return ids + tokenizer.encode(f"{thought}\n{markers.end}\n\n{content}")
