"""Streaming: the pieces add up to the whole, and no piece holds half a character."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.tokenizer import Tokenizer


def stream(tokenizer: Tokenizer, ids: list[int], skip_special: bool = False) -> list[str]:
    decoder = tokenizer.stream_decoder(skip_special=skip_special)
    return [*(decoder.push(token_id) for token_id in ids), decoder.flush()]


@settings(deadline=None)
@given(ids=st.lists(st.integers(min_value=0, max_value=2100)), skip_special=st.booleans())
def test_stream_of_any_ids_equals_full_decode(ours: Tokenizer, ids: list[int], skip_special: bool):
    whole = ours.decode(ids, skip_special=skip_special)
    assert "".join(stream(ours, ids, skip_special)) == whole


def test_text_streams_without_replacement_characters(ours: Tokenizer, mixed_strings: list[str]):
    for text in mixed_strings:
        pieces = stream(ours, ours.encode(text))
        assert "".join(pieces) == text
        assert all("\ufffd" not in piece for piece in pieces)


def test_a_character_appears_with_its_last_byte(ours: Tokenizer):
    byte_ids = [ours.special_tokens["<think>"], *ours.encode("𒍅")]
    assert len(byte_ids) == 5, "this character must be four tokens of one byte"
    assert stream(ours, byte_ids) == ["<think>", "", "", "", "𒍅", ""]


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_an_unfinished_character_is_flushed_as_a_replacement(ours: Tokenizer, kept: int):
    pieces = stream(ours, ours.encode("𒍅")[:kept])
    assert pieces == [*[""] * kept, "\ufffd"]
