"""Configuration files: TOML sections checked against a pydantic model, then overridden.

A configuration is a model whose fields are sections: tables (`[train]`) or arrays of tables
(`[[tasks]]`). An override is `section.key=value`, or `section.0.key=value` for the first table of
an array; its value is TOML, or a bare word taken as a string. A key that nobody knows is an error
that names the nearest known one.
"""

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

from rorqual.config.model import first_error
from rorqual.config.presets import find_preset
from rorqual.errors import ConfigError

ABOUT = "about"  # what a run folder's config.json holds beside the sections
_Config = TypeVar("_Config", bound=BaseModel)


def load_config(kind: type[_Config], name_or_path: str, overrides: tuple[str, ...] = ()) -> _Config:
    """Read a preset by name or a TOML (or a run's config.json) by path, then apply overrides."""
    path = find_preset(name_or_path)
    raw = read_config_file(path)
    if "plan" in raw and "plan" not in kind.model_fields:
        raise ConfigError(
            f"{path}: a published shape, for `rorqual plan`; to run something, start from another "
            "preset, such as laptop"
        )
    for override in overrides:
        apply_override(kind, raw, override)
    return config_from(kind, raw, str(path))


def config_from(kind: type[_Config], raw: dict[str, Any], source: str) -> _Config:
    """Validate a nested dictionary; `source` names it in errors."""
    for section, values in raw.items():
        if section not in kind.model_fields:
            raise ConfigError(f"{source}: {_unknown(section, list(kind.model_fields))}")
        known = list(_table_of(kind, section).model_fields)
        for place, table in _tables(kind, section, values, source):
            for key in table:
                if key not in known:
                    raise ConfigError(f"{source}: {_unknown(f'{place}.{key}', known, place)}")
    for section, field in kind.model_fields.items():
        if field.is_required() and section not in raw:
            raise ConfigError(f"{source}: there is no {_heading(kind, section)}; add it")
    try:
        return kind(**raw)
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_error(error)}") from error


def read_config_file(path: Path) -> dict[str, Any]:
    """A TOML file, or the config.json of a run's folder."""
    try:
        text = path.read_text(encoding="utf-8")
        raw: dict[str, Any] = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid {path.suffix[1:].upper()} ({error})") from error
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); expected a TOML file"
        ) from error
    if path.suffix == ".json":
        raw.pop(ABOUT, None)
    return raw


def _is_array(kind: type[BaseModel], section: str) -> bool:
    return get_origin(kind.model_fields[section].annotation) in (tuple, list)


def _table_of(kind: type[BaseModel], section: str) -> type[BaseModel]:
    """The model of a section's table, or of each table of an array."""
    annotation = kind.model_fields[section].annotation
    parts = get_args(annotation)
    table = parts[0] if parts else annotation
    assert isinstance(table, type) and issubclass(table, BaseModel), f"{section} is no section"
    return table


def _heading(kind: type[BaseModel], section: str) -> str:
    return f"[[{section}]]" if _is_array(kind, section) else f"[{section}]"


def _tables(
    kind: type[BaseModel], section: str, values: object, source: str
) -> list[tuple[str, dict[str, Any]]]:
    """The tables of a section, each with the name it has in an override."""
    heading = _heading(kind, section)
    listed = cast("list[object]", values) if isinstance(values, list) else [values]
    if isinstance(values, list) != _is_array(kind, section) or not all(
        isinstance(table, dict) for table in listed
    ):
        raise ConfigError(f"{source}: {section} is not written as {heading}; write {heading} first")
    tables = cast("list[dict[str, Any]]", listed)
    if not isinstance(values, list):
        return [(section, tables[0])]
    return [(f"{section}.{index}", table) for index, table in enumerate(tables)]


def _unknown(key: str, known: list[str], section: str = "") -> str:
    last = key.rsplit(".", 1)[-1]
    nearest = difflib.get_close_matches(last, known, n=1)
    prefix = f"{section}." if section else ""
    hint = f"did you mean {prefix}{nearest[0]}?" if nearest else f"known: {', '.join(known)}"
    return f"unknown key {key}; {hint}"


def apply_override(kind: type[BaseModel], raw: dict[str, Any], override: str) -> None:
    """Set `section.key=value` in place."""
    path, separator, text = override.partition("=")
    section, dot, key = path.strip().partition(".")
    if not separator or not dot or not key:
        raise ConfigError(f"override {override!r}: expected section.key=value")
    if section not in kind.model_fields:
        raise ConfigError(f"override {override!r}: {_unknown(section, list(kind.model_fields))}")
    try:
        value: Any = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    is_array = _is_array(kind, section)
    values = raw.setdefault(section, [] if is_array else {})
    tables = [table for _, table in _tables(kind, section, values, f"override {override!r}")]
    if is_array:
        table, key = _element(tables, section, key, override)
    else:
        table = tables[0]
    off = value == "none" and not _is_a_word(_table_of(kind, section), key, "none")
    table[key] = None if off else value


def _is_a_word(table: type[BaseModel], key: str, word: str) -> bool:
    """Whether a field's Literal lists the word, so that it does not mean None."""
    field = table.model_fields.get(key)
    open_types = [] if field is None else [field.annotation]
    while open_types:
        parts = get_args(open_types.pop())
        if word in parts:
            return True
        open_types += [part for part in parts if get_args(part)]
    return False


def _element(
    tables: list[dict[str, Any]], section: str, key: str, override: str
) -> tuple[dict[str, Any], str]:
    """The table of an array that `INDEX.key` means, and the key in it."""
    index, _, rest = key.partition(".")
    if not index.isdecimal() or int(index) >= len(tables) or not rest:
        raise ConfigError(
            f"override {override!r}: expected {section}.INDEX.key=value with INDEX below "
            f"{len(tables)}, the number of [[{section}]] tables"
        )
    return tables[int(index)], rest
