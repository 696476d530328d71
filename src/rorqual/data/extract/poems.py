"""Poems and classics kept as JSON objects of a title, an author and lines of text."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from rorqual.data.archives import Member

_TITLES = ("title", "rhythmic", "chapter", "subchapter", "name", "section")
_BODIES = ("abstract", "preface", "biography", "paragraphs", "content", "para", "desc", "comment")


def extract_poems(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """One document an object that has lines of its own, however deep it lies."""
    for name, data in members:
        for index, (title, text) in enumerate(_walk(json.loads(data))):
            yield f"{name.removesuffix('.json')}#{index}-{title}", text


def _walk(node: Any) -> Iterator[tuple[str, str]]:
    """(title, text) of each object below `node` with text in it."""
    if isinstance(node, list):
        for child in node:
            yield from _walk(child)
    if not isinstance(node, dict):
        return
    lines = [line for key in _BODIES for line in _lines(node.get(key))]
    titles = [node[key] for key in _TITLES if isinstance(node.get(key), str) and node[key]]
    if lines:
        heading = list(dict.fromkeys(titles))
        if isinstance(node.get("author"), str):
            heading.append(node["author"])
        yield (titles[0] if titles else ""), "\n".join([*heading, *lines])
    for value in node.values():
        if isinstance(value, dict) or (isinstance(value, list) and not _is_text(value)):
            yield from _walk(value)


def _is_text(value: list[Any]) -> bool:
    return not value or isinstance(value[0], str)


def _lines(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, list):
        return [line.strip() for line in value if isinstance(line, str) and line.strip()]
    return []
