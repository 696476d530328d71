"""Measuring the machine: a plausible figure, and nothing to read is an error."""

import pytest

from rorqual.errors import ConfigError
from rorqual.kernels.library import Library, num_physical_cores
from rorqual.kernels.machine import gemm_flops_per_second, read_bytes_per_second


def test_memory_is_read_at_a_plausible_speed(library: Library) -> None:
    for isa in library.instruction_sets():
        speed = read_bytes_per_second(library.using(isa=isa), 4 << 20, repeats=3)
        assert 1e7 < speed < 1e13


def test_nothing_to_read_is_an_error(library: Library) -> None:
    with pytest.raises(ConfigError, match="nothing to read"):
        read_bytes_per_second(library, 0)


def test_matrix_products_are_timed_at_a_plausible_speed(library: Library) -> None:
    for isa in library.instruction_sets():
        chosen = library.using(isa=isa)
        speeds = gemm_flops_per_second(chosen, size=64, repeats=3)
        assert speeds.keys() >= {"fp32", "bf16"}
        assert ("bf16 pairs" in speeds) == chosen.rounds_rows
        assert all(1e6 < speed < 1e15 for speed in speeds.values())


def test_numpy_is_no_measure_for_fewer_threads_than_it_uses(library: Library) -> None:
    cores = num_physical_cores()
    assert "numpy fp32" in gemm_flops_per_second(library.using(num_threads=cores), 32, 1)
    assert "numpy fp32" not in gemm_flops_per_second(library.using(num_threads=cores + 1), 32, 1)
