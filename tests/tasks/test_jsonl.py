"""A JSONL file as a task: every layout in use, and errors that name the line."""

import json
import random
from pathlib import Path

import pytest

from rorqual.errors import ConfigError, DataError
from rorqual.tasks import load_task, make_in_split

LAYOUTS = {
    "trl answer": ({"prompt": "What is 40+2?", "answer": "42"}, "What is 40+2?", "42"),
    "trl number": ({"prompt": "What is 40+2?", "answer": 42}, "What is 40+2?", "42"),
    "trl solution": (
        {"prompt": [{"role": "user", "content": "Add 40, 2."}], "solution": "It is \\boxed{42}."},
        "Add 40, 2.",
        "42",
    ),
    "verl": (
        {
            "data_source": "made/up",
            "prompt": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Add 40, 2."},
            ],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "42"},
            "extra_info": {"index": 0},
        },
        "Be brief.\n\nAdd 40, 2.",
        "42",
    ),
    "reasoning-gym": (
        {"question": "40 + 2 =", "answer": "42", "metadata": {"source_dataset": "chain_sum"}},
        "40 + 2 =",
        "42",
    ),
    "open-r1": (
        {"problem": "Add 40, 2.", "verification_info": {"ground_truth": "42"}},
        "Add 40, 2.",
        "42",
    ),
    "open-r1 as text": (
        {"prompt": "Add 40, 2.", "verification_info": '{"ground_truth": "42"}'},
        "Add 40, 2.",
        "42",
    ),
    "gsm8k": (
        {"question": "Ann has 40, gets 2.", "answer": "She has 40+2=<<40+2=42>>42.\n#### 42"},
        "Ann has 40, gets 2.",
        "42",
    ),
}


def write(path: Path, *rows: object) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_maps_and_scores(layout: str, tmp_path: Path) -> None:
    row, prompt, answer = LAYOUTS[layout]
    task = load_task(write(tmp_path / "mine.jsonl", row))
    assert (task.name, task.num_levels) == ("mine", 1)
    problem = task.make(random.Random(0), 1)
    assert (problem.prompt, problem.answer, problem.language) == (prompt, answer, "en")
    solution = task.solve(problem, random.Random(0))
    assert task.score(problem, solution.completion(thinking=True)).correct
    assert task.score(problem, "<think>\nhm\n</think>\n\n\\boxed{42.0}").correct
    assert not task.score(problem, "\\boxed{41}").correct


def test_worked_solutions_lose_calculator_notes(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "gsm.jsonl", LAYOUTS["gsm8k"][0]))
    solution = task.solve(task.make(random.Random(0), 1), random.Random(0))
    assert solution.thinking == "She has 40+2=42."
    assert solution.content == "\\boxed{42}"


def test_languages_are_told_apart_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n}+1?", "answer": n + 1} for n in range(40)]
    english = load_task(write(tmp_path / "en.jsonl", *rows))
    with pytest.raises(ConfigError, match="has no zh rows"):
        english.make(random.Random(0), 1, "zh")
    rows.append({"prompt": "40加2等于多少？", "answer": "42"})
    both = load_task(write(tmp_path / "both.jsonl", *rows))
    assert both.make(random.Random(0), 1, "zh").answer == "42"
    assert {both.make(random.Random(seed), 1, "en").language for seed in range(20)} == {"en"}


def test_rows_are_split_by_their_question(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n}+1?", "answer": n + 1} for n in range(200)]
    task, rng = load_task(write(tmp_path / "sums.jsonl", *rows)), random.Random(0)
    held_out = {make_in_split(task, rng, 1, held_out=True).prompt for _ in range(300)}
    training = {make_in_split(task, rng, 1, held_out=False).prompt for _ in range(300)}
    assert len(held_out) > 10 and not held_out & training


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[1]", "a list, expected a JSON object"),
        ('{"text": "x", "answer": "1"}', "no prompt, question or problem"),
        ('{"prompt": " ", "answer": "1"}', "prompt is empty"),
        ('{"prompt": "x"}', "no answer, solution"),
        ('{"prompt": "x", "answer": ""}', "answer has 0 characters"),
        ('{"prompt": "x", "answer": [1]}', "answer is list, expected text or a number"),
        (json.dumps({"prompt": "x", "answer": "9" * 201}), "answer has 201 characters"),
        ('{"prompt": "x", "reward_model": {"style": "rule"}}', "has no ground_truth"),
        ('{"prompt": "x", "verification_info": "{"}', "verification_info holds no JSON"),
        (
            '{"prompt": "x", "verification_info": {"language": "python", "test_cases": [1]}}',
            "can only be judged by running code",
        ),
        (
            '{"prompt": [{"role": "assistant", "content": "x"}], "answer": "1"}',
            "must hold system and user messages",
        ),
    ],
)
def test_a_bad_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "1+1?", "answer": "2"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message) as error:
        load_task(str(path))
    assert "bad.jsonl:3" in str(error.value) and "\n" not in str(error.value)


def test_missing_binary_and_empty_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_task(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="has no rows"):
        load_task(str(tmp_path / "empty.jsonl"))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        load_task(str(tmp_path / "binary.jsonl"))
