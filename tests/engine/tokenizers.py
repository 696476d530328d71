"""Tokenizers that the tests of the engine's text side share."""

import argparse
import functools
import json
from pathlib import Path

import pytest

from rorqual.tokenizer import Tokenizer, train_tokenizer
from rorqual.tokenizer.files import read_files
from tests.conftest import IN_CI

ROOT = Path(__file__).resolve().parents[2]
CHINESE = "北京今天的天气怎么样？请用工具查询，然后简短回答。🐋 naïve café Ω"


@functools.cache
def small_tokenizer() -> Tokenizer:
    """Trained here, 900 ids; thinking and tool markers are single tokens."""
    code = Path(argparse.__file__).read_text(encoding="utf-8")
    calls = json.dumps({"city": "北京", "days": [1, 2], "note": "```json\n</think>"}) * 20
    return train_tokenizer([code, CHINESE * 20, calls], vocab_size=900)


def without_think_tokens(tokenizer: Tokenizer, directory: Path) -> Tokenizer:
    """The same tokenizer, but `<think>` and `</think>` are ordinary text to it."""
    tokenizer.save(directory)
    path = directory / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    for marker, unused in (("<think>", "<unused-0>"), ("</think>", "<unused-1>")):
        assert json.dumps(marker) in text
        text = text.replace(json.dumps(marker), json.dumps(unused))
    path.write_text(text, encoding="utf-8")
    return Tokenizer(read_files(directory))


@functools.cache
def _load(name: str) -> Tokenizer:
    return Tokenizer.load(ROOT / "build" / "test-data" / name)


def published(name: str) -> Tokenizer:
    """`deepseek_v3` or `qwen3` as published; skips where they were not fetched."""
    if not (ROOT / "build" / "test-data" / name).is_dir():
        message = f"{name} is missing; run python tests/tokenizer/fetch_published.py"
        pytest.fail(message) if IN_CI else pytest.skip(message)
    return _load(name)
