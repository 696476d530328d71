"""Takes text out of what packages contain: one file a format, one table of names."""

from collections.abc import Callable, Iterable, Iterator

from rorqual.data.archives import Member
from rorqual.data.extract.books import extract_chapters, extract_rdata, extract_sword
from rorqual.data.extract.markup import extract_html, extract_manpages, extract_pod, extract_text
from rorqual.data.extract.poems import extract_poems
from rorqual.data.extract.python_code import extract_python
from rorqual.data.extract.reference import (
    extract_botocore,
    extract_dictionary,
    extract_wiki,
    extract_wordnet,
)

# A text with its name inside the source.
Extractor = Callable[[Iterable[Member]], Iterator[tuple[str, str]]]

EXTRACTORS: dict[str, Extractor] = {
    "botocore": extract_botocore,
    "chapters": extract_chapters,
    "dictionary": extract_dictionary,
    "html": extract_html,
    "manpages": extract_manpages,
    "pod": extract_pod,
    "poems": extract_poems,
    "python": extract_python,
    "rdata": extract_rdata,
    "sword": extract_sword,
    "text": extract_text,
    "wiki": extract_wiki,
    "wordnet": extract_wordnet,
}

__all__ = ["EXTRACTORS", "Extractor"]
