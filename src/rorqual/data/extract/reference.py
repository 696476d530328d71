"""Works of reference: encyclopedia leads, dictionaries, WordNet's glosses, API descriptions."""

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from rorqual.data.archives import Member
from rorqual.data.extract.markup import html_to_text

# Dictionary entries are a line or two; so many make one document, in the book's order.
_ENTRIES_PER_PAGE = 40


def extract_wiki(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """Article leads: {title: {"extract": text}}."""
    for _, data in members:
        for title, article in json.loads(data).items():
            yield title, f"{title}\n\n{article['extract']}"


def _pages(entries: Iterable[str], name: str, joint: str) -> Iterator[tuple[str, str]]:
    page: list[str] = []
    number = 0
    for entry in entries:
        page.append(entry)
        if len(page) == _ENTRIES_PER_PAGE:
            yield f"{name}-{number:05d}", joint.join(page)
            page, number = [], number + 1
    if page:
        yield f"{name}-{number:05d}", joint.join(page)


def extract_wordnet(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """Glosses with their words, `sneeze: exhale spasmodically; "..."`, forty to a document.

    A line of data.* is: offset, file number, type, word count (hex), then word and id pairs,
    pointers, and the gloss after a bar.
    """
    for name, data in members:
        entries: list[str] = []
        for line in data.decode("utf-8").splitlines():
            fields, bar, gloss = line.partition("|")
            if line.startswith("  ") or not bar:  # the licence that heads each file
                continue
            columns = fields.split()
            words = columns[4 : 4 + 2 * int(columns[3], 16) : 2]
            readable = (re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in words)
            entries.append(f"{', '.join(readable)}: {gloss.strip()}")
        yield from _pages(entries, name.rsplit(".", 1)[-1], "\n")


_SOURCE_MARK = re.compile(r"\s*\[(?:1913 Webster|PJC|WordNet 1\.5|Webster 1913 Suppl\.|[A-Z]+)\]")
_HEADWORD = re.compile(r"^(\S[^\\\n]*?) *\\[^\\\n]*\\", re.M)


def extract_dictionary(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """A dict server's `.dict.dz` (gzip): entries start at the margin, forty to a document."""
    for name, data in members:
        text = gzip.decompress(data).decode("utf-8", errors="ignore")
        text = _HEADWORD.sub(r"\1", _SOURCE_MARK.sub("", text))
        entries = re.split(r"\n\s*\n(?=\S)", text)
        cleaned = (re.sub(r"[{}]", "", entry).strip() for entry in entries)
        title = name.rsplit("/", 1)[-1].split(".")[0]
        yield from _pages((entry for entry in cleaned if entry), title, "\n\n")


def extract_botocore(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """The documentation strings (HTML) of AWS service models: one document a service."""
    seen: set[str] = set()
    for name, data in members:
        strings = dict.fromkeys(_documentation(json.loads(gzip.decompress(data))))
        fresh = [text for text in strings if text not in seen]
        seen.update(fresh)
        yield name.split("/")[-3], html_to_text("<br>".join(fresh))


def _documentation(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        text = node.get("documentation")
        if isinstance(text, str):
            yield text
        for value in node.values():
            yield from _documentation(value)
    elif isinstance(node, list):
        for child in node:
            yield from _documentation(child)
