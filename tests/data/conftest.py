"""A small corpus in three languages, written here from a seed, and its shards."""

import json
from pathlib import Path

import numpy as np
import pytest

from rorqual.config.data import DataConfig
from rorqual.data import add_files, build_shards

VOCAB_SIZE = 700
_WORDS = {
    "en": "whale krill ocean deep cold swims sings under ice the a of and slowly north".split(),
    "zh": [
        "鲸鱼",
        "海洋",
        "很深",
        "磷虾",
        "在",
        "北方",
        "唱歌",
        "的",
        "冰",
        "下",
        "游",
        "，",
        "。",
    ],
    "code": ["def swim(depth):", "    return depth + 1", "import math", "x = swim(3)", "# krill"],
}


def write_documents(folder: Path, language: str, count: int, seed: int) -> Path:
    """A JSONL file of `count` documents, from a few words to several thousand characters."""
    rng = np.random.default_rng(seed)
    joint = {"en": " ", "zh": "", "code": "\n"}[language]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{language}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            length = int(rng.lognormal(3.5, 1.2)) + 3
            words = [_WORDS[language][i] for i in rng.integers(len(_WORDS[language]), size=length)]
            text = f"{number} {joint.join(words)}"
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return path


def make_root(root: Path, count: int = 300) -> Path:
    """A data folder with one source a language."""
    for seed, language in enumerate(("en", "zh", "code")):
        path = write_documents(root / "given", language, count, seed)
        add_files(root, [path], name=f"{language}-own", language=language, licence="MIT")
    return root


@pytest.fixture(scope="session")
def corpus_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def index_path(corpus_root: Path) -> Path:
    return build_shards(DataConfig(root=corpus_root, vocab_size=VOCAB_SIZE))
