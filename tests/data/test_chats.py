"""Conversations in a corpus: through the template, deduplicated to the letter, never held out."""

import json
import time
from pathlib import Path

import pytest

from rorqual.config.data import DataConfig
from rorqual.data import add_chats, add_files, build_shards, load_manifest
from rorqual.data.corpus import read_corpus
from rorqual.data.documents import Document
from rorqual.data.index import load_index
from rorqual.errors import ConfigError, DataError
from rorqual.tokenizer import Tokenizer

from .conftest import VOCAB_SIZE, write_documents
from .test_build import stored_documents


def ask(number: int, *, thinking: bool = True) -> list[dict[str, str]]:
    reply = {"role": "assistant", "content": f"\\boxed{{{number + 1}}}"}
    if thinking:
        reply["reasoning_content"] = f"{number}+1={number + 1}"
    return [
        {"role": "user", "content": f"Ann has {number} krill and finds one more. 几只？"},
        reply,
    ]


def chats(count: int, *, thinking: bool = True) -> list[tuple[str, list[dict[str, str]], str]]:
    return [(str(n), ask(n, thinking=thinking), "en" if n % 2 else "zh") for n in range(count)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    given = write_documents(tmp_path / "given", "en", 60, seed=0)
    add_files(tmp_path, [given], name="own", language="en", licence="MIT")
    return tmp_path


def test_a_chat_is_stored_as_the_conversation_encodes(root: Path) -> None:
    entry = add_chats(root, "tasks", chats(50), "MIT")
    assert (entry.documents, entry.held_out_documents, entry.language) == (50, 0, "en+zh")
    path = build_shards(DataConfig(root=root, vocab_size=VOCAB_SIZE, fim_rate=1.0))
    tokenizer = Tokenizer.load(path.parent / "tokenizer")
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    stored = stored_documents(path, "train")
    for number in range(50):
        ids = tokenizer.encode_conversation(ask(number)).ids
        assert (ids[0], ids[-1], ids.count(begin), ids.count(end)) == (begin, end, 1, 1)
        assert ids in stored
    assert "validation-zh" not in load_index(path).splits


def test_alike_chats_stay_and_equal_ones_go(root: Path) -> None:
    case = [
        ("upper", [{"role": "user", "content": "How many A in A a?"}], "en"),
        ("lower", [{"role": "user", "content": "How many a in A a?"}], "en"),
    ]
    again = [(f"again-{chat_id}", messages, "en") for chat_id, messages, _ in chats(3)]
    entry = add_chats(root, "tasks", [*chats(200), *again, *case], "MIT")
    assert (entry.documents, entry.duplicates, entry.near_duplicates) == (202, 3, 0)
    add_chats(root, "more", chats(210), "MIT")
    path = build_shards(DataConfig(root=root, vocab_size=VOCAB_SIZE))
    num_texts = load_manifest(root).sources["own"].documents
    held_out = load_manifest(root).sources["own"].held_out_documents
    assert load_index(path).splits["train"].documents == num_texts - held_out + 202 + 10


def test_a_turn_without_an_answer_is_closed(root: Path) -> None:
    add_chats(root, "open", [("a", [{"role": "user", "content": "Who are you?"}], "en")], "MIT")
    path = build_shards(DataConfig(root=root, vocab_size=VOCAB_SIZE))
    tokenizer = Tokenizer.load(path.parent / "tokenizer")
    asked = tokenizer.encode_messages([{"role": "user", "content": "Who are you?"}])
    assert [*asked, tokenizer.eos_token_id] in stored_documents(path, "train")


def test_the_tokenizer_learns_from_plain_contents(tmp_path: Path) -> None:
    """Words of prompt, reasoning and reply become tokens; keys and braces of the JSON do not."""
    messages = [
        {"role": "user", "content": "balaenoptera"},
        {"role": "assistant", "reasoning_content": "euphausiid", "content": "plankton"},
    ]
    add_chats(tmp_path, "one", [(str(n), [*messages, *ask(n)], "en") for n in range(40)], "MIT")
    config = DataConfig(root=tmp_path, vocab_size=VOCAB_SIZE)
    tokenizer = Tokenizer.load(build_shards(config).parent / "tokenizer")
    for word in ("balaenoptera", "euphausiid", "plankton"):
        assert len(tokenizer.encode(word)) == 1
    assert len(tokenizer.encode('{"role":')) > 4


def test_bytes_are_those_of_the_words(root: Path) -> None:
    entry = add_chats(root, "one", [("a", ask(4), "en")], "MIT")
    words = "Ann has 4 krill and finds one more. 几只？\n4+1=5\n\\boxed{5}"
    (document,) = read_corpus(load_manifest(root).corpus_path("one"))
    assert document.words == words and document.messages == ask(4)
    assert entry.bytes == len(words.encode())


def test_corpora_written_before_there_were_chats_are_read_and_written_the_same(root: Path) -> None:
    path = load_manifest(root).corpus_path("own")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line).keys() == {"id", "text", "language", "held_out"} for line in lines)
    assert {document.kind for document in read_corpus(path)} == {"text"}


def test_adding_again_replaces(root: Path) -> None:
    add_chats(root, "tasks", chats(20), "MIT")
    assert add_chats(root, "tasks", chats(5, thinking=False), "MIT").documents == 5
    documents = list(read_corpus(load_manifest(root).corpus_path("tasks")))
    assert [document.id for document in documents] == [f"tasks/{n}" for n in range(5)]
    assert isinstance(documents[0], Document) and documents[0].messages == ask(0, thinking=False)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "bad/7: messages: is empty"),
        ([{"role": "whale", "content": "x"}], "bad/7: messages[0].role"),
        ([{"role": "user", "content": "half \ud83d"}], "half a surrogate pair"),
        ([{"role": "user", "content": "x", "extra": {1, 2}}], "bad/7: Object of type set"),
    ],
)
def test_a_bad_conversation_is_named(root: Path, messages: list, words: str) -> None:
    with pytest.raises(DataError) as error:
        add_chats(root, "bad", [("7", messages, "en")], "MIT")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_nothing_and_bad_names_are_refused(root: Path) -> None:
    with pytest.raises(DataError, match="no conversation given"):
        add_chats(root, "none", [], "MIT")
    with pytest.raises(ConfigError, match="letters, digits"):
        add_chats(root, "../up", chats(1), "MIT")


@pytest.mark.soak
def test_sixty_thousand_chats_take_less_than_a_minute(tmp_path: Path) -> None:
    before = time.process_time()
    add_chats(tmp_path, "tasks", chats(60_000), "MIT")
    build_shards(DataConfig(root=tmp_path, vocab_size=VOCAB_SIZE))
    assert time.process_time() - before < 60
