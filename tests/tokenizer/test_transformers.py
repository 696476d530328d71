"""Oracle: transformers' AutoTokenizer, given our exported directory, does what we do."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rorqual.tokenizer import Tokenizer, train_tokenizer

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "你好 🐋"},
    {"role": "assistant", "content": "<think>a greeting</think>Hello."},
    {"role": "user", "content": "1234 + 1?"},
]


@pytest.fixture(scope="module", params=[None, "deepseek_v3"])
def exported(ours: Tokenizer, tmp_path_factory, request) -> AutoTokenizer:
    """Our directory opened by transformers: alone, and inside a model directory."""
    directory = tmp_path_factory.mktemp("exported")
    ours.save(directory)
    if request.param is not None:
        config = {"model_type": request.param, "architectures": ["DeepseekV3ForCausalLM"]}
        (directory / "config.json").write_text(json.dumps(config))
    return AutoTokenizer.from_pretrained(directory)


def test_ids_of_plain_text_are_equal(exported, ours: Tokenizer, mixed_strings: list[str]):
    assert exported(mixed_strings)["input_ids"] == ours.encode_batch(mixed_strings)


def test_ids_of_text_with_special_strings_are_equal(
    exported, ours: Tokenizer, strings_with_special: list[str]
):
    theirs = exported(strings_with_special)["input_ids"]
    assert theirs == [ours.encode_with_special(text) for text in strings_with_special]


def test_decoding_is_equal(exported, ours: Tokenizer, strings_with_special: list[str]):
    for text in strings_with_special:
        ids = ours.encode_with_special(text)
        for skip in (False, True):
            theirs = exported.decode(ids, skip_special_tokens=skip)
            assert ours.decode(ids, skip_special=skip) == theirs


def test_settings_are_read(exported, ours: Tokenizer):
    assert exported.bos_token_id == ours.bos_token_id
    assert exported.eos_token_id == ours.eos_token_id
    assert exported.pad_token_id == ours.pad_token_id
    assert exported.model_max_length == 131_072
    assert len(exported) == ours.vocab_size


@pytest.mark.parametrize("thinking", [None, True, False])
def test_the_chat_template_renders_the_same_ids(exported, ours: Tokenizer, thinking: bool | None):
    options = {} if thinking is None else {"thinking": thinking}
    theirs = exported.apply_chat_template(MESSAGES, add_generation_prompt=True, **options)
    ids = ours.encode_messages(MESSAGES, add_generation_prompt=True, thinking=thinking)
    assert theirs["input_ids"] == ids


@pytest.mark.parametrize("model_type", [None, "deepseek_v3"])
def test_a_tokenizer_of_single_digits_exports_the_same(
    corpus: list[str], tmp_path: Path, mixed_strings: list[str], model_type: str | None
):
    single = train_tokenizer(corpus, vocab_size=1000, digits="single")
    single.save(tmp_path)
    if model_type is not None:
        config = {"model_type": model_type, "architectures": ["DeepseekV3ForCausalLM"]}
        (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*mixed_strings, "x = 123456 + 7.25, 2026年10月31日"]
    assert theirs(texts)["input_ids"] == single.encode_batch(texts)
    chat = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True)
    assert chat["input_ids"] == single.encode_messages(MESSAGES, add_generation_prompt=True)
    assert Tokenizer.load(tmp_path).encode_batch(texts) == single.encode_batch(texts)


def test_a_saved_tokenizer_loads_again_unchanged(
    ours: Tokenizer, tmp_path: Path, mixed_strings: list[str]
):
    ours.save(tmp_path / "one")
    loaded = Tokenizer.load(tmp_path / "one")
    assert loaded.encode_batch(mixed_strings) == ours.encode_batch(mixed_strings)
    assert loaded.special_tokens == ours.special_tokens
    loaded.save(tmp_path / "two")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
