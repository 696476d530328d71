"""A corpus on disk: `corpus/<source>.jsonl`, one document a line.

Each line is {"id", "text", "language", "held_out"}, with "kind" if it is a chat. Texts are
normalised, deduplicated and split into train and held-out here, once, so that every later stage
sees the same documents.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rorqual.data.dedupe import Deduplicator
from rorqual.data.documents import Document, Language, is_held_out, name_hash, normalise
from rorqual.errors import DataError


@dataclass(frozen=True, slots=True)
class CorpusStats:
    """What a corpus file holds; byte counts are of the texts, `file_bytes` of the file."""

    documents: int
    bytes: int
    held_out_documents: int
    held_out_bytes: int
    duplicates: int
    near_duplicates: int
    file_bytes: int
    sha256: str


def prepare_documents(
    texts: Iterable[tuple[str, str]],
    *,
    source: str,
    language: Language,
    held_out: str | None = None,
    cap_bytes: int | None = None,
) -> list[Document]:
    """(name, text) pairs as normalised documents of a source, split and cut to `cap_bytes`."""
    documents: list[Document] = []
    for name, text in _capped(list(texts), source, cap_bytes):
        clean = normalise(text)
        if clean and not clean.isspace():
            document_id = f"{source}/{name}"
            out = is_held_out(document_id, held_out)
            documents.append(Document(document_id, clean, language, out))
    return documents if held_out is not None else _with_some_held_out(documents)


def _capped(
    texts: list[tuple[str, str]], source: str, cap_bytes: int | None
) -> list[tuple[str, str]]:
    """As many texts as fit into `cap_bytes`, taken by the hash of their names, in order."""
    if cap_bytes is None:
        return texts
    order = sorted(range(len(texts)), key=lambda i: name_hash(f"{source}/{texts[i][0]}", "cap"))
    kept: list[int] = []
    total = 0
    for index in order:
        total += len(texts[index][1].encode())
        if total > cap_bytes:
            break
        kept.append(index)
    return [texts[index] for index in sorted(kept)]


def _with_some_held_out(documents: list[Document]) -> list[Document]:
    """A source of few documents may have none held out by chance: then one small one is."""
    if not documents or any(document.held_out for document in documents):
        return documents
    limit = sum(len(document.text) for document in documents) // 4
    small = [index for index, document in enumerate(documents) if len(document.text) <= limit]
    if small:
        chosen = min(small, key=lambda i: name_hash(documents[i].id, "held-out"))
        documents[chosen] = replace(documents[chosen], held_out=True)
    return documents


def write_corpus(path: Path, documents: list[Document]) -> CorpusStats:
    """Writes a corpus file without duplicates, atomically."""
    deduplicator = Deduplicator()
    # Held-out documents first, so that a training copy of one is what goes.
    first = sorted(range(len(documents)), key=lambda index: not documents[index].held_out)
    new = sorted(index for index in first if is_first(documents[index], deduplicator))
    kept = [documents[index] for index in new]

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    digest = hashlib.sha256()
    with partial.open("wb") as file:
        for document in kept:
            line = _line(document)
            digest.update(line)
            file.write(line)
        file_bytes = file.tell()
    partial.replace(path)

    sizes = [len(document.words.encode()) for document in kept]
    out = [size for size, document in zip(sizes, kept, strict=True) if document.held_out]
    return CorpusStats(
        documents=len(kept),
        bytes=sum(sizes),
        held_out_documents=len(out),
        held_out_bytes=sum(out),
        duplicates=deduplicator.exact,
        near_duplicates=deduplicator.near,
        file_bytes=file_bytes,
        sha256=digest.hexdigest(),
    )


def is_first(document: Document, deduplicator: Deduplicator) -> bool:
    """Whether a document repeats none before it: a text nearly, a chat to the letter."""
    if document.kind == "chat":
        return deduplicator.is_new_exactly(document.text)
    return deduplicator.is_new(document.text)


def _line(document: Document) -> bytes:
    fields = asdict(document)
    if document.kind == "text":  # as before there were chats
        del fields["kind"]
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def read_corpus(path: Path) -> Iterator[Document]:
    """The documents of a corpus file, in order."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield Document(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise DataError(
                        f"{path}:{number}: not a document ({error}); delete the file and run "
                        "`rorqual data fetch` (or `rorqual data add`) again"
                    ) from error
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: listed in the manifest but not there; run `rorqual data fetch` (or "
            "`rorqual data add`) again"
        ) from error
