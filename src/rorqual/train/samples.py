"""Conversations to fine-tune on, from JSONL files: read, checked, named by file and line.

A row holds `messages`, or `prompt` and `completion` (strings or messages), or `instruction`,
`input` and `output`; other columns are ignored. Two more say how a sampled trace counts: `weight`
(how often it comes per epoch: 2 is twice, 0.5 every other time) and `use` (false: not at all).
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rorqual.errors import DataError, RequestError
from rorqual.tokenizer import decode_utf8
from rorqual.tokenizer.messages import check_messages
from rorqual.tokenizer.text import surrogate_position


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation, and how often it comes per epoch (0: never)."""

    messages: list[dict[str, Any]]
    weight: float = 1.0


def read_samples(path: Path) -> Iterator[Sample]:
    """The rows of a JSONL file; DataError names the line of a bad one."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _sample(line, f"{path}:{number}")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected a JSONL file, see sft.files"
        ) from error


def _sample(line: bytes, place: str) -> Sample:
    try:
        row: Any = json.loads(decode_utf8(line, place))
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON ({error}); repair or drop the line") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: a JSON {type(row).__name__}; expected an object a line")
    try:
        messages = check_messages(_messages(row, place))
    except RequestError as error:
        raise DataError(f"{place}: {error}") from error
    position = surrogate_position(json.dumps(messages, ensure_ascii=False))
    if position is not None:
        raise DataError(f"{place}: half a surrogate pair, which UTF-8 cannot hold; drop it")
    return Sample(messages, _weight(row, place))


def _messages(row: dict[str, Any], place: str) -> list[Any]:
    if "messages" in row:
        if not isinstance(row["messages"], list):
            kind = type(row["messages"]).__name__
            raise DataError(f"{place}: messages is {kind}; expected a list")
        return row["messages"]
    if "prompt" in row and "completion" in row:
        prompt = _as_messages(row["prompt"], "user", f"{place}: prompt")
        return prompt + _as_messages(row["completion"], "assistant", f"{place}: completion")
    if "instruction" in row and "output" in row:
        parts = [row["instruction"], row.get("input") or "", row["output"]]
        if not all(isinstance(part, str) for part in parts):
            raise DataError(f"{place}: instruction, input and output must be strings")
        asked = "\n\n".join(part for part in parts[:2] if part)
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": parts[2]}]
    found = ", ".join(row) or "no column"
    raise DataError(
        f"{place}: has {found}; expected messages, or prompt and completion, or instruction and "
        "output, rename the columns"
    )


def _as_messages(value: object, role: str, place: str) -> list[Any]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list):
        return value
    raise DataError(f"{place} is {type(value).__name__}; expected a string or a list of messages")


def _weight(row: dict[str, Any], place: str) -> float:
    use, weight = row.get("use", True), row.get("weight", 1.0)
    if not isinstance(use, bool):
        raise DataError(f"{place}: use={use!r}; expected true or false")
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or weight < 0:
        raise DataError(f"{place}: weight={weight!r}; expected a number of at least 0")
    return float(weight) if use else 0.0
