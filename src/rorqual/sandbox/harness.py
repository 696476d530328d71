"""What runs beside the candidate, in the candidate's own process (Python).

It holds nothing worth stealing: no expected value, no test, no later input. A candidate that
rewrites this code in memory can only return what it could have returned anyway.
"""

import atexit
import contextlib
import json
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from rorqual.sandbox import protocol
from rorqual.sandbox.framing import frame, read_frame, write_all
from rorqual.sandbox.values import ValueRefused, decode_value, encode_value

_FILE = "program.py"
_BALLAST_BYTES = 1 << 20


class CandidateFailed(Exception):
    """Raised in the judge where the candidate raised, met a limit or sent no plain data."""


class _Channel:
    """This end of the private channel, and the memory kept back for saying that there is none."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self.ballast = bytearray(_BALLAST_BYTES)

    def read(self) -> bytes:
        request = read_frame(self._descriptor)
        if request is None:
            os._exit(1)
        return request

    def write(self, *parts: bytes) -> None:
        write_all(self._descriptor, frame(b"".join(parts)))


def serve(descriptor: int) -> NoReturn:
    """Run what the parent sends over the channel; never returns to the caller's state."""
    channel = _Channel(descriptor)
    setup = json.loads(channel.read())
    plain, check = setup["plain"], setup["check"]
    try:
        names = _load(setup["source"])
        function = None
        if check is not None:
            names[setup["function"]] = _proxy(channel, setup["function"])
            function = _judgement(names, check, setup["function"])
        elif setup["function"] is not None:
            function = _named(names, setup["function"])
        _settle()
    except BaseException as error:
        kind, detail = _failure(channel, error)
        channel.write(kind, detail)
        os._exit(1)
    channel.write(protocol.READY)
    while True:
        request = channel.read()
        head = 1 + protocol.NONCE_BYTES
        operation, nonce, payload = request[:1], request[1:head], request[head:]
        if operation == protocol.FINISH or function is None:
            _flush()
            channel.write(protocol.VALUE, nonce)
            os._exit(0)
        kind, answer = _call(channel, function, payload, plain)
        channel.write(kind, nonce, answer)


def _load(source: str) -> dict[str, Any]:
    """Run the source as a fresh `__main__` that sees nothing of this package."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rorqual"]:
        del sys.modules[name]
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    linecache.cache[_FILE] = (len(source), None, source.splitlines(keepends=True), _FILE)
    exec(compile(source, _FILE, "exec"), module.__dict__)
    return module.__dict__


def _settle() -> None:
    """What the interpreter does when a script ends: wait for threads, run exit handlers, flush."""
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]: there is no public name
    _flush()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(BaseException):
            if stream is not None:
                stream.flush()


def _named(names: dict[str, Any], function: str) -> Callable[..., object]:
    found = names.get(function)
    if not callable(found):
        raise NameError(f"the program defines no function {function}")
    return found


def _call(
    channel: _Channel, function: Callable[..., object], payload: bytes, plain: bool
) -> tuple[bytes, bytes]:
    try:
        arguments: Sequence[Any] = decode_value(payload, plain=plain)
        return protocol.VALUE, encode_value(function(*arguments), plain=plain).encode()
    except BaseException as error:
        return _failure(channel, error)


def _judgement(names: dict[str, Any], check: str, function: str) -> Callable[[], None]:
    """The test as a call without arguments, whose return is the verdict."""
    test, candidate = _named(names, check), names[function]

    def judge() -> None:
        test(candidate)

    return judge


def _proxy(channel: _Channel, function: str) -> Callable[..., object]:
    """Stands for the candidate in the judge's process: typed data out, typed data in."""

    def candidate(*arguments: object) -> object:
        channel.write(protocol.ASK, encode_value(list(arguments), plain=False).encode())
        answer = channel.read()
        if answer[:1] != protocol.VALUE:
            raise CandidateFailed(answer[1:].decode(errors="replace"))
        return decode_value(answer[1:], plain=False)

    candidate.__name__ = function
    return candidate


def _failure(channel: _Channel, error: BaseException) -> tuple[bytes, bytes]:
    """How the failure travels; the traceback goes to stderr, without this file's frames."""
    channel.ballast = bytearray()
    memory = isinstance(error, MemoryError)
    detail = type(error).__name__
    with contextlib.suppress(BaseException):
        text = str(error)
        detail = f"{detail}: {text}"[: protocol.MAX_DETAIL] if text else detail
    if not isinstance(error, ValueRefused):
        with contextlib.suppress(BaseException):
            trace = error.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename != _FILE:
                trace = trace.tb_next
            traceback.print_exception(type(error), error, trace, limit=20)
    _flush()
    return protocol.MEMORY if memory else protocol.ERROR, detail.encode(errors="replace")
