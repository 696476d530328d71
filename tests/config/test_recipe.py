"""Recipes: stages inherit, refer to earlier ones, and are checked before anything runs."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from rorqual.config.recipe import load_recipe
from rorqual.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configs" / "speedrun").glob("*.toml"))
FILE = """
[recipe]
title = "test"
seed = 7
[[tasks]]
name = "running_state"
[[stages]]
kind = "corpus"
name = "examples"
corpus = { num_examples = 10 }
[[stages]]
kind = "rl"
name = "zero"
rl = { model = "models/base", seed = 3 }
[[stages]]
kind = "rejection"
name = "traces"
rejection = { model = "@zero" }
[[stages]]
kind = "sft"
name = "cold"
sft = { model = "@zero", files = ["@traces"] }
[[stages]]
kind = "eval"
name = "scores"
eval = { models = ["@zero", "@cold"] }
[[stages.tasks]]
name = "chain_sum"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    return path


def config(file: Path, stage: str, *overrides: str) -> Any:
    found = {item.name: item.config for item in load_recipe(str(file), overrides).stages}
    return found[stage]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_by_name_and_says_how_long_it_takes(path: Path) -> None:
    pipeline = load_recipe(path.stem)
    assert pipeline.source == path
    assert pipeline.stages[-1].head.kind == "eval"
    assert all(stage.head.expected_seconds for stage in pipeline.stages)


@pytest.mark.parametrize("name", ["tiny", "laptop"])
def test_the_speedruns_go_the_whole_way(name: str) -> None:
    pipeline = load_recipe(name)
    kinds = [stage.head.kind for stage in pipeline.stages]
    assert set(kinds) == {"corpus", "pretrain", "rl", "rejection", "sft", "distill", "eval"}
    assert kinds.count("rl") == 3


def test_seed_and_tasks_go_to_the_stages_that_name_none(file: Path) -> None:
    assert config(file, "examples").corpus.seed == 7
    assert config(file, "zero").rl.seed == 3
    assert config(file, "cold").train.seed == 7 and config(file, "cold").tasks == ()
    assert [share.name for share in config(file, "traces").tasks] == ["running_state"]
    assert [share.name for share in config(file, "scores").tasks] == ["chain_sum"]


def test_overrides_reach_the_recipe_and_each_stage(file: Path) -> None:
    assert config(file, "zero", "zero.rl.max_steps=5").rl.max_steps == 5
    assert config(file, "examples", "recipe.seed=8").corpus.seed == 8
    assert config(file, "zero", "tasks.0.levels=[2]").tasks[0].levels == (2,)
    found = config(file, "zero", "tasks.0.levels=[2]", "zero.tasks.0.weight=3").tasks[0]
    assert found.levels == (2,) and found.weight == 3
    assert config(file, "traces", "zero.tasks.0.weight=3").tasks[0].weight == 1


def test_references_become_what_the_stages_made(file: Path) -> None:
    stages = {stage.name: stage for stage in load_recipe(str(file)).stages}
    made = {"zero": Path("out/02-zero"), "traces": Path("out/03-traces/traces.jsonl")}
    cold = stages["cold"].resolved(made)
    assert cold.sft.model == made["zero"] and cold.sft.files == (made["traces"],)


def test_the_digest_follows_what_decides_the_outcome(file: Path) -> None:
    def digests(*overrides: str) -> list[str]:
        return [stage.digest for stage in load_recipe(str(file), overrides).stages]

    before, after = digests(), digests("zero.rl.max_steps=5")
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True, True, True]
    text = FILE.replace('name = "zero"', 'name = "zero"\nexpected_seconds = 9', 1)
    file.write_text(text)
    assert digests() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("zero.rl.max_step=5", "did you mean rl.max_steps?"),
        ("zero.rll.max_steps=5", "did you mean rl?"),
        ("zreo.rl.max_steps=5", "did you mean zero?"),
        ("recipe.sed=1", "did you mean recipe.seed?"),
        ("zero.rl.max_steps=0", "stage zero: rl.max_steps"),
        ("cold.sft.model=@cold", "model=@cold: cold is no earlier stage"),
        ("cold.sft.model=@traces", "traces leaves traces, expected one that leaves model: @zero"),
        ('cold.sft.files=["@zero"]', "expected one that leaves traces: @traces"),
    ],
)
def test_bad_overrides_are_named(file: Path, change: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(str(file), (change,))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('kind = "sft"', 'kind = "sftt"', "stage 4 (cold): kind='sftt'; did you mean sft?"),
        ('kind = "rl"', 'kind = "rl"\nexpected_second = 3', "did you mean expected_seconds?"),
        ('name = "cold"', 'name = "zero"', "stage name 'zero' is taken"),
        ('name = "cold"', 'name = "tasks"', "stage name 'tasks' is taken"),
        ('name = "cold"', 'name = "Cold one"', "stage 4 (Cold one)"),
        ("[recipe]", "[recipes]", "did you mean recipe?"),
        ("num_examples = 10", "number = 10", "unknown key corpus.number"),
    ],
)
def test_files_that_do_not_fit_are_named(file: Path, old: str, new: str, words: str) -> None:
    file.write_text(FILE.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        load_recipe(str(file))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_file_without_stages_is_named(file: Path) -> None:
    recipe = tomllib.loads(FILE)["recipe"]
    file.write_text(f'[recipe]\ntitle = "{recipe["title"]}"\n')
    with pytest.raises(ConfigError, match=r"there is no \[\[stages\]\]"):
        load_recipe(str(file))
