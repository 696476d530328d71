"""`rorqual data add`: text that the user has. Plain files, JSONL, Parquet, Hugging Face datasets.

A file that is not one of the structured kinds is one document; a row with a `text` field is one.
Everything is checked as it enters: bytes that are not UTF-8 are an error that names the place.
"""

import importlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rorqual.data.corpus import prepare_documents, write_corpus
from rorqual.data.documents import Document, Language
from rorqual.data.manifest import Entry, exclusive, load_manifest
from rorqual.errors import ConfigError, DataError
from rorqual.tokenizer import decode_utf8
from rorqual.tokenizer.text import surrogate_position

_TEXT_FIELD = "text"
_JSONL_SUFFIXES = frozenset({".jsonl", ".ndjson"})
_PLAIN_SUFFIXES = frozenset({".txt", ".md", ".rst", ".py", ".html", ".tex", ".text", ""})
_DATASET_DICT = "dataset_dict.json"
_DATASET_STATE = "state.json"


def add_files(
    root: Path, paths: Iterable[Path], *, name: str, language: Language, licence: str
) -> Entry:
    """Makes one source of the given files and folders; a source of that name is replaced."""
    check_name(root, name)
    given = list(paths)
    documents = prepare_documents(
        (pair for path in given for pair in read_path(path)), source=name, language=language
    )
    if not documents:
        listed = ", ".join(str(path) for path in given)
        raise DataError(f"{listed}: no text found in it; expected documents, nothing was added")
    package = ", ".join(path.name for path in given)
    return record_source(root, name, package, language, licence, documents)


def check_name(root: Path, name: str) -> None:
    """ConfigError unless a source of the user's own may be called so."""
    if not name or not all(character.isalnum() or character in "-_." for character in name):
        raise ConfigError(f"name={name!r}: use letters, digits, hyphens and underscores")
    known = load_manifest(root).sources.get(name)
    if known is not None and known.registry != "local":
        raise ConfigError(
            f"name={name!r} is that of a source fetched from {known.registry}; choose another"
        )


def record_source(
    root: Path,
    name: str,
    package: str,
    language: str,
    licence: str,
    documents: list[Document],
) -> Entry:
    """Writes documents as a source of the user's own; one of that name is replaced."""
    with exclusive(root):
        return _record(root, name, package, language, licence, documents)


def _record(
    root: Path, name: str, package: str, language: str, licence: str, documents: list[Document]
) -> Entry:
    manifest = load_manifest(root)
    stats = write_corpus(manifest.corpus_path(name), documents)
    entry = Entry(
        name=name,
        language=language,
        registry="local",
        package=package,
        version="",
        sha256=None,
        licence=licence,
        attribution="",
        recipe="local",
        documents=stats.documents,
        bytes=stats.bytes,
        held_out_documents=stats.held_out_documents,
        held_out_bytes=stats.held_out_bytes,
        duplicates=stats.duplicates,
        near_duplicates=stats.near_duplicates,
        corpus_bytes=stats.file_bytes,
        corpus_sha256=stats.sha256,
    )
    manifest.record(entry)
    return entry


def read_path(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of each document in a file, folder or saved dataset."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.is_dir():
        yield from _read_file(path, path.name)
    elif any((path / mark).is_file() for mark in (_DATASET_DICT, _DATASET_STATE)):
        yield from _read_dataset(path)
    else:
        for file in sorted(item for item in path.rglob("*") if item.is_file()):
            if _kind(file) is not None:
                yield from _read_file(file, file.relative_to(path).as_posix())


def _kind(path: Path) -> str | None:
    """How a file is read; None for what a folder may hold besides text."""
    suffix = path.suffix.lower()
    if suffix in _JSONL_SUFFIXES:
        return "jsonl"
    if suffix == ".parquet":
        return "parquet"
    return "plain" if suffix in _PLAIN_SUFFIXES and not path.name.startswith(".") else None


def _read_file(path: Path, name: str) -> Iterator[tuple[str, str]]:
    kind = _kind(path)
    if kind == "jsonl":
        yield from _read_jsonl(path, name)
    elif kind == "parquet":
        yield from _read_parquet(path, name)
    else:  # a file named by the user is text, whatever its suffix
        yield name, decode_utf8(path.read_bytes(), str(path))


def _read_jsonl(path: Path, name: str) -> Iterator[tuple[str, str]]:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            place = f"{path}:{number} (line begins at offset {offset})"
            offset += len(line)
            if not line.strip():
                continue
            try:
                row = json.loads(decode_utf8(line, place))
            except json.JSONDecodeError as error:
                raise DataError(f"{place}: not JSON ({error}); repair or drop the line") from error
            yield f"{name}#{number}", _text_of(row, place)


def _read_parquet(path: Path, name: str) -> Iterator[tuple[str, str]]:
    arrow = _import_arrow(path)
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
        _require_text_column(file.schema_arrow.names, path)
        yield from _read_arrow(file.iter_batches(columns=[_TEXT_FIELD]), path, name)
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def _read_dataset(folder: Path, name: str = "") -> Iterator[tuple[str, str]]:
    """A folder written by `save_to_disk` of a Dataset or DatasetDict.

    It needs no `datasets`: the rows are Arrow streams, which state.json lists by name.
    """
    arrow = _import_arrow(folder)
    try:
        if (folder / _DATASET_DICT).is_file():
            for split in json.loads((folder / _DATASET_DICT).read_text("utf-8"))["splits"]:
                yield from _read_dataset(folder / split, f"{split}/")
            return
        state = json.loads((folder / _DATASET_STATE).read_text("utf-8"))
        for entry in state["_data_files"]:
            path = folder / entry["filename"]
            with arrow.OSFile(os.fspath(path)) as file, arrow.ipc.open_stream(file) as rows:
                _require_text_column(rows.schema.names, path)
                yield from _read_arrow(rows, path, f"{name}{entry['filename']}")
    except (arrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder}: not a whole dataset as save_to_disk writes it ({error}); save it again, "
            "or export it to Parquet"
        ) from error


def _read_arrow(batches: Iterable[Any], path: Path, name: str) -> Iterator[tuple[str, str]]:
    number = 0
    for batch in batches:
        for text in batch.column(_TEXT_FIELD).to_pylist():
            number += 1
            yield f"{name}#{number}", _text_of({_TEXT_FIELD: text}, f"{path} row {number}")


def _require_text_column(names: list[str], path: Path) -> None:
    if _TEXT_FIELD not in names:
        raise DataError(f"{path}: no column {_TEXT_FIELD!r}, it has {', '.join(names)}; rename one")


def _import_arrow(path: Path) -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise DataError(
            f"{path}: reading Parquet and saved datasets needs pyarrow, which is not installed; "
            "run `pip install pyarrow`"
        ) from error


def _text_of(row: Any, place: str) -> str:
    text = row.get(_TEXT_FIELD) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{place}: no {_TEXT_FIELD!r} field with a string; name it {_TEXT_FIELD!r}")
    position = surrogate_position(text)
    if position is not None:
        raise DataError(
            f"{place}: half a surrogate pair at character {position}, which UTF-8 cannot hold; "
            "repair or drop it"
        )
    return text
