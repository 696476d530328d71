"""Finding, checking and using the native library, and what happens without it."""

import multiprocessing
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from rorqual.errors import ConfigError
from rorqual.kernels import library as library_module
from rorqual.kernels import ops, twins_moe
from rorqual.kernels.gemm import gemm
from rorqual.kernels.library import (
    Library,
    find_library,
    instruction_set,
    native_library,
    num_physical_cores,
    open_library,
)


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(library_module, "find_library", lambda directories: None)
    native_library.cache_clear()
    yield
    native_library.cache_clear()


@pytest.mark.usefixtures("without_library")
def test_a_missing_library_is_one_warning_and_the_twins() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = [ops.select_ops("auto") for _ in range(3)]
        assert instruction_set() is None
    assert len(caught) == 1
    assert "torch path" in str(caught[0].message)
    assert all(kinds.moe_experts is twins_moe.moe_experts for kinds in chosen)


@pytest.mark.usefixtures("without_library")
def test_asking_for_native_without_a_library_is_an_error() -> None:
    with pytest.warns(RuntimeWarning), pytest.raises(ConfigError, match="library is missing"):
        ops.select_ops("native")


def test_a_file_that_is_no_library_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "_kernels.so").write_bytes(b"not a library")
    with pytest.warns(RuntimeWarning, match="could not be opened"):
        assert open_library(find_library([str(tmp_path)])) is None


def test_a_library_of_another_version_is_a_warning(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "_ABI_VERSION", 0)
    with pytest.warns(RuntimeWarning, match="this Python needs 0"):
        assert open_library(Path(library.handle._name)) is None


def test_select_ops_gives_native_ops_and_twins(library: Library) -> None:
    assert ops.select_ops("twin").moe_experts is twins_moe.moe_experts
    for kind in ("native", "auto"):
        assert ops.select_ops(kind).moe_experts is not twins_moe.moe_experts
    assert instruction_set() == library.isa


def test_instruction_sets_and_thread_counts_are_checked(library: Library) -> None:
    assert library.isa in library.instruction_sets()
    assert {"portable", "amx-emulated"} <= set(library.instruction_sets())
    with pytest.raises(ConfigError, match="does not run on this machine"):
        library.using(isa="avx10")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="num_threads=0 must be at least 1"):
        library.using(num_threads=0)
    assert 1 <= num_physical_cores() <= 4096
    assert library.using(num_threads=7).num_threads == 7


def product(library: Library, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    a = torch.randn(70, 90, generator=torch.Generator().manual_seed(seed))
    out = torch.empty(70, 70)
    gemm(library, "NT", a, a, out)
    return out, a @ a.T


def test_kernels_called_from_many_threads_do_not_mix(library: Library) -> None:
    start = threading.Barrier(4)

    def work(seed: int) -> bool:
        start.wait()
        results = (product(library.using(num_threads=1 + seed), seed) for _ in range(30))
        return all(torch.allclose(got, wanted, atol=1e-4) for got, wanted in results)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))


def _run_in_child(library_path: str, answers: "multiprocessing.Queue[bool]") -> None:
    torch.set_num_threads(1)
    library = open_library(Path(library_path))
    assert library is not None
    got, wanted = product(library.using(num_threads=2), 3)
    answers.put(torch.allclose(got, wanted, atol=1e-4))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_starts_its_own_threads(library: Library) -> None:
    product(library.using(num_threads=3), 0)  # the parent's pool is running
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[bool] = context.Queue()
    child = context.Process(target=_run_in_child, args=(library.handle._name, answers))
    child.start()
    assert answers.get(timeout=60)
    child.join(timeout=60)
    assert child.exitcode == 0
