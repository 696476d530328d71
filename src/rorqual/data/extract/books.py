"""Books: SWORD modules (compressed blocks), R data files, and chapters in a JSON list."""

import json
import re
import struct
import zlib
from collections.abc import Iterable, Iterator

from rorqual.data.archives import Member
from rorqual.errors import DataError

_PARAGRAPH_TAG = re.compile(r"<(?:div|p|l|lb|title|chapter|verse|br)\b[^>]*>|</(?:title|l|p)>")
_TAG = re.compile(r"<[^>]*>")
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'"}
_ENTITY = re.compile("|".join(_ENTITIES))


def extract_sword(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """A SWORD module's blocks (a chapter or a book each), tags stripped.

    `X.?zs` holds 12-byte rows (offset, size, uncompressed size, little-endian) over the zlib
    streams in `X.?zz`.
    """
    files = {member.name: member.data for member in members}
    for name in sorted(files):
        if not name.endswith("zs"):
            continue
        data_name = name[:-1] + "z"
        if data_name not in files:
            raise DataError(f"{name}: its data file {data_name} is not in the package")
        data = files[data_name]
        for index, (offset, size, _) in enumerate(struct.iter_unpack("<III", files[name])):
            block = zlib.decompress(data[offset : offset + size])
            title = name.rsplit("/", 1)[-1].split(".")[0]
            yield f"{title}-{index:04d}", osis_to_text(block.decode("utf-8", errors="ignore"))


def osis_to_text(markup: str) -> str:
    """OSIS markup to one paragraph a line, with empty lines between them."""
    text = _TAG.sub("", _PARAGRAPH_TAG.sub("\n", markup.replace("\n", " ")))
    text = _ENTITY.sub(lambda found: _ENTITIES[found[0]], text).replace("\x00", "")
    paragraphs = (re.sub(r"\s+", " ", line).strip() for line in text.split("\n"))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


_STRSXP = 16
_CHARSXP = 9


def extract_rdata(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """The character vectors of an R lazy-load database, each a book of one line an element.

    The file repeats {4-byte big-endian length, zlib stream of one serialised object}.
    """
    for name, data in members:
        offset = 0
        while offset < len(data):
            inflate = zlib.decompressobj()
            try:
                record = inflate.decompress(data[offset + 4 :])
            except zlib.error as error:
                raise DataError(f"{name}: no R record at byte {offset} ({error})") from error
            offset = len(data) - len(inflate.unused_data)
            lines = _character_vector(record)
            if lines is not None:
                title = next((line for line in lines if line.strip()), "")
                yield re.sub(r"\W+", "-", title.strip().lower()).strip("-"), _unwrap(lines)


def _character_vector(record: bytes) -> list[str] | None:
    """The strings of a serialised STRSXP (XDR, version 2 or 3); None for any other object."""
    if record[:2] != b"X\n":
        return None
    (version,) = struct.unpack_from(">i", record, 2)
    offset = 14
    if version >= 3:  # the native encoding's name
        (length,) = struct.unpack_from(">i", record, offset)
        offset += 4 + length
    (flags,) = struct.unpack_from(">I", record, offset)
    if flags & 0xFF != _STRSXP:
        return None
    (count,) = struct.unpack_from(">i", record, offset + 4)
    offset += 8
    lines: list[str] = []
    for _ in range(count):
        flags, length = struct.unpack_from(">Ii", record, offset)
        if flags & 0xFF != _CHARSXP:
            raise DataError(f"R string {len(lines)}: type {flags & 0xFF}, expected {_CHARSXP}")
        offset += 8
        lines.append(record[offset : offset + max(length, 0)].decode("utf-8"))
        offset += max(length, 0)
    return lines


def _unwrap(lines: list[str]) -> str:
    """Paragraphs that were wrapped at a column, one a line again."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line.strip())
        elif paragraphs[-1]:
            paragraphs.append([])
    return "\n\n".join(" ".join(words) for words in paragraphs if words)


def extract_chapters(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """A book as a JSON list of chapters."""
    for _, data in members:
        for number, chapter in enumerate(json.loads(data), 1):
            lines = (line.strip() for line in chapter.split("\n"))
            yield f"chapter-{number:03d}", "\n".join(line for line in lines if line)
