"""Python source files, without tests and without tables that only look like source."""

import re
from collections.abc import Iterable, Iterator

from rorqual.data.archives import Member
from rorqual.data.extract.markup import decoded

_TESTS = re.compile(
    r"(^|/)(tests?|testing|idle_test|\w*_tests)/|(^|/)(test_\w*|\w*_test|conftest)\.py$"
)
_LARGEST_FILE_CHARACTERS = 400_000
_LONGEST_MEAN_LINE = 120


def extract_python(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """One document a file; tests, huge files and data in Python's clothes are left out."""
    kept = (member for member in members if not _TESTS.search(member.name))
    for name, text in decoded(kept):
        lines = text.count("\n") + 1
        if len(text) <= _LARGEST_FILE_CHARACTERS and len(text) / lines <= _LONGEST_MEAN_LINE:
            yield name, text
