"""Incremental text: equal to decoding at once wherever the ids are cut."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.engine.detokenize import Detokenizer
from tests.engine.tokenizers import CHINESE, small_tokenizer


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 950), max_size=30), skip=st.booleans())
def test_two_pieces_equal_decoding_at_once_at_every_split_point(ids: list[int], skip: bool):
    tokenizer = small_tokenizer()
    whole = tokenizer.decode(ids, skip_special=skip)
    for cut in range(len(ids) + 1):
        detokenizer = Detokenizer(tokenizer, skip_special=skip)
        pieces = [detokenizer.feed(ids[:cut]), detokenizer.feed(ids[cut:]), detokenizer.finish()]
        assert "".join(pieces) == whole


def test_no_piece_holds_half_a_character():
    tokenizer = small_tokenizer()
    detokenizer = Detokenizer(tokenizer)
    text = CHINESE + "𒍅𓀀"
    pieces = [detokenizer.feed([token_id]) for token_id in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert "" in pieces, "some character must span tokens for this test to say anything"
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_finished_text_leaves_nothing_behind_for_the_next():
    tokenizer = small_tokenizer()
    detokenizer = Detokenizer(tokenizer)
    half = tokenizer.encode("𒍅")[:2]
    assert (detokenizer.feed(half), detokenizer.finish()) == ("", "\ufffd")
    assert detokenizer.feed(tokenizer.encode("ok")) == "ok"


def test_begin_and_end_are_skipped_and_markers_kept():
    tokenizer = small_tokenizer()
    ids = tokenizer.encode_with_special("<｜begin▁of▁sentence｜>a<think><｜end▁of▁sentence｜>")
    assert Detokenizer(tokenizer).feed(ids) == "a<think>"
    assert Detokenizer(tokenizer, skip_special=False).feed(ids) == tokenizer.decode(ids)
