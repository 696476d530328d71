"""The native library: found, checked and opened on first use.

`_kernels.so` is plain C behind ctypes, built by CMakeLists.txt; this file declares no kernel but
binds any by name, so that each `fused_*.py` keeps its C signature beside its shape checks. Nothing
here needs torch. A missing library is no error: `native_library()` returns None after one warning,
and callers take the twins.

NOTE: a `Library` is a value (library handle, instruction set, thread count). Tests ask for another
instruction set or thread count with `Library.using`; no process-wide state changes.
"""

import ctypes
import functools
import os
import platform
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import rorqual.kernels as package
from rorqual.errors import CapacityError, ConfigError

InstructionSet = Literal["portable", "avx2", "avx512", "amx", "amx-emulated"]

_ABI_VERSION: Final = 3
_ISA_NAMES: Final[tuple[InstructionSet, ...]] = get_args(InstructionSet)
_OUT_OF_MEMORY: Final = 1
_BAD_INDEX: Final = 2


@dataclass(frozen=True)
class Library:
    """An open native library, with the instruction set and thread count its calls use."""

    handle: ctypes.CDLL
    isa: InstructionSet
    num_threads: int

    def using(
        self, *, isa: InstructionSet | None = None, num_threads: int | None = None
    ) -> "Library":
        """The same library with another instruction set or thread count."""
        if isa is not None and isa not in self.instruction_sets():
            available = ", ".join(self.instruction_sets())
            raise ConfigError(f"isa={isa!r} does not run on this machine; use one of {available}")
        if num_threads is not None and num_threads < 1:
            raise ConfigError(f"num_threads={num_threads} must be at least 1")
        return replace(self, isa=isa or self.isa, num_threads=num_threads or self.num_threads)

    def instruction_sets(self) -> tuple[InstructionSet, ...]:
        """What this machine runs, slowest first, "amx-emulated" (for tests) last."""
        return tuple(
            name for code, name in enumerate(_ISA_NAMES) if self.handle.rq_isa_available(code)
        )

    @property
    def rounds_rows(self) -> bool:
        """Whether bf16 weights multiply activations rounded to bf16, and bf16 caches queries and
        weights of attention, as on GPUs: with AVX-512 BF16, which takes two of them at a time.
        Elsewhere these stay fp32."""
        return self.isa in ("avx512", "amx") and bool(self.handle.rq_has_bf16_pairs())

    def call(self, name: str, argtypes: Sequence[Any], *arguments: Any) -> None:
        """Calls kernel `name(isa, threads, *arguments)`; a bad status becomes an exception."""
        function = _bind(self.handle, name, tuple(argtypes))
        status = function(_ISA_NAMES.index(self.isa), self.num_threads, *arguments)
        if status == _OUT_OF_MEMORY:
            raise CapacityError(f"{name}: out of memory for scratch buffers; use a smaller batch")
        assert status != _BAD_INDEX, f"{name}: an expert index is outside [0, E)"
        assert status == 0, f"{name} returned status {status}"


@functools.cache
def _bind(handle: ctypes.CDLL, name: str, argtypes: tuple[Any, ...]) -> Callable[..., int]:
    function = getattr(handle, name)
    function.argtypes = [ctypes.c_int, ctypes.c_int, *argtypes]
    function.restype = ctypes.c_int
    return function


def num_physical_cores() -> int:
    """Cores this process may use: hyperthreads counted once, affinity and CPU quota obeyed."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return max(1, os.cpu_count() or 1)
    siblings = {
        _read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or cpu
        for cpu in cpus
    }
    quota, _, period = (_read("/sys/fs/cgroup/cpu.max") or "max").partition(" ")
    limit = len(siblings) if quota == "max" else max(1, int(quota) // int(period))
    return max(1, min(len(siblings), limit))


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return None


def find_library(directories: Sequence[str]) -> Path | None:
    """The first `_kernels.so` in the directories (source tree, or where the wheel put it)."""
    for directory in directories:
        path = Path(directory) / "_kernels.so"
        if path.is_file():
            return path
    return None


def open_library(path: Path | None) -> Library | None:
    """Opens and checks a library; None with a warning when it is missing or of another version."""
    if path is None:
        return _warn_torch_path("the native kernels are not built")
    try:
        handle = ctypes.CDLL(str(path))
    except OSError as error:
        return _warn_torch_path(f"the native kernels could not be opened ({error})")
    version = handle.rq_abi_version()
    if version != _ABI_VERSION:
        return _warn_torch_path(
            f"{path} has ABI version {version}, this Python needs {_ABI_VERSION}"
        )
    return Library(handle, _ISA_NAMES[handle.rq_best_isa()], num_physical_cores())


def _warn_torch_path(reason: str) -> None:
    fix = "build them with `pip install .` and a C++ compiler"
    message = f"{reason} on {platform.machine()}: running on the slower torch path; {fix}"
    warnings.warn(message, RuntimeWarning, stacklevel=2)


@functools.cache
def native_library() -> Library | None:
    """The library of this installation, opened once; None if there is none (warned once)."""
    return open_library(find_library(list(package.__path__)))


def instruction_set() -> InstructionSet | None:
    """What native kernels run on here, for reports; None when they run on torch."""
    library = native_library()
    return library.isa if library else None
