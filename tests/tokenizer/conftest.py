"""Tokenizers and texts that the tokenizer tests share."""

import functools
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rorqual.tokenizer import DEEPSEEK_TOKENS, Tokenizer, train_tokenizer
from tests.conftest import IN_CI

HERE = Path(__file__).parent
TEST_DATA = HERE.parents[1] / "build" / "test-data"


def golden(name: str) -> list:
    return json.loads((HERE / "golden" / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """Half a megabyte: the standard library's argparse and friends, and our golden strings."""
    folder = Path(os.__file__).parent
    names = ("argparse.py", "datetime.py", "statistics.py", "tarfile.py", "typing.py")
    code = [(folder / name).read_text(encoding="utf-8") for name in names]
    return code + golden("strings.json") * 20


@pytest.fixture(scope="session")
def ours(corpus: list[str]) -> Tokenizer:
    """A tokenizer trained here, 2,000 ids."""
    return train_tokenizer(corpus, vocab_size=2000)


@pytest.fixture(scope="session")
def published() -> Callable[[str], Tokenizer]:
    """Loads `deepseek_v3` or `qwen3` as published; see fetch_published.py."""

    @functools.cache
    def load(name: str) -> Tokenizer:
        directory = TEST_DATA / name
        if not directory.is_dir():
            message = f"{directory} is missing; run python tests/tokenizer/fetch_published.py"
            pytest.fail(message) if IN_CI else pytest.skip(message)
        return Tokenizer.load(directory)

    return load


@pytest.fixture(scope="session")
def mixed_strings() -> list[str]:
    """1,000 strings of mixed scripts, code, digits, space, emoji and controls."""
    return make_mixed_strings(1000, seed=0)


@pytest.fixture(scope="session")
def strings_with_special(mixed_strings: list[str]) -> list[str]:
    """The same 1,000 with special strings, whole and cut short, inside."""
    rng = random.Random(1)
    return [sprinkle_special(text, rng) for text in mixed_strings]


def make_mixed_strings(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    fragments = [text for text in golden("strings.json") if "think>" not in text]
    fragments = [text for text in fragments if "<|" not in text]  # Qwen's special strings
    spaces = [" ", "  ", "\n", "\r\n", "\t", "\u3000", "\u00a0", ""]
    blocks = [(0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x36F), (0x400, 0x4FF), (0x4E00, 0x9FA5)]
    blocks += [(0x3040, 0x30FF), (0x1F300, 0x1F6FF), (0x0, 0x1F), (0x20000, 0x20100)]

    def piece() -> str:
        kind = rng.randrange(4)
        if kind == 0:
            text = rng.choice(fragments)
            start = rng.randrange(len(text))
            return text[start : start + rng.randrange(1, 30)]
        if kind == 1:
            return str(rng.randrange(10 ** rng.randrange(1, 12)))
        if kind == 2:
            return rng.choice(spaces)
        low, high = rng.choice(blocks)
        return "".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(1, 6)))

    return ["".join(piece() for _ in range(rng.randrange(1, 12))) for _ in range(count)]


def sprinkle_special(text: str, rng: random.Random) -> str:
    """`text` with special strings at random places, some of them cut short."""
    for _ in range(rng.randrange(1, 4)):
        token = rng.choice(DEEPSEEK_TOKENS)
        if rng.random() < 0.2:
            token = token[: rng.randrange(1, len(token))]
        at = rng.randrange(len(text) + 1)
        text = text[:at] + token + text[at:]
    return text
