"""Worked examples: the training split only, fixed by the seed, right by the task's own score."""

from pathlib import Path

import pytest

from rorqual.cli.main import main
from rorqual.config.tasks import TaskShare
from rorqual.data import load_manifest
from rorqual.data.corpus import read_corpus
from rorqual.errors import ConfigError
from rorqual.tasks import load_task
from rorqual.train import worked_examples, write_task_corpus

EASY = TaskShare(name="running_state", levels=(1, 2), weight=3, thinking=0.25)
HARD = TaskShare(name="running_state", levels=(4,), languages=("zh",), weight=1, thinking=1.0)


def test_no_example_is_of_the_held_out_split_and_every_one_is_right() -> None:
    task = load_task("running_state")
    for example in worked_examples([EASY, HARD], 300, seed=0):
        assert not example.problem.held_out
        asked, reply = example.messages
        assert asked["content"] == example.problem.prompt
        text = reply["content"]
        if example.thinking:
            text = f"<think>\n{reply['reasoning_content']}\n</think>\n\n{text}"
        else:
            assert "reasoning_content" not in reply
        assert task.score(example.problem, text).correct


def test_shares_weights_levels_and_languages_are_kept() -> None:
    examples = list(worked_examples([EASY, HARD], 1200, seed=1))
    hard = [example for example in examples if example.problem.level == 4]
    easy = [example for example in examples if example.problem.level != 4]
    assert abs(len(hard) / 1200 - 0.25) < 0.05
    assert {example.problem.language for example in hard} == {"zh"}
    assert all(example.thinking for example in hard)
    assert {(e.problem.level, e.problem.language) for e in easy} == {
        (level, language) for level in (1, 2) for language in ("en", "zh")
    }
    assert abs(sum(e.thinking for e in easy) / len(easy) - 0.25) < 0.06


def test_follow_ups_stand_behind_other_questions() -> None:
    share = EASY.model_copy(update={"follow_up": 0.5})
    task = load_task("running_state")
    turns = []
    for example in worked_examples([share], 400, seed=4):
        turns.append(len(example.messages) // 2)
        asked, reply = example.messages[-2:]
        assert asked["content"] == example.problem.prompt
        assert task.score(example.problem, reply["content"]).correct
        assert [m["role"] for m in example.messages] == ["user", "assistant"] * turns[-1]
    assert set(turns) == {1, 2, 3}
    assert abs(turns.count(1) / 400 - 0.5) < 0.08


def test_the_seed_fixes_them_and_a_longer_list_begins_with_the_shorter() -> None:
    first = list(worked_examples([EASY, HARD], 50, seed=2))
    assert list(worked_examples([EASY, HARD], 80, seed=2))[:50] == first
    assert list(worked_examples([EASY, HARD], 50, seed=3)) != first


def test_a_corpus_of_them_is_a_source(tmp_path: Path) -> None:
    entry = write_task_corpus(tmp_path, [HARD], 60, seed=0)
    assert (entry.name, entry.language, entry.held_out_documents) == ("tasks", "zh", 0)
    assert entry.documents + entry.duplicates == 60
    documents = list(read_corpus(load_manifest(tmp_path).corpus_path("tasks")))
    drawn = {str(example.messages) for example in worked_examples([HARD], 60, seed=0)}
    assert {str(document.messages) for document in documents} == drawn
    again = write_task_corpus(tmp_path, [HARD], 60, seed=0)
    assert again.corpus_sha256 == entry.corpus_sha256


def test_a_level_that_does_not_exist_is_refused_before_anything_is_drawn() -> None:
    share = TaskShare(name="running_state", levels=(1, 9), weight=1)
    with pytest.raises(ConfigError, match="level=9 of task running_state"):
        next(worked_examples([EASY, share], 1, seed=0))


def test_the_command_adds_them_to_a_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "corpus.toml"
    file.write_text('[[tasks]]\nname = "running_state"\nlevels = [4]\nlanguages = ["zh"]\n')
    changes = ["corpus.num_examples=60", f"corpus.root={tmp_path}/data", "corpus.name=worked"]
    monkeypatch.setattr("sys.argv", ["rorqual", "tasks", "corpus", str(file), *changes])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    entry = load_manifest(tmp_path / "data").sources["worked"]
    documents = read_corpus(load_manifest(tmp_path / "data").corpus_path("worked"))
    drawn = {str(example.messages) for example in worked_examples([HARD], 60, seed=0)}
    assert {str(document.messages) for document in documents} == drawn
    assert f"worked: {entry.documents} conversations" in capsys.readouterr().out
