"""Files with any sections: tables, arrays of tables, overrides of both, one-line errors."""

import json
from pathlib import Path

import pytest

from rorqual.config.run import RunConfig, load_run_config
from rorqual.config.sections import config_from, load_config
from rorqual.config.sft import CorpusRunConfig, SFTRunConfig
from rorqual.errors import ConfigError

FILE = """
[sft]
model = "runs/base"
num_examples = 100
[[tasks]]
name = "running_state"
[[tasks]]
name = "running_state"
levels = [2, 3]
weight = 0.5
[train]
learning_rate = 1e-3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "fine.toml"
    path.write_text(FILE)
    return str(path)


def test_tables_and_arrays_of_tables_load(file: str) -> None:
    config = load_config(SFTRunConfig, file)
    assert config.sft.model == Path("runs/base") and config.train.learning_rate == 1e-3
    assert [(share.levels, share.weight) for share in config.tasks] == [((1,), 1.0), ((2, 3), 0.5)]


def test_overrides_reach_both(file: str) -> None:
    overrides = ("sft.epochs=3", "tasks.1.levels=[4]", "tasks.0.weight=2", "train.optimizer=muon")
    config = load_config(SFTRunConfig, file, overrides)
    assert config.sft.epochs == 3 and config.train.optimizer == "muon"
    assert [(share.levels, share.weight) for share in config.tasks] == [((1,), 2.0), ((4,), 0.5)]


def test_a_section_may_be_left_out_where_it_has_defaults(tmp_path: Path) -> None:
    path = tmp_path / "corpus.toml"
    path.write_text('[[tasks]]\nname = "running_state"\n')
    config = load_config(CorpusRunConfig, str(path), ("corpus.num_examples=7",))
    assert config.corpus.num_examples == 7 and config.corpus.name == "tasks"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sft.epoch=1", "unknown key sft.epoch; did you mean sft.epochs?"),
        ("sfd.epochs=1", "did you mean sft?"),
        ("tasks.1.level=[1]", "unknown key tasks.1.level; did you mean tasks.1.levels?"),
        ("tasks.2.weight=1", "INDEX below 2"),
        ("tasks.weight=1", "tasks.INDEX.key=value"),
        ("tasks.0=1", "tasks.INDEX.key=value"),
        ("tasks.0.thinking=2", "tasks.0.thinking"),
        ("train.token_budget=5", "unknown key train.token_budget"),
        ("sft.num_examples=0", "num_examples=0 with 2 [[tasks]]"),
    ],
)
def test_bad_overrides_are_named(file: str, override: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(SFTRunConfig, file, (override,))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[tasks]]\nname = "x"', "there is no [sft]; add it"),
        ('[sft]\nmodel = "x"\n[tasks]\nname = "y"', "write [[tasks]] first"),
        ('[[sft]]\nmodel = "x"', "write [sft] first"),
        ("sft = 3", "write [sft] first"),
        ('[sft]\nmodel = "x"\n[[tasks]]\nnam = "y"', "did you mean tasks.0.name?"),
        ('[sft]\nmodel = "x"', "nothing to train on"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(SFTRunConfig, str(path))
    assert words in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_value_where_a_table_belongs_cannot_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("sft = 3")
    with pytest.raises(ConfigError, match=r"write \[sft\] first"):
        load_config(SFTRunConfig, str(path), ("sft.epochs=2",))


def test_the_config_of_a_run_folder_loads_as_the_run_was(tmp_path: Path) -> None:
    config = load_run_config("tiny")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"about": {"version": "1"}, **config.model_dump(mode="json")}))
    assert load_config(RunConfig, str(path)) == config
    with pytest.raises(ConfigError, match="unknown key model"):
        config_from(SFTRunConfig, config.model_dump(mode="json"), "a pretraining run")


def test_the_learning_rate_falls_to_the_end() -> None:
    train = SFTRunConfig.model_validate(
        {
            "sft": {"model": "x", "files": ["y"]},
            "train": {"warmup_fraction": 0.1, "mtp_weight": 0.2},
        }
    ).train.train_config(1000)
    assert train.token_budget == 1000 and train.document_mask
    assert (train.decay_start_fraction, train.decay_end_fraction) == (0.1, 1.0)
    assert train.mtp_weight == train.mtp_weight_late == 0.2


def test_none_is_a_word_where_the_field_lists_it_and_off_elsewhere() -> None:
    config = load_config(
        RunConfig, "tiny", ("train.balancing=none", "train.sequences_per_step_start=none")
    )
    assert config.train.balancing == "none"
    assert config.train.sequences_per_step_start is None


def test_a_planner_preset_is_not_a_run_and_the_error_says_so() -> None:
    with pytest.raises(ConfigError, match="for `rorqual plan`"):
        load_config(RunConfig, "v3")
