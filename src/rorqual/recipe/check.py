"""What can be found out about a recipe before its first stage costs an hour.

The configurations themselves are checked as they are read; this looks at what they name: tasks
and levels, reward functions, text, and whether rows fit the models they are meant for.
"""

from typing import Any

from rorqual.checkpoint import model_directory
from rorqual.config import ModelConfig, read_model_config
from rorqual.config.recipe import Pipeline, Stage
from rorqual.errors import ConfigError, RorqualError
from rorqual.recipe.corpus import check_text
from rorqual.rl.rewards import Rewards
from rorqual.tasks import check_level, load_task


def check_pipeline(pipeline: Pipeline) -> None:
    """An error that names the stage, if one is bound to fail."""
    shapes: dict[str, ModelConfig | None] = {}
    for stage in pipeline.stages:
        try:
            _check(stage)
            shapes[f"@{stage.name}"] = shape = _shape(stage, shapes)
            _check_lengths(stage, shape)
        except RorqualError as error:
            raise type(error)(f"{pipeline.source}: stage {stage.name}: {error}") from error


def _check(stage: Stage) -> None:
    config: Any = stage.config
    for share in getattr(config, "tasks", ()):
        task = load_task(share.name)
        for level in share.levels:
            check_level(task, level)
    if stage.head.kind == "rl":
        Rewards(config.rl, {}).close()
    if stage.head.kind == "corpus" and config.corpus.text is not None:
        check_text(config.corpus.text)


def _shape(stage: Stage, shapes: dict[str, ModelConfig | None]) -> ModelConfig | None:
    """The shape of the model that a stage trains; None if it trains none."""
    config: Any = stage.config
    kind = stage.head.kind
    if kind == "pretrain" or (kind == "distill" and config.model is not None):
        return config.model
    start = {"rl": "rl", "sft": "sft", "distill": "distill"}.get(kind)
    if start is None:
        return None
    section = getattr(config, start)
    path = section.student if kind == "distill" else section.model
    known = shapes.get(str(path))
    return known if known is not None else read_model_config(model_directory(path))


def _check_lengths(stage: Stage, shape: ModelConfig | None) -> None:
    """Rows of text, and completions behind a prompt, must fit the position table."""
    if shape is None:
        return
    config: Any = stage.config
    kind, limit = stage.head.kind, shape.max_position_embeddings
    if kind in ("rl", "distill"):
        tokens = getattr(config, kind).max_completion_length
        shape.check_completion_length(f"{kind}.max_completion_length", tokens)
    elif config.train.sequence_length > limit:
        raise ConfigError(
            f"train.sequence_length={config.train.sequence_length} exceeds the model's "
            f"max_position_embeddings={limit}; lower it"
        )
