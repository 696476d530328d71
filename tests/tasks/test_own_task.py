"""docs/own-task.md: its file is the one that is tested, its TOML loads, its commands work."""

import random
import re
import tomllib
from pathlib import Path

from rorqual.config.rl import RLRunConfig
from rorqual.tasks import load_task, make_in_split
from rorqual.tasks.lint import lint_task

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "own-task.md").read_text(encoding="utf-8")
FILE = DOCS / "examples" / "reverse_digits.py"


def fenced(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return block


def test_the_page_shows_the_file() -> None:
    source = FILE.read_text(encoding="utf-8")
    assert source.endswith(fenced("python"))
    assert sum(bool(line.strip()) for line in source.splitlines()) <= 20


def test_the_example_is_clean() -> None:
    assert lint_task(f"{FILE}:ReverseDigits") == []


def test_the_page_names_a_run_that_loads() -> None:
    config = RLRunConfig.model_validate(tomllib.loads(fenced("toml")))
    name = config.tasks[0].name
    assert name == "reverse_digits.py:ReverseDigits"
    task = load_task(str(FILE.parent / name))
    for level in config.tasks[0].levels:
        for language in config.tasks[0].languages:
            problem = make_in_split(task, random.Random(0), level, language, held_out=True)
            digits = "".join(character for character in problem.prompt if character.isdigit())
            assert problem.answer == digits[::-1]
