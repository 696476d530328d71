"""A stream's events: the short way for plain pieces of text says what the long way says."""

import json

import pytest

from rorqual.server.backends import Chunk
from rorqual.server.wire.chat_answer import ChatAnswer

TEXTS = ["whale", ' "quoted" \\ ', "鲸鱼\n\t", "\x00\x1f\u2028", "\ud800 half", '0,"delta":{}', "}"]


def writer(*, include_usage: bool) -> ChatAnswer:
    return ChatAnswer(
        request_id="chatcmpl-1",
        model='model "0,"delta":{}" {x}',
        created=1,
        dialect="openai",
        num_choices=3,
        thinks=True,
        logprobs=False,
        include_usage=include_usage,
    )


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["content", "reasoning"])
def test_a_plain_piece_is_written_like_any_other(name: str, text: str, include_usage: bool) -> None:
    one = writer(include_usage=include_usage)
    chunk = Chunk(2, num_tokens=1, **{name: text})
    field = "content" if name == "content" else "reasoning_content"
    long = one._event([one._stream_choice(2, {field: text})])
    assert one.write([chunk], None) == long
    json.loads(long.removeprefix(b"data: "))


def test_a_piece_with_more_than_text_is_not_plain() -> None:
    one = writer(include_usage=False)
    events = one.write([Chunk(0, content="a", finish="stop"), Chunk(1, content="b")], None)
    found = [json.loads(line[6:])["choices"][0] for line in events.decode().split("\n\n") if line]
    assert [choice["finish_reason"] for choice in found] == [None, "stop", None]
    assert [choice["delta"] for choice in found] == [{"content": "a"}, {}, {"content": "b"}]
