"""Encoding and decoding: lossless, nothing special from text, bytes per id."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.errors import DataError, RequestError
from rorqual.tokenizer import DEEPSEEK_TOKENS, Tokenizer, decode_utf8

UNICODE = st.text(alphabet=st.characters(codec="utf-8"))
WITH_SPECIAL = st.lists(st.one_of(UNICODE, st.sampled_from(DEEPSEEK_TOKENS))).map("".join)


@settings(deadline=None)
@given(text=WITH_SPECIAL)
def test_round_trip_is_lossless_on_every_unicode_string(ours: Tokenizer, text: str):
    assert ours.decode(ours.encode(text)) == text
    assert ours.decode(ours.encode_with_special(text)) == text


@settings(deadline=None)
@given(text=WITH_SPECIAL)
def test_encode_never_yields_a_special_id(ours: Tokenizer, text: str):
    assert not set(ours.encode(text)) & set(ours.special_tokens.values())


@pytest.mark.parametrize("token", DEEPSEEK_TOKENS)
def test_special_strings_are_one_id_only_where_text_is_trusted(ours: Tokenizer, token: str):
    assert ours.encode_with_special(f"a{token}b") == [
        *ours.encode("a"),
        ours.special_tokens[token],
        *ours.encode("b"),
    ]
    assert len(ours.encode(token)) > 1


def test_a_longer_special_string_wins_over_its_prefix(ours: Tokenizer):
    nested = "<<think></think></<｜User｜>"
    specials = set(ours.special_tokens.values())
    found = [i for i in ours.encode_with_special(nested) if i in specials]
    assert found == [ours.special_tokens[t] for t in ("<think>", "</think>", "<｜User｜>")]


def test_batch_encoding_equals_one_by_one(ours: Tokenizer, mixed_strings: list[str]):
    assert ours.encode_batch(mixed_strings) == [ours.encode(text) for text in mixed_strings]
    assert ours.encode_batch([]) == []


def test_named_ids_are_deepseeks(ours: Tokenizer):
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id) == (0, 1, 2)
    assert ours.special_tokens["<｜begin▁of▁sentence｜>"] == 0
    assert set(ours.special_tokens) == set(DEEPSEEK_TOKENS)


def test_bytes_per_token_add_up_to_the_text(ours: Tokenizer, mixed_strings: list[str]):
    sizes = ours.token_num_bytes()
    assert sizes.dtype == np.int32
    assert sizes.shape == (ours.vocab_size,)
    for text in mixed_strings:
        assert sizes[ours.encode(text)].sum() == len(text.encode("utf-8"))


def test_special_tokens_stand_for_no_bytes(ours: Tokenizer):
    sizes = ours.token_num_bytes()
    assert (sizes[list(ours.special_tokens.values())] == 0).all()
    assert (sizes == 0).sum() == len(DEEPSEEK_TOKENS)


def test_skip_special_drops_control_tokens_and_keeps_markers(ours: Tokenizer):
    text = "<｜begin▁of▁sentence｜><｜User｜>q<think>r</think>a<｜end▁of▁sentence｜>"
    ids = ours.encode_with_special(text)
    assert ours.decode(ids) == text
    assert ours.decode(ids, skip_special=True) == "<｜User｜>q<think>r</think>a"


def test_ids_beyond_the_vocabulary_stand_for_nothing(ours: Tokenizer):
    ids = [*ours.encode("a"), ours.vocab_size, ours.vocab_size + 100, *ours.encode("b")]
    assert ours.decode(ids) == "ab"


def test_a_lone_surrogate_is_a_request_error(ours: Tokenizer):
    calls = (
        lambda: ours.encode("ab\ud800"),
        lambda: ours.encode_batch(["ok", "ab\ud800"]),
        lambda: ours.encode_with_special("ab\ud800"),
        lambda: ours.encode_messages([{"role": "user", "content": "ab\ud800"}]),
    )
    for call in calls:
        with pytest.raises(RequestError, match=r"lone surrogate U\+D800 at character"):
            call()


def test_bytes_that_are_not_utf8_are_a_data_error_with_file_and_offset():
    assert decode_utf8("héllo 你好".encode(), "a.txt") == "héllo 你好"
    with pytest.raises(DataError, match=r"corpus/a\.txt: byte 0xff at offset 3 is not UTF-8"):
        decode_utf8(b"abc\xff", "corpus/a.txt")
    with pytest.raises(DataError, match="offset 1"):
        decode_utf8("a你".encode()[:-1], "cut.txt")
