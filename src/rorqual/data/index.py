"""`tokens-<vocab_size>/index.json`: which shards there are, and the documents in them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rorqual.data.manifest import write_atomically
from rorqual.data.shards import REBUILD, open_shard
from rorqual.errors import DataError

INDEX_NAME = "index.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard file of a split."""

    file: str
    documents: int
    tokens: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SplitEntry:
    """A split, `train` or `validation-<language>`; `bytes` counts its text."""

    documents: int
    tokens: int
    bytes: int
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """What a folder of shards holds. `fingerprint` names the corpora and settings behind it."""

    fingerprint: str
    vocab_size: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    splits: dict[str, SplitEntry]

    def write(self, path: Path) -> None:
        """Writes the index, atomically."""
        write_atomically(path, json.dumps({"format": _FORMAT, **asdict(self)}, indent=1) + "\n")

    def split(self, name: str, path: Path) -> SplitEntry:
        """A split by name; `path` is named in the error."""
        if name not in self.splits:
            raise DataError(
                f"{path}: no split {name}, there are {', '.join(sorted(self.splits))}; add text "
                "for it (`rorqual data fetch` or `rorqual data add`) and build again"
            )
        return self.splits[name]


def load_index(path: Path) -> Index:
    """Reads index.json."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT}")
        splits = {
            name: SplitEntry(
                **{**split, "shards": tuple(ShardEntry(**shard) for shard in split["shards"])}
            )
            for name, split in content.pop("splits").items()
        }
        return Index(splits=splits, **content)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; run `rorqual data build` first") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not an index of token shards ({error}); {REBUILD}") from error


class TokenStore:
    """The documents of one split, over all its shards, by number."""

    def __init__(self, index_path: Path, split: str) -> None:
        self.index = load_index(index_path)
        entry = self.index.split(split, index_path)
        self._shards = [open_shard(index_path.parent / shard.file) for shard in entry.shards]
        for shard, listed in zip(self._shards, entry.shards, strict=True):
            if len(shard.offsets) - 1 != listed.documents:
                raise DataError(
                    f"{index_path.parent / listed.file}: {len(shard.offsets) - 1} documents, "
                    f"index.json lists {listed.documents}; {REBUILD}"
                )
        counts = [len(shard.offsets) - 1 for shard in self._shards]
        self._first = np.cumsum([0, *counts])  # [shards + 1] number of each shard's first document
        lengths = [np.diff(shard.offsets.astype(np.int64)) for shard in self._shards]
        self.lengths: np.ndarray = np.concatenate(lengths)  # [documents] int64
        if not len(self.lengths):
            raise DataError(f"{index_path}: split {split} is empty; {REBUILD}")

    def read(self, document: int, start: int, length: int) -> np.ndarray:
        """`length` tokens of a document from its token `start` on."""
        shard_number = int(np.searchsorted(self._first, document, side="right")) - 1
        shard = self._shards[shard_number]
        begin = int(shard.offsets[document - self._first[shard_number]]) + start
        return shard.tokens[begin : begin + length]
