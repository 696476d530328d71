"""The recipes that ship: read, and able to draw what their last stages ask hours later."""

from pathlib import Path
from typing import Any

import pytest

from rorqual.config.recipe import load_recipe
from rorqual.eval.problems import held_out_problems

RECIPES = sorted(path.stem for path in Path("configs/speedrun").glob("*.toml"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_evaluation_has_enough_held_out_problems(name: str) -> None:
    evaluations = [stage for stage in load_recipe(name).stages if stage.head.kind == "eval"]
    assert evaluations, "a recipe that never says what came of it"
    config: Any
    for config in {stage.config for stage in evaluations}:
        asked = config.eval.num_problems
        assert len(held_out_problems(config.tasks, asked, config.eval.seed)) == asked
