"""Presets and overrides."""

from pathlib import Path

import pytest

from rorqual.config import find_preset, list_presets
from rorqual.config.plan import read_plan
from rorqual.config.run import load_run_config
from rorqual.errors import ConfigError

TRAINABLE = ("laptop", "tiny")


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_loads(name: str) -> None:
    model, _ = read_plan(find_preset(name), ())
    assert model.hidden_size > 0
    if name in TRAINABLE:
        assert load_run_config(name).model == model


def test_presets_are_the_expected_ones() -> None:
    assert set(list_presets()) == {"tiny", "laptop", "v2", "v2-lite", "v3"}


def test_overrides_are_toml_values_or_words() -> None:
    config = load_run_config(
        "tiny", ("train.learning_rate=1e-4", "train.optimizer=muon", "data.root=/x/y")
    )
    assert config.train.learning_rate == 1e-4
    assert config.train.optimizer == "muon"
    assert config.data.root == Path("/x/y")
    timed = load_run_config("tiny", ("train.token_budget=none", "train.time_budget_seconds=5"))
    assert timed.train.token_budget is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lerning_rate=1", "did you mean train.learning_rate?"),
        ("trian.learning_rate=1", "did you mean train?"),
        ("learning_rate=1", "expected section.key=value"),
        ("train.learning_rate=fast", "train.learning_rate"),
        ("train.time_budget_seconds=5", "exactly one of"),
        ("train.sequence_length=100000", "max_position_embeddings=256"),
        ("train.decay_start_fraction=0.99", "decay_end_fraction"),
        ("train.sequences_per_step_start=99", "the ramp only grows"),
    ],
)
def test_bad_overrides_are_named(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_run_config("tiny", (override,))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_broken_toml_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text("[model\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_run_config(str(file))
