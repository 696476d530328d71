"""Measuring the machine: a plausible figure, and nothing to read is an error."""

import pytest

from rorqual.errors import ConfigError
from rorqual.kernels.library import Library
from rorqual.kernels.machine import read_bytes_per_second


def test_memory_is_read_at_a_plausible_speed(library: Library) -> None:
    for isa in library.instruction_sets():
        speed = read_bytes_per_second(library.using(isa=isa), 4 << 20, repeats=3)
        assert 1e7 < speed < 1e13


def test_nothing_to_read_is_an_error(library: Library) -> None:
    with pytest.raises(ConfigError, match="nothing to read"):
        read_bytes_per_second(library, 0)
