"""`data add`: every format in, bad input named, near and exact copies out."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rorqual.data import add_files, load_manifest
from rorqual.data.corpus import read_corpus
from rorqual.data.dedupe import Deduplicator
from rorqual.data.documents import is_held_out, normalise
from rorqual.errors import ConfigError, DataError

TEXTS = ["A whale swims north.", "鲸鱼在海洋里游。", "Krill is small and there is much of it."]


def add(root: Path, *paths: Path, name: str = "own") -> list[str]:
    """Texts of the source that these files make."""
    add_files(root, paths, name=name, language="en", licence="MIT")
    return [d.text for d in read_corpus(load_manifest(root).corpus_path(name))]


def write_jsonl(path: Path, texts: list[str]) -> Path:
    lines = [json.dumps({"text": text, "other": 1}) for text in texts]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return path


def test_text_jsonl_parquet_and_folders_give_the_same_documents(tmp_path: Path) -> None:
    folder = tmp_path / "folder" / "inner"
    folder.mkdir(parents=True)
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG\xff")
    jsonl = write_jsonl(tmp_path / "rows.jsonl", TEXTS)
    pq.write_table(pa.table({"text": TEXTS, "id": [1, 2, 3]}), tmp_path / "rows.parquet")
    assert add(tmp_path / "a", tmp_path / "folder") == TEXTS
    assert add(tmp_path / "b", jsonl) == TEXTS
    assert add(tmp_path / "c", tmp_path / "rows.parquet") == TEXTS
    assert add(tmp_path / "d", *sorted(folder.glob("*.txt"))) == TEXTS


def test_the_manifest_counts_what_was_added(tmp_path: Path) -> None:
    add(tmp_path, write_jsonl(tmp_path / "x.jsonl", [*TEXTS, TEXTS[0], " A WHALE swims north. "]))
    entry = load_manifest(tmp_path).sources["own"]
    assert (entry.documents, entry.duplicates) == (3, 2)
    assert entry.bytes == sum(len(text.encode()) for text in TEXTS)
    assert (entry.licence, entry.language, entry.registry) == ("MIT", "en", "local")


def test_adding_again_replaces_the_source(tmp_path: Path) -> None:
    add(tmp_path, write_jsonl(tmp_path / "one.jsonl", TEXTS[:1]))
    assert add(tmp_path, write_jsonl(tmp_path / "two.jsonl", TEXTS[1:])) == TEXTS[1:]
    assert list(load_manifest(tmp_path).sources) == ["own"]


def test_bytes_that_are_not_utf8_are_named_with_file_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt: byte 0xe9 at offset 3 is not UTF-8"):
        add(tmp_path / "root", path)
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2 .*begins at offset 17.*0xe9 at offset 13"):
        add(tmp_path / "root", rows)
    assert load_manifest(tmp_path / "root").sources == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 3}', "no 'text' field with a string"),
        ('{"body": "x"}', "no 'text' field with a string"),
        ('["x"]', "no 'text' field with a string"),
        ('{"text": "x"', "not JSON"),
        ('{"text": "\\ud83d alone"}', "half a surrogate pair at character 0"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n' + line, encoding="utf-8")
    with pytest.raises(DataError, match=f"rows.jsonl:2 .*{message}"):
        add(tmp_path / "root", path)


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"body": TEXTS}), path)
    with pytest.raises(DataError, match="no column 'text', it has body"):
        add(tmp_path / "root", path)
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"rows\.parquet: not a readable Parquet file"):
        add(tmp_path / "root", path)
    pq.write_table(pa.table({"text": ["x", None]}), path)
    with pytest.raises(DataError, match=r"rows\.parquet row 2"):
        add(tmp_path / "root", path)


def save_dataset(folder: Path, texts: list[str]) -> Path:
    """A folder as Dataset.save_to_disk writes it: state.json and Arrow streams."""
    folder.mkdir(parents=True)
    table = pa.table({"id": list(range(len(texts))), "text": texts})
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_saved_hugging_face_datasets_are_read(tmp_path: Path) -> None:
    assert add(tmp_path / "a", save_dataset(tmp_path / "one", TEXTS)) == TEXTS
    save_dataset(tmp_path / "splits" / "train", TEXTS[:2])
    save_dataset(tmp_path / "splits" / "test", TEXTS[2:])
    (tmp_path / "splits" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert add(tmp_path / "b", tmp_path / "splits") == TEXTS


def test_a_damaged_dataset_is_named(tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "one", TEXTS)
    rows = folder / "data-00000-of-00001.arrow"
    rows.write_bytes(rows.read_bytes()[:300])
    with pytest.raises(DataError, match=f"{folder}: not a whole dataset"):
        add(tmp_path / "root", folder)
    rows.unlink()
    with pytest.raises(DataError, match=f"{folder}: not a whole dataset"):
        add(tmp_path / "root", folder)


def test_a_missing_optional_package_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_dataset(tmp_path / "one", TEXTS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="needs pyarrow, which is not installed; run `pip"):
        add(tmp_path / "root", folder)


def test_what_is_missing_or_empty_or_badly_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        add(tmp_path / "root", tmp_path / "absent.txt")
    (tmp_path / "empty.txt").write_text(" \n\t\n")
    with pytest.raises(DataError, match="no text found"):
        add(tmp_path / "root", tmp_path / "empty.txt")
    with pytest.raises(ConfigError, match="name='a/b'"):
        add(tmp_path / "root", tmp_path / "empty.txt", name="a/b")


def test_text_is_normalised() -> None:
    assert normalise("e\u0301a\r\nb\rc \t\nd\x00\ufeff\n\n\n\n\n\ne\n") == "éa\nb\nc\nd\n\n\ne"


def test_about_one_document_in_a_hundred_is_held_out_by_name() -> None:
    count = sum(is_held_out(f"source/{number}", None) for number in range(20_000))
    assert 150 < count < 250
    assert is_held_out("austen/persuasion", r"/persuasion$")
    assert not is_held_out("austen/emma", r"/persuasion$")


def test_a_small_source_still_holds_something_out(tmp_path: Path) -> None:
    texts = [f"document {number}: " + TEXTS[number % 3] * (number + 3) for number in range(9)]
    add(tmp_path, write_jsonl(tmp_path / "rows.jsonl", texts))
    assert load_manifest(tmp_path).sources["own"].held_out_documents == 1


def test_near_copies_are_dropped_and_relatives_kept() -> None:
    sentences = [f"Sentence {number} tells of whale number {number * 37}." for number in range(60)]
    text = " ".join(sentences)
    edited = text.replace("Sentence 30", "Phrase 30")
    half = " ".join(sentences[:30]) + " ".join(f"Other words {n * 91} here." for n in range(40))
    unrelated = " ".join(f"Krill {number * 13} drifts." for number in range(60))
    deduplicator = Deduplicator()
    items = (text, edited, text.upper(), half, unrelated)
    assert [deduplicator.is_new(item) for item in items] == [True, False, False, True, True]
    assert (deduplicator.exact, deduplicator.near) == (1, 1)
