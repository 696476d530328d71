"""Train a byte-level BPE as DeepSeek-V3's: same pre-tokenizer, same special-token strings.

V3 (report, section 4.1; published tokenizer.json) splits text four times before merging: runs of
up to three digits; runs of CJK ideographs and kana; then letters with what leads them,
punctuation that may take following line breaks with it, line breaks, spaces; last, bytes. All 256
bytes are in the alphabet, so every string has an encoding. Special tokens get the first ids,
beginning 0 and end 1.

One departure can be chosen: digits one by one. A small model learns carrying on ten digit tokens;
on V3's thousand groups it would have to learn a table.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from rorqual.errors import ConfigError, DataError
from rorqual.tokenizer.chat import deepseek_template
from rorqual.tokenizer.files import TokenizerFiles
from rorqual.tokenizer.special import (
    BEGIN_OF_SENTENCE,
    CONTROL_TOKENS,
    DEEPSEEK_TOKENS,
    END_OF_SENTENCE,
    PAD,
)
from rorqual.tokenizer.text import surrogate_position
from rorqual.tokenizer.tokenizer import Tokenizer

Digits = Literal["groups_of_three", "single"]
DIGITS: dict[Digits, str] = {"groups_of_three": r"\p{N}{1,3}", "single": r"\p{N}"}
CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
WORDS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*"
    "|\\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
NUM_BYTES = 256
MODEL_MAX_LENGTH = 131_072

Progress = Callable[[int, int | None], None]


def train_tokenizer(
    texts: Iterable[str],
    *,
    vocab_size: int,
    digits: Digits = "groups_of_three",
    num_texts: int | None = None,
    on_progress: Progress | None = None,
) -> Tokenizer:
    """Learn merges from `texts` until `vocab_size` ids exist, special tokens included.

    Deterministic: same texts, same tokenizer. A small corpus may run out of pairs that occur
    twice and give fewer ids. `digits` says how runs of digits are cut.
    `on_progress(texts_read, num_texts)` is called as texts are read.
    """
    smallest = len(DEEPSEEK_TOKENS) + NUM_BYTES
    if vocab_size < smallest:
        raise ConfigError(
            f"vocab_size={vocab_size} is below {smallest} ({len(DEEPSEEK_TOKENS)} special tokens "
            f"and {NUM_BYTES} bytes); raise it"
        )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = deepseek_pre_tokenizer(digits)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[_added_token(text) for text in DEEPSEEK_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    checked = _CheckedTexts(texts, num_texts, on_progress)
    tokenizer.train_from_iterator(checked, trainer=trainer, length=num_texts)
    if checked.num_characters == 0:
        raise DataError("no text to train a tokenizer on; expected at least one non-empty text")
    return Tokenizer(
        TokenizerFiles(_with_deepseek_flags(tokenizer.to_str()), _settings(), "new tokenizer")
    )


def deepseek_pre_tokenizer(digits: Digits = "groups_of_three") -> pre_tokenizers.PreTokenizer:
    """V3's four splits, in its order; `digits` "single" departs from it in the first."""
    patterns = (DIGITS[digits], CJK, WORDS)
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, byte_level])


class _CheckedTexts:
    """The training texts, counted and refused if UTF-8 cannot hold them."""

    def __init__(self, texts: Iterable[str], num_texts: int | None, on_progress: Progress | None):
        self._texts = texts
        self._num_texts = num_texts
        self._on_progress = on_progress
        self.num_characters = 0

    def __iter__(self) -> Iterator[str]:
        for index, text in enumerate(self._texts):
            position = surrogate_position(text)
            if position is not None:
                raise DataError(
                    f"text {index} holds a lone surrogate at character {position}; expected text "
                    "that UTF-8 can hold, decode the source with decode_utf8"
                )
            self.num_characters += len(text)
            yield text
            if self._on_progress is not None:
                self._on_progress(index + 1, self._num_texts)


def _added_token(text: str) -> AddedToken:
    return AddedToken(text, normalized=False, special=text in CONTROL_TOKENS)


def _with_deepseek_flags(tokenizer_json: str) -> str:
    """The trainer flags all its special tokens; DeepSeek flags only begin, end and pad."""
    parsed = json.loads(tokenizer_json)
    for token in parsed["added_tokens"]:
        token["special"] = token["content"] in CONTROL_TOKENS
    return json.dumps(parsed, ensure_ascii=False, indent=1) + "\n"


def _settings() -> dict[str, Any]:
    """tokenizer_config.json: nothing is added or cleaned up behind the caller's back."""
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "bos_token": BEGIN_OF_SENTENCE,
        "chat_template": deepseek_template(),
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_SENTENCE,
        "model_max_length": MODEL_MAX_LENGTH,
        "pad_token": PAD,
        "split_special_tokens": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
