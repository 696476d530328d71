"""The recipe's data folder, and the time it says is left."""

from pathlib import Path

import pytest

from rorqual.config.recipe import CorpusStageRunConfig, load_recipe
from rorqual.data import load_manifest
from rorqual.data.add import add_files
from rorqual.errors import DataError
from rorqual.recipe.corpus import count_examples, make_corpus
from rorqual.recipe.progress import RecipeProgress
from rorqual.units import format_seconds


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A data folder with text of the user's own."""
    for number in range(8):
        lines = [f"The {word} sea, day {number}." for word in ("calm", "grey", "loud") * 20]
        (tmp_path / f"{number}.txt").write_text("\n".join(lines), encoding="utf-8")
    files = sorted(tmp_path.glob("*.txt"))
    add_files(tmp_path / "data", files, name="sea", language="en", licence="own")
    return tmp_path / "data"


def corpus_config(text: Path | None) -> CorpusStageRunConfig:
    return CorpusStageRunConfig.model_validate(
        {
            "corpus": {"num_examples": 200, "text": text},
            "tasks": [{"name": "running_state", "levels": [2], "thinking": 0.25}],
        }
    )


def test_the_recipes_data_is_text_and_examples_and_leaves_the_users_folder_alone(
    text: Path, tmp_path: Path
) -> None:
    before = {file: file.read_bytes() for file in text.rglob("*") if file.is_file()}
    root = tmp_path / "out"
    found = make_corpus(corpus_config(text), root)
    manifest = load_manifest(root)
    assert set(manifest.sources) == {"sea", "tasks"} and manifest.is_whole("sea")
    assert found.text_bytes == load_manifest(text).sources["sea"].bytes > 0
    assert found.count == manifest.sources["tasks"].documents
    assert found.thinking / found.count == pytest.approx(0.25, abs=0.08)
    assert make_corpus(corpus_config(text), root) == found == count_examples(root)
    assert {file: file.read_bytes() for file in text.rglob("*") if file.is_file()} == before


def test_text_that_is_cut_is_refused(text: Path, tmp_path: Path) -> None:
    path = load_manifest(text).corpus_path("sea")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"sea\.jsonl: missing or cut"):
        make_corpus(corpus_config(text), tmp_path / "out")


def test_the_time_left_follows_the_speed_of_this_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stages = load_recipe("tiny").stages
    expected = [stage.head.expected_seconds or 0.0 for stage in stages]
    progress = RecipeProgress(stages)
    progress.begin(1)
    assert f"[1/12] corpus (corpus): 0s so far, about {format_seconds(sum(expected))} left" in said(
        capsys
    )
    progress.end(1, 2 * expected[0], {"examples": 10, "thinking": 3, "text_bytes": 0})
    progress.begin(2)
    text = said(capsys)
    assert "10 worked examples, 30% of them think" in text
    assert f"about {format_seconds(2 * sum(expected[1:]))} left" in text


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err
