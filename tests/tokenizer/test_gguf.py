"""Tokenizers in GGUF metadata: the way there and back, and against transformers' reading."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import AutoTokenizer

from rorqual.checkpoint.models import PACKAGED
from rorqual.checkpoint.weights import open_weights
from rorqual.engine.reasoning import ReasoningMarkers
from rorqual.errors import CheckpointError
from rorqual.tokenizer import Tokenizer, train_tokenizer
from rorqual.tokenizer.gguf import tokenizer_from_gguf, tokenizer_to_gguf
from rorqual.tokenizer.pre_tokenizers import PRE_TOKENIZERS, pre_tokenizer_named
from tests.tokenizer.conftest import TEST_DATA

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5


@pytest.fixture
def smollm2(require_or_fail: Callable[[Path, str], None]) -> Path:
    """The GGUF file of SmolLM2-135M-Instruct."""
    file = TEST_DATA / "models" / "smollm2-0.1.2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    require_or_fail(file, "run python tests/checkpoint/fetch_models.py")
    return file


def test_smollm2_is_what_people_are_told_before_it_is_fetched(smollm2: Path) -> None:
    told, weights = PACKAGED["smollm2"], open_weights(smollm2)
    assert told.context_tokens == weights.config.max_position_embeddings
    assert told.thinks == (ReasoningMarkers.of(weights.tokenizer()) is not None)
    assert smollm2.name == Path(told.member).name


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3"])
def test_a_published_tokenizer_survives(
    published: Callable[[str], Tokenizer], mixed_strings: list[str], name: str
) -> None:
    before = published(name)
    metadata = tokenizer_to_gguf(before, before.vocab_size + 5)
    assert metadata["tokenizer.ggml.pre"] == {"deepseek_v3": "deepseek-v3"}.get(name, "qwen2")
    after = tokenizer_from_gguf(metadata, "test")
    texts = mixed_strings[:300]
    assert after.encode_batch(texts) == before.encode_batch(texts)
    assert after.special_tokens == before.special_tokens
    ids = list(before.special_tokens.values())
    assert after.decode(ids, skip_special=True) == before.decode(ids, skip_special=True)
    assert after.eos_token_id == before.eos_token_id
    assert after.render(CHAT, add_generation_prompt=True) == before.render(
        CHAT, add_generation_prompt=True
    )
    assert after.vocab_size == before.vocab_size  # the five padding rows are no tokens


def test_names_and_types_are_what_llama_cpp_expects(
    ours: Tokenizer,
) -> None:
    metadata = tokenizer_to_gguf(ours, ours.vocab_size + 3)
    assert metadata["tokenizer.ggml.pre"] == "deepseek-v3"
    types = metadata["tokenizer.ggml.token_type"]
    assert len(metadata["tokenizer.ggml.tokens"]) == len(types) == ours.vocab_size + 3
    assert types[ours.special_tokens["<｜User｜>"]] == CONTROL
    assert types[ours.special_tokens["<think>"]] == USER_DEFINED
    assert types[-1] == UNUSED
    assert not any(metadata[f"tokenizer.ggml.add_{name}_token"] for name in ("bos", "eos"))


def test_our_own_tokenizers_go_by_v3s_name(corpus: list[str], mixed_strings: list[str]) -> None:
    for digits in ("groups_of_three", "single"):
        ours = train_tokenizer(corpus, vocab_size=1000, digits=digits)
        metadata = tokenizer_to_gguf(ours, 1000)
        assert metadata["tokenizer.ggml.pre"] == "deepseek-v3"
        texts = [text for text in mixed_strings if text.isascii()]
        assert tokenizer_from_gguf(metadata, "x").encode_batch(texts) == ours.encode_batch(texts)


def test_smollm2_encodes_as_transformers_with_the_published_cut(
    smollm2: Path, mixed_strings: list[str]
) -> None:
    """NOTE: transformers' own reading forgets that SmolLM cuts digits one by one."""
    pytest.importorskip("gguf")
    ours = open_weights(smollm2).tokenizer()
    theirs: Any = AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    texts = mixed_strings[:300]
    no_digits = [text for text in texts if not any(c.isnumeric() for c in text)]
    assert len(no_digits) > 50
    for text in no_digits:
        assert ours.encode_with_special(text) == theirs.encode(text, add_special_tokens=False), text
    published_cut = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    theirs.backend_tokenizer.pre_tokenizer = published_cut
    for text in texts:
        assert ours.encode_with_special(text) == theirs.encode(text, add_special_tokens=False), text
    rendered = theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert ours.render(CHAT, add_generation_prompt=True) == rendered
    assert (ours.bos_token_id, ours.eos_token_id, ours.vocab_size) == (1, 2, 49152)


def test_every_rule_is_a_pre_tokenizer_that_the_library_builds(ours: Tokenizer) -> None:
    parsed = json.loads(ours.files.tokenizer_json)
    for rule in PRE_TOKENIZERS:
        parsed["pre_tokenizer"] = rule.as_json()
        built = tokenizers.Tokenizer.from_str(json.dumps(parsed)).pre_tokenizer
        assert built is not None
        pieces = [text for text, _ in built.pre_tokenize_str("I'm 2024 鲸!\n\n ok")]
        assert len("".join(pieces)) == len("I'm 2024 鲸!\n\n ok".encode())
        digits = {"2024"} if rule.name == "gpt-2" else {"202", "4"}
        single = rule.name in ("deepseek-llm", "qwen2", "smollm")
        wanted = {"2", "0", "4"} if single else digits
        assert wanted <= {piece.strip("Ġ") for piece in pieces}, rule.name
        assert all(pre_tokenizer_named(alias, "x") is rule for alias in (rule.name, *rule.aliases))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "llama"}, "expected 'gpt2'"),
        ({"pre": "tekken"}, "tokenizer.ggml.pre='tekken'"),
        ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
        ({"token_type": [1, 1]}, "2 token types for"),
        ({"eos_token_id": 10**6}, "eos_token_id=1000000"),
        ({"merges": ["a b c"]}, "'a b c' is not two tokens"),
        ({"merges": ["q zzz"]}, "not a tokenizer that the tokenizers library reads"),
    ],
)
def test_what_is_wrong_is_named(ours: Tokenizer, changes: dict[str, Any], words: str) -> None:
    metadata = tokenizer_to_gguf(ours, ours.vocab_size)
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    with pytest.raises(CheckpointError) as error:
        tokenizer_from_gguf(metadata, "file.gguf")
    assert words in str(error.value) and str(error.value).startswith("file.gguf")


def test_without_types_the_named_tokens_are_special(ours: Tokenizer) -> None:
    metadata = tokenizer_to_gguf(ours, ours.vocab_size)
    del metadata["tokenizer.ggml.token_type"]
    after = tokenizer_from_gguf(metadata, "x")
    assert set(after.special_tokens.values()) == {ours.bos_token_id, ours.eos_token_id, 2}


def test_a_tokenizer_that_does_not_fit_is_refused(ours: Tokenizer) -> None:
    with pytest.raises(CheckpointError, match="embedding 100 rows"):
        tokenizer_to_gguf(ours, 100)
    parsed = json.loads(ours.files.tokenizer_json)
    parsed["pre_tokenizer"]["pretokenizers"].pop(0)
    odd = Tokenizer(type(ours.files)(json.dumps(parsed), ours.files.config, "odd.json"))
    with pytest.raises(CheckpointError, match=r"odd\.json: llama\.cpp has no name"):
        tokenizer_to_gguf(odd, odd.vocab_size)
