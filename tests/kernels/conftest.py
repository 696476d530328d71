"""The native library, or a skip on a desk without a compiler and a failure in CI."""

import pytest

import rorqual.kernels as kernels
from rorqual.kernels.library import Library, find_library, native_library
from tests.conftest import IN_CI


@pytest.fixture(scope="session")
def library() -> Library:
    if find_library(list(kernels.__path__)) is None:
        message = "the native kernels are not built; run `pip install -e .`"
        pytest.fail(message) if IN_CI else pytest.skip(message)
    opened = native_library()
    assert opened is not None
    return opened
