"""The weights of any model that the engine serves, by published name, in float32 (no torch).

A model directory (safetensors in bf16, fp16, fp32 or FP8) or a .gguf file looks the same from here:
published Hugging Face names, shapes and row order. Names and shapes are checked against the config
on opening; values are read, dequantised and put in order one tensor at a time.
"""

import json
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rorqual.checkpoint.atomic import resolve_directory
from rorqual.checkpoint.dense_names import dense_placements
from rorqual.checkpoint.gguf_config import config_from_gguf
from rorqual.checkpoint.gguf_names import (
    ROPE_FACTORS,
    GgufTensor,
    gguf_tensors,
    has_whole_kv_b,
    join_kv_b,
    rotate_halves,
)
from rorqual.checkpoint.gguf_shards import GgufReader
from rorqual.checkpoint.hf import (
    Placement,
    match_placements,
    mtp_prefixes,
    placements,
    required_placements,
)
from rorqual.checkpoint.mapped import FileIdentity
from rorqual.checkpoint.reading import CheckpointReader
from rorqual.config import DenseConfig, ModelConfig, read_any_config
from rorqual.errors import CheckpointError
from rorqual.tokenizer import Tokenizer
from rorqual.tokenizer.gguf import tokenizer_from_gguf

GGUF_SUFFIX = ".gguf"
_COMPUTED = (".rotary_emb.inv_freq",)  # buffers that old files carry and nobody reads


class Weights(ABC):
    """Published tensors of one model. `names` lists what is stored, copies of others left out."""

    path: Path
    config: ModelConfig | DenseConfig

    @abstractmethod
    def names(self) -> list[str]:
        """Every tensor of the network, in its order; a tied head is not listed."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, published orientation: [out, in]."""

    @abstractmethod
    def read(self, name: str) -> NDArray[np.float32]:
        """The tensor in float32, perhaps read-only; a tied head or MTP copy reads its original."""

    @abstractmethod
    def identity(self) -> list[FileIdentity]:
        """Of the files that hold the tensors; with `config`, it determines them."""

    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that belongs to the weights."""

    @property
    @abstractmethod
    def stored_bytes(self) -> int:
        """Bytes that the tensors take on disk."""

    def generation(self) -> dict[str, Any]:
        """What generation_config.json recommends (temperature, top_p, ...); {} without one."""
        return {}


def open_weights(path: Path) -> Weights:
    """The weights of a model directory or a .gguf file; CheckpointError names what is wrong."""
    path = Path(path)
    if path.suffix == GGUF_SUFFIX:
        return GgufWeights(path)
    directory = resolve_directory(path)
    if directory.is_dir() and not (directory / "config.json").exists():
        found = sorted(directory.glob(f"*{GGUF_SUFFIX}"))
        if found:
            raise CheckpointError(
                f"{path}: a directory of GGUF files without config.json; give one of them, such as "
                f"{found[0]}"
            )
    return HfWeights(directory)


class HfWeights(Weights):
    """A Hugging Face model directory."""

    def __init__(self, path: Path):
        self.path = path
        config = read_any_config(path)
        self._reader = _WithoutBuffers(path)
        found = self._reader.names()
        if isinstance(config, DenseConfig):
            match_placements(dense_placements(config), self._reader, config.model_type)
            table = dense_placements(config)
        else:
            # Many published copies leave the MTP modules out and keep the field that counts them.
            prefixes = mtp_prefixes(config)
            with_mtp = bool(prefixes) and any(name.startswith(prefixes) for name in found)
            required_placements(config, self._reader, with_mtp=with_mtp)
            if not with_mtp:
                config = config.model_copy(update={"num_nextn_predict_layers": 0})
            table = placements(config)
        self.config = config
        self._table: dict[str, Placement] = {place.name: place for place in table}

    def names(self) -> list[str]:
        return [name for name, place in self._table.items() if not place.copy]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._place(name).shape

    def read(self, name: str) -> NDArray[np.float32]:
        place = self._place(name)
        return self._reader.read(place.parameter if place.copy else name)

    def identity(self) -> list[FileIdentity]:
        return self._reader.identity()

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.path)

    @property
    def stored_bytes(self) -> int:
        return sum(self._reader.read_raw(name).nbytes for name in self._reader.names())

    def generation(self) -> dict[str, Any]:
        file = self.path / "generation_config.json"
        if not file.is_file():
            return {}
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{file}: not a JSON object ({error}); fetch it again") from error

    def _place(self, name: str) -> Placement:
        if name not in self._table:
            raise _unknown(self.path, name)
        return self._table[name]


class _WithoutBuffers(CheckpointReader):
    """A reader that does not list computed buffers."""

    def names(self) -> list[str]:
        return [name for name in super().names() if not name.endswith(_COMPUTED)]


class GgufWeights(Weights):
    """A GGUF file, or the first of its shards."""

    def __init__(self, path: Path):
        self.path = path
        self._reader = GgufReader(path)
        entries = self._reader.entries
        factors = self._reader.read(ROPE_FACTORS) if ROPE_FACTORS in entries else None
        self.config = config_from_gguf(self._reader.metadata, entries.keys(), factors, str(path))
        whole = has_whole_kv_b(entries.keys())
        table = gguf_tensors(self.config, split_kv_b=not whole)
        self._check(table)
        # Which GGUF tensors make a published one, and its number among their sources.
        self._origin: dict[str, list[tuple[GgufTensor, int]]] = {}
        for tensor in table:
            for index, source in enumerate(tensor.sources):
                self._origin.setdefault(source, []).append((tensor, index))

    def names(self) -> list[str]:
        return list(self._origin)

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.config
        dense = isinstance(config, DenseConfig)
        table = dense_placements(config) if dense else placements(config)
        return {place.name: place.shape for place in table}

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise _unknown(self.path, name)
        return self._shapes[name]

    def read(self, name: str) -> NDArray[np.float32]:
        if name == "lm_head.weight" and self.config.tie_word_embeddings:
            name = "model.embed_tokens.weight"
        if name not in self._origin:
            raise _unknown(self.path, name)
        origin = self._origin[name]
        tensor, index = origin[0]
        if tensor.layout == "experts":
            return self._reader.read(tensor.name, index)
        values = self._reader.read(tensor.name)
        if tensor.layout == "rotary":
            return rotate_halves(values, tensor.heads)
        if tensor.layout == "key_b":
            return join_kv_b(values, self._reader.read(origin[1][0].name))
        return values

    def identity(self) -> list[FileIdentity]:
        return self._reader.identity()

    def tokenizer(self) -> Tokenizer:
        return tokenizer_from_gguf(self._reader.metadata, str(self.path))

    @property
    def stored_bytes(self) -> int:
        return sum(entry.num_bytes for entry in self._reader.entries.values())

    def _check(self, table: list[GgufTensor]) -> None:
        """Nothing missing, every shape as the metadata make it; extras only of known kinds."""
        entries = self._reader.entries
        for tensor in table:
            entry = entries.get(tensor.name)
            if entry is None:
                raise CheckpointError(
                    f"{self.path}: tensor {tensor.name} is missing; the file is incomplete, "
                    "convert it again"
                )
            if entry.shape != tensor.shape:
                raise CheckpointError(
                    f"{self._reader.where(tensor.name)} has shape {list(entry.shape)}, the "
                    f"metadata make it {list(tensor.shape)}; convert the file again"
                )
        known = {tensor.name for tensor in table} | {ROPE_FACTORS}
        first_mtp = self.config.num_hidden_layers
        extra = sorted(
            name for name in entries if name not in known and _layer_number(name) < first_mtp
        )
        if extra:
            raise CheckpointError(
                f"{self._reader.where(extra[0])} has no place in this architecture ({len(extra)} "
                "such tensors); the model is of another kind than its metadata say"
            )


def _layer_number(name: str) -> int:
    """The layer of a GGUF tensor, -1 outside layers."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" and parts[1].isdigit() else -1


def _unknown(path: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: no tensor {name} in a model of this config; ask for one of names()"
    )
