"""Published tokenizers: DeepSeek-V3's against another implementation's ids, Qwen3's as a guest."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from rorqual.errors import CheckpointError
from rorqual.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden"
Load = Callable[[str], Tokenizer]
CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello 你好"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "\n\nBye"},
]


def file_of(name: str) -> Path:
    return GOLDEN.parents[2] / "build" / "test-data" / name / "tokenizer.json"


def test_v3_ids_equal_the_npm_encoders(published: Load):
    strings = json.loads((GOLDEN / "strings.json").read_text(encoding="utf-8"))
    expected = json.loads((GOLDEN / "deepseek_v3_ids.json").read_text())
    assert len(strings) == len(expected) >= 60
    v3 = published("deepseek_v3")
    for text, ids in zip(strings, expected, strict=True):
        assert v3.encode(text) == ids, text
        assert v3.decode(ids) == text


def test_v3_ids_are_the_documented_ones(published: Load):
    v3 = published("deepseek_v3")
    assert (v3.bos_token_id, v3.eos_token_id, v3.pad_token_id) == (0, 1, 1)
    assert v3.vocab_size == 128_815
    documented = {"<｜User｜>": 128803, "<｜Assistant｜>": 128804, "<｜tool▁calls▁begin｜>": 128806}
    assert documented.items() <= v3.special_tokens.items()
    assert v3.special_tokens["<｜tool▁sep｜>"] == 128814


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3"])
def test_published_files_encode_as_the_library_does(
    published: Load, name: str, mixed_strings: list[str]
):
    tokenizer = published(name)
    library = tokenizers.Tokenizer.from_file(str(file_of(name)))
    theirs = [e.ids for e in library.encode_batch(mixed_strings, add_special_tokens=False)]
    assert tokenizer.encode_batch(mixed_strings) == theirs
    for text, ids in zip(mixed_strings, theirs, strict=True):
        assert tokenizer.decode(ids) == library.decode(ids, skip_special_tokens=False), text


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3"])
def test_no_special_string_of_a_published_file_is_reachable_from_text(published: Load, name: str):
    tokenizer = published(name)
    specials = set(tokenizer.special_tokens.values())
    for string, token_id in tokenizer.special_tokens.items():
        assert not set(tokenizer.encode(string)) & specials, string
        assert tokenizer.encode_with_special(string) == [token_id]


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3"])
def test_published_conversations_encode_as_rendered_and_mask_the_assistant(
    published: Load, name: str
):
    tokenizer = published(name)
    library = tokenizers.Tokenizer.from_file(str(file_of(name)))
    conversation = tokenizer.encode_conversation(CHAT, add_generation_prompt=True)
    rendered = tokenizer.render(CHAT, add_generation_prompt=True)
    assert conversation.ids == library.encode(rendered, add_special_tokens=False).ids
    written = [i for i, mask in zip(*conversation, strict=True) if mask]
    assert tokenizer.decode(written) == "Hi!" + tokenizer.decode([tokenizer.eos_token_id])


def test_v3_bytes_per_token_are_plausible(published: Load):
    sizes = published("deepseek_v3").token_num_bytes()
    assert sizes.shape == (128_815,)
    assert (sizes == 0).sum() == 818, "815 added tokens and begin, end, pad"
    assert np.median(sizes[sizes > 0]) == 6


def test_qwen_names_no_beginning(published: Load):
    qwen = published("qwen3")
    with pytest.raises(CheckpointError, match="has no bos_token"):
        _ = qwen.bos_token_id
    assert qwen.decode([qwen.eos_token_id]) == "<|im_end|>"


def test_a_published_file_is_saved_byte_for_byte(published: Load, tmp_path: Path):
    published("deepseek_v3").save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == file_of("deepseek_v3").read_bytes()
