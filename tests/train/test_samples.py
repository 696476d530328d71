"""JSONL of conversations: every layout, and one line for every fault."""

import json
from pathlib import Path
from typing import Any

import pytest

from rorqual.errors import DataError
from rorqual.train.samples import Sample, read_samples

ASK, ANSWER = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASK, ANSWER], "reward": 1.0},
        {"prompt": "2+2?", "completion": "4"},
        {"prompt": [ASK], "completion": [ANSWER]},
        {"instruction": "2+2?", "output": "4"},
        {"instruction": "2+2?", "input": "", "output": "4"},
    ],
)
def test_every_layout_gives_the_same_conversation(tmp_path: Path, row: dict[str, Any]) -> None:
    assert list(read_samples(write(tmp_path / "a.jsonl", row))) == [Sample([ASK, ANSWER])]


def test_an_input_follows_its_instruction(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "input": "2 2", "output": "4"}
    (sample,) = read_samples(write(tmp_path / "a.jsonl", row))
    assert sample.messages[0]["content"] == "Add.\n\n2 2"


def test_weight_and_use_say_how_often_a_trace_comes(tmp_path: Path) -> None:
    row = {"prompt": "a", "completion": "b"}
    columns = [{}, {"weight": 2}, {"weight": 0.5, "use": True}, {"use": False}, {"weight": 0}]
    path = write(tmp_path / "a.jsonl", *(row | extra for extra in columns), "")
    assert [sample.weight for sample in read_samples(path)] == [1.0, 2.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"messages": ', "not JSON"),
        ("[1]", "a JSON list"),
        ({"text": "x"}, "has text; expected messages"),
        ({}, "has no column"),
        ({"messages": {"role": "user"}}, "messages is dict"),
        ({"messages": "x"}, "messages is str"),
        ({"messages": []}, "messages: is empty"),
        ({"messages": [{"role": "whale", "content": "x"}]}, "messages[0].role"),
        ({"messages": [ASK, {"role": "assistant"}]}, "messages[1].content"),
        ({"prompt": 3, "completion": "x"}, "prompt is int"),
        ({"instruction": "x", "output": 4}, "must be strings"),
        ({"prompt": "a", "completion": "b", "weight": -1}, "weight=-1"),
        ({"prompt": "a", "completion": "b", "weight": "2"}, "weight='2'"),
        ({"prompt": "a", "completion": "b", "weight": True}, "weight=True"),
        ('{"prompt": "a", "completion": "b", "weight": NaN}', "weight=nan"),
        ({"prompt": "a", "completion": "b", "use": 1}, "use=1"),
        ('{"prompt": "\\ud83d", "completion": "b"}', "half a surrogate pair"),
    ],
)
def test_a_bad_row_is_one_line_with_its_number(tmp_path: Path, row: Any, words: str) -> None:
    good = {"prompt": "a", "completion": "b"}
    path = write(tmp_path / "a.jsonl", good, "", row, good)
    with pytest.raises(DataError) as error:
        list(read_samples(path))
    assert f"{path}:3" in str(error.value) and words in str(error.value)
    assert "\n" not in str(error.value)


def test_bytes_that_are_not_text_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "a", "completion": "b"}\n{"prompt": "\xff"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: byte 0xff"):
        list(read_samples(path))
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read"):
        list(read_samples(tmp_path / "none.jsonl"))
