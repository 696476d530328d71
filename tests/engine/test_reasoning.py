"""Thinking and answer: the state a prompt implies, both kinds of markers, the thinking budget."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.engine.output_text import OutputText
from rorqual.engine.reasoning import ReasoningMarkers, ReasoningSplitter
from rorqual.tokenizer import Tokenizer
from tests.engine.tokenizers import published, small_tokenizer, without_think_tokens

ASK = [{"role": "user", "content": "Does <think> end with </think>?"}]


@pytest.fixture(scope="module")
def spelling(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer to which the markers are several tokens."""
    tokenizer = without_think_tokens(small_tokenizer(), tmp_path_factory.mktemp("spelling"))
    assert len(tokenizer.encode("<think>")) > 1
    return tokenizer


@pytest.fixture(scope="module", params=["one token", "spelt out"])
def tokenizer(request: pytest.FixtureRequest, spelling: Tokenizer) -> Tokenizer:
    return small_tokenizer() if request.param == "one token" else spelling


def splitter_for(tokenizer: Tokenizer, prompt: list[int], **options: int) -> ReasoningSplitter:
    return ReasoningSplitter.for_prompt(
        tokenizer, ReasoningMarkers.of(tokenizer), prompt, **options
    )


def prompt(tokenizer: Tokenizer, thinking: bool) -> list[int]:
    return tokenizer.encode_messages(ASK, add_generation_prompt=True, thinking=thinking)


def read(splitter: ReasoningSplitter, ids: list[int]) -> tuple[str, str]:
    """(reasoning, content) of a whole output."""
    output = OutputText(splitter)
    first, last = output.feed(ids), output.finish()
    return first.reasoning + last.reasoning, first.text + last.text


def test_the_prompt_says_whether_the_output_begins_with_thinking(tokenizer: Tokenizer):
    ids = tokenizer.encode_with_special("Yes.\n</think>\n\nIt does.")
    assert read(splitter_for(tokenizer, prompt(tokenizer, True)), ids) == ("Yes.", "It does.")
    answer = tokenizer.encode("It does.")
    assert read(splitter_for(tokenizer, prompt(tokenizer, False)), answer) == ("", "It does.")


def test_thinking_that_the_model_opens_itself_is_found(tokenizer: Tokenizer):
    ids = tokenizer.encode_with_special("<think>\nYes.\n</think>\n\nIt does.")
    assert read(splitter_for(tokenizer, prompt(tokenizer, False)), ids) == ("Yes.", "It does.")


def test_earlier_turns_do_not_decide(tokenizer: Tokenizer):
    earlier = {"role": "assistant", "content": "<think>\nnever closed"}
    ids = tokenizer.encode_messages([*ASK, earlier, *ASK], add_generation_prompt=True)
    assert not splitter_for(tokenizer, ids).in_reasoning


def test_a_prompt_may_end_in_the_middle_of_thinking(tokenizer: Tokenizer):
    ids = prompt(tokenizer, True) + tokenizer.encode("First,")
    output = tokenizer.encode_with_special("\nsecond\n</think>\n\nDone")
    assert read(splitter_for(tokenizer, ids), output) == ("\nsecond", "Done")


def test_thinking_that_never_ends_is_all_thinking(tokenizer: Tokenizer):
    ids = tokenizer.encode("Yes.\n\n")
    assert read(splitter_for(tokenizer, prompt(tokenizer, True)), ids) == ("Yes.\n\n", "")


def test_a_model_without_markers_only_answers():
    v3 = published("deepseek_v3")
    assert ReasoningMarkers.of(v3) is None
    splitter = splitter_for(v3, [0, 128_803, 128_804], thinking_budget=0)
    assert splitter.forced_token(10) is None
    assert read(splitter, v3.encode("<think>a</think>b")) == ("", "<think>a</think>b")


def test_qwen_markers_are_found_in_its_own_template():
    qwen = published("qwen3")
    ids = qwen.encode_messages(ASK, add_generation_prompt=True, thinking=False)
    splitter = splitter_for(qwen, ids)
    assert not splitter.in_reasoning
    output = qwen.encode_with_special("<think>\n好\n</think>\n\n是。")
    assert read(splitter, output) == ("好", "是。")


def test_a_quoted_marker_is_text_where_markers_are_tokens():
    tokenizer = small_tokenizer()
    splitter = splitter_for(tokenizer, prompt(tokenizer, True))
    ids = [*tokenizer.encode("a </think> b"), *tokenizer.encode_with_special("</think>")]
    ids += tokenizer.encode("<think> and </think>")
    assert read(splitter, ids) == ("a </think> b", "<think> and </think>")


PARTS = ("<think>", "</think>", "<thi", "</", "think>", "\n", "\n\n", "好🐋", "a", " b")


@settings(deadline=None, max_examples=100)
@given(parts=st.lists(st.sampled_from(PARTS), max_size=10), thinking=st.booleans())
def test_any_tokens_split_alike_one_by_one_and_lose_only_markers(parts: list[str], thinking: bool):
    tokenizer = small_tokenizer()
    start = prompt(tokenizer, thinking)
    markers = ("<think>", "</think>")
    encode = {True: tokenizer.encode_with_special, False: tokenizer.encode}
    ids = [token_id for part in parts for token_id in encode[part in markers](part)]
    whole = read(splitter_for(tokenizer, start), ids)
    for cut in range(len(ids) + 1):
        output = OutputText(splitter_for(tokenizer, start))
        pieces = [output.feed(ids[:cut]), output.feed(ids[cut:]), output.finish()]
        assert "".join(piece.reasoning for piece in pieces) == whole[0]
        assert "".join(piece.text for piece in pieces) == whole[1]
    plain = "".join(part for part in parts if part not in markers)
    assert sorted("".join(whole).replace("\n", "")) == sorted(plain.replace("\n", ""))


@settings(deadline=None, max_examples=200)
@given(
    text=st.lists(st.sampled_from(PARTS), max_size=10).map("".join),
    thinking=st.booleans(),
    cuts=st.sets(st.integers(0, 60)),
)
def test_spelt_markers_are_found_however_they_are_cut_into_tokens(
    spelling: Tokenizer, text: str, thinking: bool, cuts: set[int]
):
    start = prompt(spelling, thinking)
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    ids = [token_id for piece in pieces for token_id in spelling.encode(piece)]
    inside, opening = thinking, text.lstrip()
    body = text
    if not thinking and opening.startswith("<think>"):
        inside, body = True, opening.removeprefix("<think>")
    reasoning, marker, content = body.partition("</think>") if inside else ("", "", body)
    reasoning = reasoning.lstrip("\n")
    if marker:
        reasoning, content = reasoning.rstrip("\n"), content.lstrip("\n")
    assert read(splitter_for(spelling, start), ids) == (reasoning, content)


def test_labels_count_thinking_and_tell_where_it_ends(tokenizer: Tokenizer):
    splitter = splitter_for(tokenizer, prompt(tokenizer, True))
    thought = tokenizer.encode("Hm")
    assert [splitter.feed(token_id) for token_id in thought] == ["reasoning"] * len(thought)
    *_, last = [splitter.feed(i) for i in tokenizer.encode_with_special("</think>")]
    assert last == "marker"
    assert not splitter.in_reasoning
    assert splitter.feed(tokenizer.encode("A")[0]) == "content"
    marker_ids = len(tokenizer.encode_with_special("</think>"))
    assert splitter.num_reasoning_tokens == len(thought) + marker_ids - 1


@pytest.mark.parametrize("budget", [0, 1, 3])
@pytest.mark.parametrize("begun", ["", "</"])
def test_a_used_up_budget_forces_the_end_marker(tokenizer: Tokenizer, budget: int, begun: str):
    splitter = splitter_for(tokenizer, prompt(tokenizer, True), thinking_budget=budget)
    thought = (tokenizer.encode("one two three four five")[:budget]) + tokenizer.encode(begun)
    for num_tokens, token_id in enumerate(thought):
        if num_tokens < budget:
            assert splitter.forced_token(num_tokens) is None
        splitter.feed(token_id)
    forced: list[int] = []
    while (token_id := splitter.forced_token(splitter.num_reasoning_tokens)) is not None:
        forced.append(token_id)
        splitter.feed(token_id)
        assert len(forced) < 20
    assert not splitter.in_reasoning
    assert tokenizer.decode(thought + forced).endswith("</think>")
    assert splitter.forced_token(splitter.num_reasoning_tokens + 100) is None
    assert splitter.feed(tokenizer.encode("A")[0]) == "content"


def test_a_marker_inside_a_character_ends_it():
    tokenizer = small_tokenizer()
    ids = [*tokenizer.encode("𒍅")[:2], *tokenizer.encode_with_special("</think>ok")]
    assert read(splitter_for(tokenizer, prompt(tokenizer, True)), ids) == ("\ufffd", "ok")


def test_stop_strings_end_the_answer_and_not_the_thinking(tokenizer: Tokenizer):
    output = OutputText(splitter_for(tokenizer, prompt(tokenizer, True)), ["END"])
    ids = tokenizer.encode_with_special("not the END\n</think>\n\nanswer END more")
    delta = output.feed(ids)
    assert (delta.reasoning, delta.text, delta.stopped) == ("not the END", "answer ", True)
    assert output.stop_string == "END"
    assert tokenizer.decode(ids[: delta.num_tokens]).endswith("answer END")
    assert output.feed(ids) == ("", "", 0, True)
    assert output.finish().text == ""


def test_a_stop_that_the_last_character_completes_counts():
    tokenizer = small_tokenizer()
    output = OutputText(splitter_for(tokenizer, prompt(tokenizer, False)), ["\ufffd"])
    output.feed([*tokenizer.encode("a"), *tokenizer.encode("𒍅")[:1]])
    assert output.finish() == ("", "", 0, True)


def test_markers_of_a_directory_without_a_template(tmp_path: Path):
    small_tokenizer().save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = without_think_tokens(small_tokenizer(), tmp_path)
    assert ReasoningMarkers.of(tokenizer) is not None, "the template mentions them"
    (tmp_path / "tokenizer_config.json").unlink()
    assert ReasoningMarkers.of(Tokenizer.load(tmp_path / "tokenizer.json")) is None
