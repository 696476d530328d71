"""The GGUF container: what is written is read, and no corrupt or hostile file gets further."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rorqual.checkpoint.convert import convert
from rorqual.checkpoint.gguf_file import GgufFile
from rorqual.checkpoint.gguf_shards import GgufReader
from rorqual.checkpoint.gguf_writing import GgufSource, write_gguf
from rorqual.checkpoint.weights import open_weights
from rorqual.errors import CheckpointError

MATRIX = np.arange(96, dtype=np.float32).reshape(3, 32)
STACK = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
METADATA = {
    "general.architecture": "llama",
    "a.flag": True,
    "a.count": 7,
    "a.scale": 0.5,
    "a.words": ["one", "zwei", "三"],
    "a.kinds": [1, 3, 4],
}
Tiny = Callable[[str], Path]


def source(name: str, values: NDArray[np.float32]) -> GgufSource:
    def pieces() -> Iterator[NDArray[np.float32]]:
        yield from values

    return GgufSource(name, "F32", values.shape, pieces)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a file with two tensors and every kind of metadata that we write."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    write_gguf(path, METADATA, [source("matrix", MATRIX), source("stack", STACK)])
    return path.read_bytes()


def put(tmp_path: Path, data: bytes, name: str = "x.gguf") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_what_is_written_is_read(small: bytes, tmp_path: Path) -> None:
    file = GgufFile(put(tmp_path, small))
    kinds = file.metadata.pop("a.kinds")
    assert kinds.tolist() == METADATA["a.kinds"]
    assert file.metadata == {key: METADATA[key] for key in METADATA if key != "a.kinds"}
    np.testing.assert_array_equal(file.read("matrix"), MATRIX)
    np.testing.assert_array_equal(file.read("stack"), STACK)
    np.testing.assert_array_equal(file.read("stack", 1), STACK[1])
    assert all(entry.start % 32 == 0 for entry in file.entries.values())


def test_a_file_cut_anywhere_is_refused(small: bytes, tmp_path: Path) -> None:
    padding = -STACK.nbytes % 32  # behind the last tensor, nobody misses it
    for size in range(len(small) - padding):
        with pytest.raises(CheckpointError):
            GgufFile(put(tmp_path, small[:size]))


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused_never_worse(
    small: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    changed = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(small) - 1))
        changed[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    try:
        file = GgufFile(put(tmp_path, bytes(changed)))
        for name in file.entries:
            file.read(name)
    except CheckpointError as error:
        assert "\n" not in str(error)


def entry(name: bytes, dimensions: tuple[int, ...], kind: int, offset: int) -> bytes:
    head = struct.pack("<Q", len(name)) + name + struct.pack("<I", len(dimensions))
    return head + struct.pack(f"<{len(dimensions)}QIQ", *dimensions, kind, offset)


def container(*entries: bytes, tensors: int | None = None, metadata: int = 0) -> bytes:
    count = len(entries) if tensors is None else tensors
    return b"GGUF" + struct.pack("<IQQ", 3, count, metadata) + b"".join(entries) + bytes(4096)


def array_of(kind: int, count: int) -> bytes:
    """A file whose only content is the metadata array `k`."""
    value = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, kind, count)
    return container(value, tensors=0, metadata=1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK" + bytes(40), "not a GGUF file"),
        (b"GGUF" + bytes(3), "too short"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (container(tensors=2**60), "1152921504606846976 tensors"),
        (container(metadata=2**62), "metadata entries"),
        (container(entry(b"a", (2**62, 2**62), 0, 0)), "truncated"),
        (container(entry(b"a", (0,), 0, 0)), "expected positive ones"),
        (container(entry(b"a", (31,), 8, 0)), "whole blocks of 32"),
        (container(entry(b"a", (1, 1, 1, 1, 1), 0, 0)), "5 dimensions"),
        (container(entry(b"a", (1,), 77, 0)), "ggml type 77"),
        (container(entry(b"a", (1,), 0, 7)), "starts at 7"),
        (container(entry(b"a", (1,), 0, 2**63)), "truncated"),
        (container(entry(b"a", (16,), 0, 0), entry(b"b", (16,), 0, 32)), "a and b overlap"),
        (container(entry(b"a", (1,), 0, 0), entry(b"a", (1,), 0, 32)), "occurs twice"),
        (container(entry(b"\xff", (1,), 0, 0)), "not UTF-8"),
        (container(struct.pack("<Q", 2**40), tensors=1), "1099511627776 bytes"),
        (array_of(4, 2**50), "numbers of k"),
        (array_of(8, 2**50), "strings of k"),
        (array_of(9, 1), "array of type 9"),
    ],
)
def test_a_hostile_header_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        GgufFile(put(tmp_path, data))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_metadata_that_does_not_describe_a_model_is_refused(small: bytes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither llama\.vocab_size"):
        open_weights(put(tmp_path, small))
    write_gguf(tmp_path / "other.gguf", {"general.architecture": "gemma"}, [])
    with pytest.raises(CheckpointError, match="architecture 'gemma'"):
        open_weights(tmp_path / "other.gguf")


def test_tensors_of_another_shape_or_kind_are_refused(
    tiny_directory: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, change: Callable[[list[GgufSource]], list[GgufSource]]) -> None:
        monkeypatch.setattr(
            "rorqual.checkpoint.convert.write_gguf",
            lambda file, metadata, sources: write_gguf(file, metadata, change(sources)),
        )
        convert(tiny_directory("llama"), path, to="gguf", dtype="f32")

    write(tmp_path / "less.gguf", lambda sources: sources[:-1])
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_down\.weight is missing"):
        open_weights(tmp_path / "less.gguf")
    write(tmp_path / "more.gguf", lambda sources: [*sources, source("blk.0.odd.weight", MATRIX)])
    with pytest.raises(CheckpointError, match=r"blk\.0\.odd\.weight has no place"):
        open_weights(tmp_path / "more.gguf")
    write(
        tmp_path / "odd.gguf", lambda sources: [source("token_embd.weight", MATRIX), *sources[1:]]
    )
    with pytest.raises(CheckpointError, match=r"shape \[3, 32\]"):
        open_weights(tmp_path / "odd.gguf")


def test_shards_read_as_one_file(tmp_path: Path) -> None:
    names = [tmp_path / f"m-{number:05d}-of-00002.gguf" for number in (1, 2)]
    write_gguf(names[0], METADATA | {"split.count": 2}, [source("matrix", MATRIX)])
    with pytest.raises(CheckpointError, match="one of 2 shards; fetch it too"):
        GgufReader(names[0])
    write_gguf(names[1], {"split.count": 2}, [source("stack", STACK)])
    reader = GgufReader(names[0])
    np.testing.assert_array_equal(reader.read("matrix"), MATRIX)
    np.testing.assert_array_equal(reader.read("stack", 1), STACK[1])
    assert reader.metadata["general.architecture"] == "llama"
    with pytest.raises(CheckpointError, match="give the first one"):
        GgufReader(names[1])
    write_gguf(names[1], {"split.count": 2}, [source("matrix", MATRIX)])
    with pytest.raises(CheckpointError, match="do not belong together"):
        GgufReader(names[0])
    with pytest.raises(CheckpointError, match="the names they were published with"):
        GgufReader(names[0].rename(tmp_path / "renamed.gguf"))
