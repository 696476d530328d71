"""Building shards: deterministic, held-out apart, FIM invertible, damage found."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from rorqual.config.data import DataConfig
from rorqual.data import add_files, build_shards, load_manifest
from rorqual.data.corpus import read_corpus
from rorqual.data.fim import FIM_BEGIN, FIM_END, FIM_HOLE, cut_for_fim
from rorqual.data.index import TokenStore, load_index
from rorqual.data.shards import ShardWriter, open_shard
from rorqual.errors import CapacityError, ConfigError, DataError
from rorqual.tokenizer import Tokenizer, train_tokenizer

from .conftest import VOCAB_SIZE, make_root, write_documents


def stored_documents(index_path: Path, split: str) -> list[list[int]]:
    store = TokenStore(index_path, split)
    return [store.read(i, 0, int(n)).tolist() for i, n in enumerate(store.lengths)]


def corpus_texts(root: Path, *, held_out: bool) -> list[str]:
    manifest = load_manifest(root)
    paths = [manifest.corpus_path(name) for name in sorted(manifest.sources)]
    documents = [document for path in paths for document in read_corpus(path)]
    return [document.text for document in documents if document.held_out == held_out]


def undo_fim(tokens: list[int], tokenizer: Tokenizer) -> tuple[str, bool]:
    """The text of a stored document, and whether it was rewritten."""
    begin, hole, end = (tokenizer.special_tokens[name] for name in (FIM_BEGIN, FIM_HOLE, FIM_END))
    inner = tokens[1:-1]
    if inner[0] != begin:
        return tokenizer.decode(inner), False
    at, to = inner.index(hole), inner.index(end)
    pieces = (inner[1:at], inner[to + 1 :], inner[at + 1 : to])
    return "".join(tokenizer.decode(piece) for piece in pieces), True


def test_training_documents_come_back_from_the_shards(corpus_root: Path, index_path: Path) -> None:
    tokenizer = Tokenizer.load(index_path.parent / "tokenizer")
    stored = stored_documents(index_path, "train")
    assert all(t[0] == tokenizer.bos_token_id and t[-1] == tokenizer.eos_token_id for t in stored)
    restored = [undo_fim(tokens, tokenizer) for tokens in stored]
    assert [text for text, _ in restored] == corpus_texts(corpus_root, held_out=False)
    share = sum(rewritten for _, rewritten in restored) / len(restored)
    assert abs(share - 0.1) < 0.04  # about four standard deviations at 800 documents


def test_held_out_documents_are_in_validation_only_and_never_rewritten(
    corpus_root: Path, index_path: Path
) -> None:
    tokenizer = Tokenizer.load(index_path.parent / "tokenizer")
    held_out = []
    for language in ("code", "en", "zh"):
        for tokens in stored_documents(index_path, f"validation-{language}"):
            text, rewritten = undo_fim(tokens, tokenizer)
            assert not rewritten
            held_out.append(text)
    assert sorted(held_out) == sorted(corpus_texts(corpus_root, held_out=True))
    train = {undo_fim(tokens, tokenizer)[0] for tokens in stored_documents(index_path, "train")}
    assert len(held_out) >= 3 and train.isdisjoint(held_out)


def test_fim_pieces_join_to_the_text_at_the_asked_rate() -> None:
    text = "鲸鱼 eats krill\n"
    cuts = [cut_for_fim(f"document-{number}", text, 0.25) for number in range(4000)]
    taken = [pieces for pieces in cuts if pieces is not None]
    assert abs(len(taken) / 4000 - 0.25) < 0.03
    assert all(p.prefix + p.middle + p.suffix == text for p in taken)
    assert len(set(taken)) > 50
    assert cuts[:20] == [cut_for_fim(f"document-{number}", text, 0.25) for number in range(20)]
    assert all(cut_for_fim(f"document-{number}", text, 0.0) is None for number in range(500))


def test_two_builds_are_equal_byte_for_byte(tmp_path: Path, index_path: Path) -> None:
    other = build_shards(DataConfig(root=make_root(tmp_path), vocab_size=VOCAB_SIZE))
    names = sorted(p.name for p in index_path.parent.iterdir() if p.is_file())
    assert names == [
        "index.json",
        "train-00000.bin",
        "validation-code.bin",
        "validation-en.bin",
        "validation-zh.bin",
    ]
    for name in names:
        assert (other.parent / name).read_bytes() == (index_path.parent / name).read_bytes(), name


def test_an_unchanged_corpus_is_not_built_again_and_a_changed_one_is(tmp_path: Path) -> None:
    root = make_root(tmp_path, count=40)
    config = DataConfig(root=root, vocab_size=VOCAB_SIZE)
    path = build_shards(config)
    before = load_index(path).fingerprint
    steps: list[str] = []
    build_shards(config, on_progress=lambda done, total, step: steps.append(step))
    assert steps == []
    more = write_documents(tmp_path / "more", "en", 20, seed=9)
    add_files(root, [more], name="more", language="en", licence="MIT")
    build_shards(config, on_progress=lambda done, total, step: steps.append(step))
    assert {"finding duplicates", "training the tokenizer", "encoding"} == set(steps)
    assert load_index(path).fingerprint != before


def test_the_cut_of_digits_is_part_of_the_build(tmp_path: Path) -> None:
    root = make_root(tmp_path, count=40)
    path = build_shards(DataConfig(root=root, vocab_size=VOCAB_SIZE))
    groups = load_index(path).fingerprint
    tokenizer = Tokenizer.load(path.parent / "tokenizer")
    build_shards(DataConfig(root=root, vocab_size=VOCAB_SIZE, digits="single"))
    assert load_index(path).fingerprint != groups
    single = Tokenizer.load(path.parent / "tokenizer")
    assert len(single.encode("1038")) == 4 > len(tokenizer.encode("1038"))


def test_small_shards_hold_the_same_documents_as_one(tmp_path: Path, index_path: Path) -> None:
    config = DataConfig(root=make_root(tmp_path), vocab_size=VOCAB_SIZE, tokens_per_shard=5000)
    path = build_shards(config)
    assert len(load_index(path).splits["train"].shards) > 3
    assert stored_documents(path, "train") == stored_documents(index_path, "train")


def test_a_mix_keeps_the_weights_by_bytes(tmp_path: Path, index_path: Path) -> None:
    root = make_root(tmp_path)
    mix = {"en": 0.5, "zh": 0.5}
    config = DataConfig.model_validate({"root": root, "vocab_size": VOCAB_SIZE, "mix": mix})
    tokenizer = Tokenizer.load((path := build_shards(config)).parent / "tokenizer")
    texts = [undo_fim(tokens, tokenizer)[0] for tokens in stored_documents(path, "train")]
    chinese = sum(len(t.encode()) for t in texts if any(c > "一" for c in t))
    english = sum(len(t.encode()) for t in texts if "whale" in t and t.isascii())
    assert abs(chinese / (chinese + english) - 0.5) < 0.1
    assert not any("swim(" in text for text in texts)


def test_a_mix_of_an_absent_language_is_refused(tmp_path: Path) -> None:
    add_files(
        tmp_path,
        [write_documents(tmp_path / "given", "en", 20, 0)],
        name="own",
        language="en",
        licence="MIT",
    )
    with pytest.raises(ConfigError, match="asks for code"):
        build_shards(DataConfig(root=tmp_path, mix={"en": 1.0, "code": 1.0}))
    with pytest.raises(ValidationError, match="weights above 0"):
        DataConfig(mix={"en": 0.0})


def test_a_tokenizer_of_ones_own_is_used_as_it_is(tmp_path: Path, corpus_root: Path) -> None:
    mine = train_tokenizer(["whale krill 鲸鱼 " * 50], vocab_size=420)
    mine.save(tmp_path / "mine")
    root = make_root(tmp_path / "root", count=30)
    path = build_shards(DataConfig(root=root, tokenizer=tmp_path / "mine"))
    assert path.parent.name == f"tokens-{mine.vocab_size}"
    assert Tokenizer.load(path.parent / "tokenizer").encode("whale 鲸鱼") == mine.encode(
        "whale 鲸鱼"
    )


def test_a_training_copy_of_a_held_out_document_is_dropped(tmp_path: Path) -> None:
    root = make_root(tmp_path, count=60)
    copied = corpus_texts(root, held_out=True)
    for number, text in enumerate([*copied, "something else entirely, about squid " * 20]):
        (tmp_path / "copies").mkdir(exist_ok=True)
        (tmp_path / "copies" / f"{number}.txt").write_text(text, encoding="utf-8")
    add_files(root, [tmp_path / "copies"], name="a-copy", language="en", licence="MIT")
    path = build_shards(DataConfig(root=root, vocab_size=VOCAB_SIZE, fim_rate=0.0))
    tokenizer = Tokenizer.load(path.parent / "tokenizer")
    train = {undo_fim(tokens, tokenizer)[0] for tokens in stored_documents(path, "train")}
    assert train.isdisjoint(copied)
    assert any("squid" in text for text in train)


def test_no_corpus_is_an_error_that_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rorqual data fetch --profile small"):
        build_shards(DataConfig(root=tmp_path))


def test_a_corpus_without_training_text_is_an_error(tmp_path: Path) -> None:
    root = make_root(tmp_path, count=20)
    for path in (root / "corpus").iterdir():
        path.write_text(path.read_text("utf-8").replace('"held_out": false', '"held_out": true'))
    with pytest.raises(DataError, match="no training document"):
        build_shards(DataConfig(root=root))


def test_a_damaged_corpus_line_is_named(tmp_path: Path) -> None:
    root = make_root(tmp_path, count=20)
    path = root / "corpus" / "en-own.jsonl"
    path.write_text(path.read_text("utf-8") + '{"id": "cut sho', encoding="utf-8")
    with pytest.raises(DataError, match=r"en-own\.jsonl:\d+: not a document"):
        build_shards(DataConfig(root=root))
    path.unlink()
    with pytest.raises(DataError, match="not there"):
        build_shards(DataConfig(root=root))


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_a_shard_gives_back_what_was_written(tmp_path: Path, dtype: str) -> None:
    writer = ShardWriter(tmp_path / "x.bin", np.dtype(dtype))
    for tokens in ([1, 2, 3], [], [65535]):
        writer.add(tokens)
    writer.close()
    shard = open_shard(tmp_path / "x.bin")
    assert shard.tokens.tolist() == [1, 2, 3, 65535]
    assert shard.offsets.tolist() == [0, 3, 3, 4]


@pytest.mark.parametrize("damage", ["flip", "cut", "short", "magic", "gone", "unfinished"])
def test_a_damaged_shard_is_named_with_the_fix(
    tmp_path: Path, index_path: Path, damage: str
) -> None:
    folder = tmp_path / "tokens"
    shutil.copytree(index_path.parent, folder)
    shard = folder / "train-00000.bin"
    data = bytearray(shard.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "cut":
        del data[-9:]
    elif damage == "short":
        del data[30:]
    elif damage == "magic":
        data[0] ^= 1
    elif damage == "unfinished":
        data[:64] = bytes(64)
    shard.write_bytes(data)
    if damage == "gone":
        shard.unlink()
    with pytest.raises(DataError, match=r"train-00000\.bin: .*rorqual data build"):
        TokenStore(folder / "index.json", "train")


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    with pytest.raises(DataError, match="run `rorqual data build` first"):
        load_index(path)
    path.write_text('{"format": 1, "splits": 3}')
    with pytest.raises(DataError, match="not an index"):
        load_index(path)


def test_a_full_disk_is_one_line_and_leaves_the_last_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_root(tmp_path, count=40)
    config = DataConfig(root=root, vocab_size=VOCAB_SIZE)
    path = build_shards(config)
    before = path.read_bytes()

    def fail(self: ShardWriter, tokens: list[int]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "add", fail)
    with pytest.raises(CapacityError, match="the disk is full; free some space"):
        build_shards(config.model_copy(update={"fim_rate": 0.5}))
    assert path.read_bytes() == before
    assert len(TokenStore(path, "train").lengths) > 0
