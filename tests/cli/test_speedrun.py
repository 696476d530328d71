"""`rorqual speedrun`: what it would run, and errors of one line before anything runs."""

import json
from pathlib import Path

import pytest

from rorqual.cli import speedrun as command
from rorqual.cli.main import main
from rorqual.config.recipe import Pipeline


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["rorqual", "speedrun", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def test_dry_run_prints_every_stage_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = run(monkeypatch, "recipe.seed=4", "--preset", "laptop", "--out", str(out), "--dry-run")
    assert code == 0 and not out.exists()
    plan = json.loads(capsys.readouterr().out)
    assert plan["recipe"]["seed"] == 4
    stages = {stage["name"]: stage for stage in plan["stages"]}
    assert stages["zero"]["rl"]["seed"] == 4 and stages["zero"]["rl"]["model"] == "@base"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--preset", "tinny"], 2, "tinny"),
        (["zero.rl.max_step=1", "--preset", "tiny"], 2, "did you mean rl.max_steps?"),
        (["corpus.corpus.text=nowhere", "--preset", "tiny"], 1, "rorqual data fetch"),
    ],
)
def test_errors_are_one_line_and_leave_no_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, *arguments, "--out", str(out)) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and words in lines[0]
    assert not out.exists()


def test_an_interrupt_between_checkpoints_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(pipeline: Pipeline, out: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_recipe", interrupted)
    code = run(monkeypatch, "recipe.seed=4", "--preset", "tiny", "--out", str(tmp_path))
    assert code == 1
    said = capsys.readouterr().err
    assert "go on with: rorqual speedrun recipe.seed=4 --preset tiny" in said
