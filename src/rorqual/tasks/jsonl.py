"""A task from a JSONL file, one problem a line, in the column layouts in use.

    TRL               prompt (text or messages) + solution or answer
    verl              prompt (messages) + reward_model.ground_truth (+ data_source)
    reasoning-gym     question + answer (+ metadata)
    open-r1           prompt or problem + verification_info.ground_truth (an object, or as text)
    GSM8K             question + answer that ends in `#### 42`

Answers are compared exactly, as numbers where they are numbers; rows that can only be judged by
running tests are refused. A worked solution is taken where the answer column holds one.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rorqual.errors import ConfigError, DataError
from rorqual.tasks.answers import final_answer
from rorqual.tasks.base import LANGUAGES, Language, Problem, Solution, Task, check_level

_MOST_ANSWER_CHARACTERS = 200  # what `answers` reads out of a box
_CALCULATOR_NOTES = re.compile(r"<<[^<>]*>>")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_GSM8K_MARK = "####"


@dataclass(frozen=True, slots=True)
class Row:
    """One problem of the file. worked: the text before the answer, "" if there is none."""

    prompt: str
    answer: str
    worked: str
    language: Language


class JsonlTask(Task):
    """The rows of one file, in one level; a row with a Chinese character counts as Chinese."""

    num_levels: ClassVar[int] = 1
    rows: ClassVar[dict[Language, tuple[Row, ...]]]

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        found = (
            self.rows[language]
            if language
            else [row for rows in self.rows.values() for row in rows]
        )
        if not found:
            raise ConfigError(
                f'{self.name} has no {language} rows; leave "{language}" out of languages'
            )
        row = rng.choice(found)
        return Problem(
            task=self.name,
            level=level,
            language=row.language,
            prompt=row.prompt,
            answer=row.answer,
            key=" ".join(row.prompt.split()),
            data={"worked": row.worked},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        """The file's own working; empty thinking where it gives none."""
        del rng
        return Solution(problem.data["worked"], f"\\boxed{{{problem.answer}}}")


def load_jsonl_task(path: Path) -> Task:
    """The file as a task named after it; DataError names the line that does not fit."""
    read = list(_read_rows(path))
    if not read:
        raise DataError(f"{path} has no rows; expected one JSON object a line")
    by_language: dict[Language, tuple[Row, ...]] = {
        language: tuple(row for row in read if row.language == language) for language in LANGUAGES
    }

    class FileTask(JsonlTask):
        name: ClassVar[str] = path.stem
        rows: ClassVar[dict[Language, tuple[Row, ...]]] = by_language

    return FileTask()


def _read_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _read_row(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; expected a UTF-8 JSONL file") from error


def _read_row(line: str, place: str) -> Row:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{place}: no JSON ({error}); expected one object a line") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: a {type(row).__name__}, expected a JSON object; wrap it")
    prompt = _read_prompt(row, place)
    given = _read_gold(row, place)
    worked, answer = _split_answer(given)
    if not answer or len(answer) > _MOST_ANSWER_CHARACTERS:
        raise DataError(
            f"{place}: answer has {len(answer)} characters, expected 1 to "
            f"{_MOST_ANSWER_CHARACTERS}; "
            "put the final answer into \\boxed{} or after ####"
        )
    return Row(prompt, answer, worked, "zh" if _CHINESE.search(prompt) else "en")


def _read_prompt(row: dict[str, Any], place: str) -> str:
    """Text as it is; of messages, the system and user text. A dialogue with replies is refused."""
    column = next((name for name in ("prompt", "question", "problem") if name in row), None)
    if column is None:
        raise DataError(f"{place}: no prompt, question or problem among {sorted(row)}; name one so")
    prompt = row[column]
    if isinstance(prompt, list):
        parts: list[str] = []
        for message in prompt:
            fits = isinstance(message, dict) and isinstance(message.get("content"), str)
            if not fits or message.get("role") not in ("system", "user"):
                raise DataError(
                    f"{place}: {column} must hold system and user messages with text content, got "
                    f"{str(message)[:80]!r}; keep the first question only"
                )
            parts.append(message["content"])
        prompt = "\n\n".join(parts)
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError(f"{place}: {column} is empty or no text, got {str(prompt)[:80]!r}; fill it")
    return prompt.strip()


def _read_gold(row: dict[str, Any], place: str) -> str:
    """The answer column of whichever layout the row has."""
    for outer in ("reward_model", "verification_info"):
        if outer in row:
            return _as_text(_read_nested(row[outer], f"{place}: {outer}"), f"{place}: {outer}")
    for column in ("answer", "solution"):
        if row.get(column) is not None:
            return _as_text(row[column], f"{place}: {column}")
    raise DataError(
        f"{place}: no answer, solution, reward_model or verification_info among {sorted(row)}; "
        "add the answer"
    )


def _read_nested(value: object, place: str) -> object:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{place} holds no JSON ({error}); expected an object") from error
    if isinstance(value, dict):
        for name in ("ground_truth", "answer", "solution"):
            if value.get(name) is not None:
                return value[name]
        if "test_cases" in value:
            raise DataError(
                f"{place}.test_cases can only be judged by running code, expected ground_truth; "
                "use a task that runs programs"
            )
    raise DataError(f"{place} has no ground_truth, got {str(value)[:80]!r}; add it")


def _as_text(value: object, place: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{place} is {type(value).__name__}, expected text or a number; convert it")


def _split_answer(text: str) -> tuple[str, str]:
    """(working, final answer): after ####, in the last box, or all of it."""
    worked, mark, answer = text.rpartition(_GSM8K_MARK)
    if mark:
        return _CALCULATOR_NOTES.sub("", worked).strip(), answer.strip()
    boxed = final_answer(text)
    if boxed is not None:
        return text.strip(), boxed
    return "", text.strip()
