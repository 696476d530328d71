"""The recipe's own data folder: worked examples, and the text of another folder beside them.

Of its own, because examples in the folder that `rorqual train` reads would change what that trains
on. The text costs no room: its files are linked where the file system allows.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from rorqual.config.recipe import CorpusStageRunConfig
from rorqual.data import load_manifest
from rorqual.data.corpus import read_corpus
from rorqual.data.manifest import exclusive
from rorqual.errors import DataError
from rorqual.train import write_task_corpus

SOURCE = "tasks"


@dataclass(frozen=True, slots=True)
class Examples:
    """Worked examples of a corpus, repetitions not counted; thinking: those that think."""

    count: int
    thinking: int
    text_bytes: int


def make_corpus(config: CorpusStageRunConfig, root: Path) -> Examples:
    """Fill the data folder at `root`."""
    if config.corpus.text is not None:
        _take_over(config.corpus.text, root)
    write_task_corpus(root, config.tasks, config.corpus.num_examples, config.corpus.seed, SOURCE)
    return count_examples(root)


def check_text(folder: Path) -> None:
    """DataError unless there is text to take over."""
    manifest = load_manifest(folder)
    if not manifest.sources:
        raise DataError(
            f"{folder}: there is no text; run `rorqual data fetch --profile small` first, or set "
            "corpus.text=none"
        )
    missing = [name for name in manifest.sources if not manifest.is_whole(name)]
    if missing:
        raise DataError(
            f"{manifest.corpus_path(missing[0])}: missing or cut; run `rorqual data fetch` again"
        )


def count_examples(root: Path) -> Examples:
    """How many worked examples lie in a data folder, and how many think."""
    manifest = load_manifest(root)
    count = thinking = 0
    for document in read_corpus(manifest.corpus_path(SOURCE)):
        count += 1
        thinking += any(message.get("reasoning_content") for message in document.messages)
    entries = manifest.sources.values()
    return Examples(count, thinking, sum(e.bytes for e in entries if e.name != SOURCE))


def _take_over(text: Path, root: Path) -> None:
    check_text(text)
    given = load_manifest(text)
    with exclusive(root):
        manifest = load_manifest(root)
        for name, entry in given.sources.items():
            target = manifest.corpus_path(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(given.corpus_path(name), target)
            except OSError:  # another file system
                shutil.copyfile(given.corpus_path(name), target)
            manifest.record(entry)
