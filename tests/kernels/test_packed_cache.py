"""Packed weights kept between starts: found again bit for bit, or packed anew after one warning."""

import os
import resource
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rorqual.errors import CheckpointError
from rorqual.kernels import packed_cache, packed_file
from rorqual.kernels.library import Library
from rorqual.kernels.packed_cache import PackedCache
from rorqual.kernels.packed_file import BLOCK_BYTES
from rorqual.kernels.runtime import Runtime
from rorqual.kernels.runtime_layout import Precision
from tests.conftest import small_config
from tests.kernels.runtime_cases import (
    CONFIGS,
    Model,
    batch_of,
    blocks_for,
    random_model,
    random_tokens,
)

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "int4")


@pytest.fixture
def cache(tmp_path: Path) -> PackedCache:
    return PackedCache(
        tmp_path / "packed", 1 << 30, "these files", "a model", fewest_bytes=0, spare_bytes=0
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(CONFIGS["v3"])


@pytest.fixture(scope="module")
def large() -> Model:
    """Several blocks of the file's checksums."""
    return random_model(small_config(vocab_size=8192, max_position_embeddings=640))


def start(
    model: Model,
    library: Library,
    cache: PackedCache | None,
    precision: Precision = "bf16",
    wait: bool = True,
) -> tuple[Runtime, bool]:
    """A runtime, and whether it had to read the checkpoint."""
    names: list[str] = []

    def read(name: str) -> NDArray[np.float32]:
        names.append(name)
        return model.read(name)

    runtime = Runtime(
        model.config, read, precision=precision, num_blocks=8, library=library,
        max_batch_tokens=64, packed=cache,
    )  # fmt: skip
    if wait:
        runtime.wait_until_kept()
    return runtime, bool(names)


def logits(runtime: Runtime) -> NDArray[np.float32]:
    tokens = random_tokens(40)
    return runtime.step(batch_of([tokens], [0], [blocks_for(40)], [0, 39])).logits


def entries(cache: PackedCache) -> list[Path]:
    return sorted(cache.folder.iterdir())


@contextmanager
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["v3", "qwen2"])
def test_the_second_start_maps_what_the_first_packed(
    library: Library, cache: PackedCache, name: str, precision: Precision
) -> None:
    found = random_model(CONFIGS[name])
    first, packed_first = start(found, library, cache, precision)
    second, packed_second = start(found, library, cache, precision)
    assert packed_first and not packed_second
    np.testing.assert_array_equal(logits(second), logits(first))
    (entry,) = entries(cache)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in maps if line.endswith(str(entry))]
    assert line.split()[1] == "r--s"  # nobody can write it, all share its pages
    assert entry.parent.stat().st_mode & 0o077 == 0  # weights may be private


def test_an_entry_serves_its_own_weights_only(
    library: Library, cache: PackedCache, model: Model
) -> None:
    start(model, library, cache)
    other_files = replace(cache, weights="other files")
    other_scale = Model(model.config.model_copy(update={"rms_norm_eps": 1e-3}), model.tensors)
    for packed in (
        start(model, library, cache, "int8")[1],
        start(model, library, other_files)[1],
        start(other_scale, library, cache)[1],
        start(model, library.using(isa="portable"), cache)[1],
    ):
        assert packed
    assert len(entries(cache)) == 5
    # How many threads pack or how large the cache of blocks is changes no byte.
    assert not start(model, library.using(num_threads=1), cache)[1]


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "empty":
        content.clear()
    elif how == "short":
        del content[-4096:]
    elif how == "longer":
        content += bytes(4096)
    elif how == "not ours":
        content[:8] = b"RQPACK00"
    elif how == "half a header":
        del content[40:]
    else:
        place = {"header": 100, "first": 8192, "middle": len(content) // 2}[how]
        content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "how", ["empty", "short", "longer", "not ours", "half a header", "header", "first", "middle"]
)
def test_a_damaged_entry_is_one_warning_and_packed_anew(
    library: Library, cache: PackedCache, model: Model, how: str
) -> None:
    expected = logits(start(model, library, cache)[0])
    (entry,) = entries(cache)
    damage(entry, how)
    with pytest.warns(RuntimeWarning, match="damaged") as caught:
        runtime, packed = start(model, library, cache)
    assert len(caught) == 1 and packed
    np.testing.assert_array_equal(logits(runtime), expected)
    with no_warning():  # and kept again
        runtime, packed = start(model, library, cache)
    assert not packed
    np.testing.assert_array_equal(logits(runtime), expected)


def test_every_byte_of_the_payload_is_checked(
    library: Library, cache: PackedCache, large: Model
) -> None:
    start(large, library, cache)
    (entry,) = entries(cache)
    intact = entry.read_bytes()
    places = np.random.default_rng(0).integers(4096 * 2, len(intact) - 8192, 40)
    for place in places:
        content = bytearray(intact)
        if content[place : place + 1] == b"\0" and not any(content[place - 64 : place + 64]):
            continue  # between the arrays
        content[place] ^= 1 << int(place % 8)
        entry.write_bytes(content)
        with pytest.warns(RuntimeWarning, match="are not what was written"):
            assert start(large, library, cache)[1]


def test_what_opening_leaves_out_is_checked_beside_the_engine(
    library: Library, cache: PackedCache, large: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_file, "CHECKED_BYTES", BLOCK_BYTES)
    runtime, _ = start(large, library, cache)
    expected = logits(runtime)
    (entry,) = entries(cache)
    with no_warning():
        intact, packed = start(large, library, cache)
    assert not packed
    wait_for_checks()
    np.testing.assert_array_equal(logits(intact), expected)
    content = bytearray(entry.read_bytes())
    content[BLOCK_BYTES + 100_000] ^= 1  # the second block; opening checks the first
    os.rename(entry, entry.with_suffix(".old"))  # the others keep the pages they have
    entry.write_bytes(content)
    with no_warning():
        broken, packed = start(large, library, cache)
    assert not packed
    wait_for_checks()
    with pytest.raises(CheckpointError, match=r"damaged .* packed anew"):
        logits(broken)
    assert not entry.exists()
    np.testing.assert_array_equal(logits(broken), expected)
    np.testing.assert_array_equal(logits(intact), expected)


def wait_for_checks() -> None:
    """For the threads that check what opening left out."""
    for thread in threading.enumerate():
        if thread.daemon and "_check_rest" in thread.name:
            thread.join(30)
            assert not thread.is_alive()


def test_new_weights_in_place_leave_the_file_alone(
    library: Library, cache: PackedCache, model: Model
) -> None:
    start(model, library, cache)
    (entry,) = entries(cache)
    content = entry.read_bytes()
    changed, beside = start(model, library, cache)[0], start(model, library, cache)[0]
    other = random_model(CONFIGS["v3"], seed=1)
    before = logits(beside)
    for weights in (other, model, other):
        changed.update(weights.read)
        fresh, _ = start(weights, library, None)
        np.testing.assert_array_equal(logits(changed), logits(fresh))
    np.testing.assert_array_equal(logits(beside), before)
    assert entry.read_bytes() == content


def test_new_weights_wait_until_the_old_ones_are_kept(
    library: Library, cache: PackedCache, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*arguments: Any) -> None:
        time.sleep(0.2)
        packed_file.write_packed(*arguments)

    monkeypatch.setattr(packed_cache, "write_packed", slowly)
    other = random_model(CONFIGS["v3"], seed=1)
    runtime, _ = start(model, library, cache, wait=False)
    before = logits(runtime)
    runtime.update(other.read)
    assert (logits(runtime) != before).any()
    kept, packed = start(model, library, cache)
    assert not packed
    np.testing.assert_array_equal(logits(kept), before)
    closed, _ = start(model, library, replace(cache, weights="others"), wait=False)
    closed.close()
    assert not start(model, library, replace(cache, weights="others"))[1]


def test_a_disk_that_takes_no_more_is_one_warning(
    library: Library, cache: PackedCache, model: Model
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limit[1]))
    try:
        with pytest.warns(RuntimeWarning, match="cannot be kept") as caught:
            runtime, packed = start(model, library, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert packed and len(caught) == 1 and entries(cache) == []
    np.testing.assert_array_equal(logits(runtime), logits(start(model, library, None)[0]))


def test_some_of_the_disk_stays_free(library: Library, cache: PackedCache, model: Model) -> None:
    with pytest.warns(RuntimeWarning, match="stay so; free space, or set packed_cache=off"):
        start(model, library, replace(cache, spare_bytes=1 << 60))
    assert entries(cache) == []


def test_a_folder_that_cannot_be_made_is_one_warning(
    library: Library, cache: PackedCache, model: Model
) -> None:
    cache.folder.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.warns(RuntimeWarning, match="cannot be kept") as caught:
        assert start(model, library, cache)[1]
    assert len(caught) == 1


def test_the_folder_keeps_to_its_bound_and_the_oldest_go(
    library: Library, cache: PackedCache, model: Model
) -> None:
    start(model, library, cache)
    (entry,) = entries(cache)
    bounded = replace(cache, max_bytes=int(2.5 * entry.stat().st_size))
    start(model, library, replace(bounded, weights="second"))
    for age, path in enumerate(entries(cache)):
        os.utime(path, (1000.0 + age, 1000.0 + age))
    assert not start(model, library, bounded)[1]  # used: now the younger one
    start(model, library, replace(bounded, weights="third"))
    assert len(entries(cache)) == 2
    assert not start(model, library, bounded)[1]
    assert not start(model, library, replace(bounded, weights="third"))[1]
    too_small = replace(cache, max_bytes=1000, weights="fourth")
    with no_warning():
        assert start(model, library, too_small)[1]
    assert len(entries(cache)) == 2


def test_what_a_killed_process_left_goes_after_a_while(
    library: Library, cache: PackedCache, model: Model
) -> None:
    cache.folder.mkdir()
    old, young = cache.folder / ".left-1-1", cache.folder / ".written-now-2-2"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    start(model, library, cache)
    assert not old.exists() and young.exists()


def test_small_models_are_packed_each_time(
    library: Library, cache: PackedCache, model: Model
) -> None:
    for _ in range(2):
        assert start(model, library, replace(cache, fewest_bytes=32 << 20))[1]
    assert not cache.folder.exists()


def test_starts_at_once_leave_one_whole_entry(
    library: Library, cache: PackedCache, model: Model
) -> None:
    problems: list[BaseException] = []

    def once() -> None:
        try:
            start(model, library, cache)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    (entry,) = entries(cache)
    assert entry.suffix == ".packed"
    with no_warning():
        assert not start(model, library, cache)[1]
