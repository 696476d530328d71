"""What a run is: pydantic models read from TOML files and published config.json files."""

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
    "ModelConfig",
    "TrainConfig",
    "YarnConfig",
    "find_preset",
    "list_presets",
    "model_config_from_hf",
    "model_config_to_hf",
    "read_model_config",
    "yarn_mscale",
]
