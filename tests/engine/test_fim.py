"""Fill in the middle and prefix completion: prompts with the ids that training texts have."""

from pathlib import Path

import pytest

from rorqual.engine.continuation import continuation_prompt
from rorqual.engine.fim import MAX_SUFFIX_CHARACTERS, FimTokens, fim_prompt
from rorqual.engine.reasoning import ReasoningMarkers, ReasoningSplitter
from rorqual.errors import RequestError
from rorqual.tokenizer import Tokenizer
from rorqual.tokenizer.files import TokenizerFiles
from tests.engine.tokenizers import published, small_tokenizer, without_think_tokens

ASK = {"role": "user", "content": "How many </think> in 北京?"}
BOS = "<｜begin▁of▁sentence｜>"


def begun(content: str | None, reasoning: str | None = None) -> list[dict]:
    message = {"role": "assistant", "content": content, "prefix": True}
    if reasoning is not None:
        message["reasoning_content"] = reasoning
    return [ASK, message]


def continued(messages: list[dict], thinking: bool | None, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(continuation_prompt(tokenizer, messages, thinking=thinking))


def test_fim_prompts_put_prefix_suffix_and_middle_in_the_order_of_training():
    tokenizer = small_tokenizer()
    ids = fim_prompt(tokenizer, "def f(x):\n", "\n    return y", max_prompt_tokens=100)
    text = f"{BOS}<｜fim▁begin｜>def f(x):\n<｜fim▁hole｜>\n    return y<｜fim▁end｜>"
    assert tokenizer.decode(ids) == text
    assert ids == tokenizer.encode_with_special(text)


def test_fim_tokens_in_the_text_stay_text():
    tokenizer = small_tokenizer()
    ids = fim_prompt(tokenizer, "<｜fim▁hole｜>", "<｜fim▁end｜>", max_prompt_tokens=100)
    special = [i for i in ids if i in tokenizer.special_tokens.values()]
    assert special == [tokenizer.bos_token_id, *FimTokens.of(tokenizer)]


def test_prefix_or_suffix_may_be_empty():
    tokenizer = small_tokenizer()
    assert len(fim_prompt(tokenizer, "", "", max_prompt_tokens=4)) == 4


def test_published_vocabularies_have_fim_tokens_of_either_name():
    assert FimTokens.of(published("deepseek_v3")) == (128_801, 128_800, 128_802)
    qwen = published("qwen3")
    text = "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
    ids = fim_prompt(qwen, "a", "b", max_prompt_tokens=5)
    assert ids == qwen.encode_with_special(text), "Qwen has no beginning token"


def test_a_tokenizer_without_fim_tokens_refuses(tmp_path: Path):
    small_tokenizer().save(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = Tokenizer(TokenizerFiles(text.replace("fim▁hole", "unused"), {}, "test"))
    with pytest.raises(RequestError, match="no fill-in-the-middle tokens") as caught:
        fim_prompt(tokenizer, "a", "b", max_prompt_tokens=100)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "suffix")


@pytest.mark.parametrize(
    ("prefix", "suffix", "param"),
    [("word " * 60, "b", "prompt"), ("a", "word " * 60, "suffix")],
)
def test_a_prompt_beyond_the_limit_names_the_longer_side(prefix: str, suffix: str, param: str):
    with pytest.raises(RequestError, match="at most 20") as caught:
        fim_prompt(small_tokenizer(), prefix, suffix, max_prompt_tokens=20)
    assert caught.value.param == param


def test_an_endless_suffix_is_refused_before_it_is_encoded():
    with pytest.raises(RequestError, match="characters") as caught:
        fim_prompt(small_tokenizer(), "a", "b" * (MAX_SUFFIX_CHARACTERS + 1), max_prompt_tokens=9)
    assert caught.value.param == "suffix"


@pytest.mark.parametrize("spelt", [False, True])
@pytest.mark.parametrize(
    ("content", "reasoning", "thinking", "end"),
    [
        ("The answer", None, None, "<｜Assistant｜>The answer"),
        ("The answer", None, False, "<｜Assistant｜>The answer"),
        ("The answer", None, True, "<think>\n\n</think>\n\nThe answer"),
        (None, "Let me", True, "<｜Assistant｜><think>\nLet me"),
        ("", "Let me", None, "<｜Assistant｜><think>\nLet me"),
        ("The answer", "Hm.", True, "<think>\nHm.\n</think>\n\nThe answer"),
        ("The answer", "Hm.", None, "<think>\nHm.\n</think>\n\nThe answer"),
        ("", None, True, "<｜Assistant｜><think>\n"),
        ("", "", None, "<｜Assistant｜>"),
    ],
)
def test_an_answer_begun_by_the_caller_stays_open(
    content: str | None,
    reasoning: str | None,
    thinking: bool | None,
    end: str,
    spelt: bool,
    tmp_path: Path,
):
    tokenizer = small_tokenizer()
    if spelt:
        tokenizer = without_think_tokens(tokenizer, tmp_path)
    messages = begun(content, reasoning)
    assert continued(messages, thinking, tokenizer) == (
        f"{BOS}<｜User｜>How many </think> in 北京?"
        + "<｜Assistant｜>"
        + end.removeprefix("<｜Assistant｜>")
    )
    ids = continuation_prompt(tokenizer, messages, thinking=thinking)
    splitter = ReasoningSplitter.for_prompt(tokenizer, ReasoningMarkers.of(tokenizer), ids)
    assert splitter.in_reasoning == ("<think>" in end and "</think>" not in end)


def test_the_ids_are_those_of_the_whole_turn():
    tokenizer = small_tokenizer()
    messages = begun("The answer is 北京", "Hm, let me")
    whole = tokenizer.encode_messages(messages)
    assert [*continuation_prompt(tokenizer, messages), tokenizer.eos_token_id] == whole


def test_a_chatml_answer_is_continued_without_a_break():
    qwen = published("qwen3")
    messages = begun("The answer")
    ids = continuation_prompt(qwen, messages, thinking=False)
    assert qwen.decode(ids).endswith("</think>\n\nThe answer")
    assert qwen.decode(continuation_prompt(qwen, messages)).endswith("assistant\nThe answer")


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([ASK], "messages"),
        ([ASK, ASK], "messages"),
        ([{"role": "assistant", "content": "alone"}], "messages"),
        (begun(["no", "text"]), "messages[1].content"),  # type: ignore[arg-type]
        (begun("a", 7), "messages[1].reasoning_content"),  # type: ignore[arg-type]
        ([ASK, {"role": "assistant", "content": "", "tool_calls": [{}]}], "messages[1].tool_calls"),
    ],
)
def test_what_cannot_be_continued_names_its_field(messages: list[dict], param: str):
    with pytest.raises(RequestError) as caught:
        continuation_prompt(small_tokenizer(), messages)
    assert (caught.value.code, caught.value.param) == ("invalid_messages", param)


def test_reasoning_cannot_be_continued_by_a_model_that_does_not_mark_it():
    with pytest.raises(RequestError, match="does not mark reasoning") as caught:
        continuation_prompt(published("deepseek_v3"), begun("a", "b"))
    assert caught.value.param == "messages[1].reasoning_content"
