"""Which safetensors file of a model directory holds which tensor.

One `model.safetensors`, or shards named in `model.safetensors.index.json`. Pickle checkpoints are
refused: unpickling runs whatever code the file carries.
"""

import json
from pathlib import Path
from typing import Any

from rorqual.checkpoint.safetensors_file import SafetensorsFile
from rorqual.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def open_files(path: Path) -> dict[str, SafetensorsFile]:
    """The file of every tensor of a model directory, or of a single .safetensors file."""
    if path.suffix in PICKLE_SUFFIXES:
        raise _refused_pickle(path)
    if path.suffix == ".safetensors" and path.is_file():
        return _by_name([SafetensorsFile(path)])
    if not path.is_dir():
        raise CheckpointError(
            f"{path}: no such model directory; give a directory with config.json and safetensors"
        )
    if (path / SINGLE_FILE).is_file():
        return _by_name([SafetensorsFile(path / SINGLE_FILE)])
    if (path / INDEX_FILE).is_file():
        return _from_index(path)
    pickles = sorted(file for file in path.iterdir() if file.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise _refused_pickle(pickles[0])
    raise CheckpointError(
        f"{path}: holds neither {SINGLE_FILE} nor {INDEX_FILE}; is this a model directory, and "
        "was it fetched in full?"
    )


def _by_name(files: list[SafetensorsFile]) -> dict[str, SafetensorsFile]:
    return {name: file for file in files for name in file.entries}


def _from_index(directory: Path) -> dict[str, SafetensorsFile]:
    """Open every shard that the index names and check that index and shards agree."""
    index = directory / INDEX_FILE
    weight_map = _read_weight_map(index)
    shards: dict[str, SafetensorsFile] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise CheckpointError(
                f"{index}: shard {shard!r} is a path, expected a file name; fetch the index again"
            )
        if not (directory / shard).is_file():
            raise CheckpointError(
                f"{index}: names shard {shard}, which is not in {directory}; fetch that file"
            )
        shards[shard] = SafetensorsFile(directory / shard)
    for name, shard in weight_map.items():
        if name not in shards[shard].entries:
            raise CheckpointError(
                f"{directory / shard}: lacks tensor {name}, which {INDEX_FILE} places there; "
                "fetch both files again"
            )
    for shard, file in shards.items():
        for name in file.entries:
            if weight_map.get(name) != shard:
                raise CheckpointError(
                    f"{file.path}: holds tensor {name}, which {INDEX_FILE} does not place there; "
                    "fetch both files again"
                )
    return {name: shards[shard] for name, shard in weight_map.items()}


def _read_weight_map(index: Path) -> dict[str, str]:
    try:
        raw: Any = json.loads(index.read_text(encoding="utf-8"))
        weight_map: Any = raw["weight_map"]
        return {str(name): str(shard) for name, shard in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index}: not a safetensors index ({error!r}), expected JSON with weight_map; fetch "
            "it again"
        ) from error


def _refused_pickle(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: a pickle checkpoint is refused, since opening one runs any code inside it; only "
        "safetensors is read. If you trust it, convert it with transformers: "
        "AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)"
    )
