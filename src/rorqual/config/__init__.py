"""What a run is: pydantic models read from TOML files and published config.json files."""

from rorqual.config.dense import (
    DenseConfig,
    DenseYarnConfig,
    Llama3RopeConfig,
    any_config_from_hf,
    dense_config_from_hf,
    dense_config_to_hf,
    read_any_config,
)
from rorqual.config.model import (
    ModelConfig,
    YarnConfig,
    model_config_from_hf,
    model_config_to_hf,
    read_model_config,
    yarn_mscale,
)
from rorqual.config.presets import find_preset, list_presets
from rorqual.config.train import TrainConfig

__all__ = [
    "DenseConfig",
    "DenseYarnConfig",
    "Llama3RopeConfig",
    "ModelConfig",
    "TrainConfig",
    "YarnConfig",
    "any_config_from_hf",
    "dense_config_from_hf",
    "dense_config_to_hf",
    "find_preset",
    "list_presets",
    "model_config_from_hf",
    "model_config_to_hf",
    "read_any_config",
    "read_model_config",
    "yarn_mscale",
]
