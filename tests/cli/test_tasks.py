"""`rorqual tasks`: lists, shows and judges."""

import json
from pathlib import Path

from typer.testing import CliRunner

from rorqual.cli.tasks import app
from rorqual.tasks import list_tasks

EXAMPLE = f"{Path(__file__).resolve().parents[2]}/docs/examples/reverse_digits.py:ReverseDigits"


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.output


def test_list_names_every_task() -> None:
    assert [row["name"] for row in json.loads(run("list", "--json"))] == list(list_tasks())
    table = run("list")
    assert all(name in table for name in list_tasks())


def test_show_prints_problems_with_solutions() -> None:
    text = run("show", "word_problems", "--level", "2", "--language", "zh", "--count", "3")
    assert text.count("# word_problems-") == text.count("</think>\n\n\\boxed{") == 3
    assert text == run("show", "word_problems", "--level", "2", "--language", "zh", "--count", "3")


def test_show_json_is_one_object_a_line() -> None:
    rows = [json.loads(line) for line in run("show", EXAMPLE, "--json", "--seed", "3").splitlines()]
    assert len(rows) == 4
    for row in rows:
        assert row["answer"] in row["content"] and row["task"] == "reverse_digits"
        assert row.keys() >= {"prompt", "thinking", "level", "language", "held_out", "problem_id"}


def test_lint_exits_by_what_it_finds(tmp_path: Path) -> None:
    assert run("lint", EXAMPLE) == f"{EXAMPLE}: passed\n"
    path = tmp_path / "generous.py"
    source = Path(EXAMPLE.rpartition(":")[0]).read_text(encoding="utf-8")
    path.write_text(
        source + "\n    def score(self, problem, completion):\n"
        "        from rorqual.tasks import Score\n        return Score(1.0, True, 'fine')\n",
        encoding="utf-8",
    )
    refused = run("lint", f"{path}:ReverseDigits", code=1)
    assert refused.startswith(f"{path}:ReverseDigits: refused\n")
    assert "refused: pays 1 for a wrong answer (" in refused and "times)" in refused
    (row,) = json.loads(run("lint", f"{path}:ReverseDigits", "--json", code=1))
    assert {found["severity"] for found in row["findings"]} == {"refused"}
