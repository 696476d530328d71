"""Which characters of a rendered conversation the assistant wrote: what the loss is taken on.

Found in the rendered string by the markers of three template families. Content cannot forge a
marker, since special strings inside it are disguised (markers.py) before this looks. A span runs
from behind the turn's opening through its end-of-turn token; a turn that is not closed (the
generation prompt, or text to be continued) is no training target. Nor is an earlier turn whose
reasoning the template left out: nobody would write that answer without having thought.
"""

import re
from collections.abc import Collection, Sequence
from itertools import zip_longest
from typing import Any

from rorqual.errors import RequestError

_DEEPSEEK = re.compile(
    "<｜(?:Assistant|tool▁outputs▁end)｜>"
    "(?P<output>(?:(?!<｜(?:User|Assistant|tool▁outputs▁begin)｜>).)*?<｜end▁of▁sentence｜>)",
    re.DOTALL,
)
_CHATML = re.compile(
    r"<\|im_start\|>assistant\n(?P<output>(?:(?!<\|im_start\|>).)*?<\|im_end\|>)", re.DOTALL
)
_LLAMA3 = re.compile(
    r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n"
    r"(?P<output>(?:(?!<\|start_header_id\|>).)*?<\|eot_id\|>)",
    re.DOTALL,
)
_FAMILIES = (
    ("<｜Assistant｜>", _DEEPSEEK),
    ("<|im_start|>", _CHATML),
    ("<|start_header_id|>", _LLAMA3),
)


def assistant_characters(
    rendered: str,
    messages: Sequence[Any],
    special_tokens: Collection[str],
    template: str,
) -> bytearray:
    """1 for every character of `rendered` that is assistant output, end-of-turn included."""
    written = bytearray(len(rendered))
    thoughts = (_reasoning(message) for message in messages if message["role"] == "assistant")
    spans = _family(special_tokens, template).finditer(rendered)
    for match, thought in zip_longest(spans, thoughts):
        if match is not None and (not thought or thought in match["output"]):
            start, end = match.span("output")
            written[start:end] = b"\x01" * (end - start)
    return written


def _reasoning(message: Any) -> str:
    """What the message says was thought, "" if nothing."""
    separate = message.get("reasoning_content")
    if isinstance(separate, str):
        return separate.strip()
    return (message["content"] or "").rpartition("</think>")[0].strip()


def _family(special_tokens: Collection[str], template: str) -> re.Pattern[str]:
    for marker, pattern in _FAMILIES:
        if marker in special_tokens and marker in template:
            return pattern
    known = ", ".join(marker for marker, _ in _FAMILIES)
    raise RequestError(
        f"the chat template marks assistant turns in an unknown way; expected one of {known}, "
        "use encode_messages where no loss mask is needed",
        code="unsupported_template",
    )
