"""One run, seen from the parent: its pipes, what came over them, and how it ended.

Reading is bounded at every step, since everything here was written by the candidate: output and
result bytes are counted and the run is killed beyond its limits, frames are cut by length, and only
a reply that carries the nonce of the request it answers is taken.
"""

import contextlib
import json
import os
import secrets
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from rorqual.errors import CapacityError
from rorqual.sandbox import protocol
from rorqual.sandbox.framing import FrameError, FrameReader, frame
from rorqual.sandbox.limits import Limits, Outcome, Status

_CHUNK_BYTES = 1 << 16
_REPORT_BYTES = 1 << 12
# The supervisor ends a run at its deadline; a parent that waits this much longer has lost it.
_LOST_AFTER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a run answered: READY, VALUE, ERROR, MEMORY or ASK, and the bytes with it."""

    kind: bytes
    payload: bytes


@dataclass(slots=True)
class _Output:
    """One of the run's output pipes; a flood is cut at the limit the two share."""

    descriptor: int
    data: bytearray = field(default_factory=bytearray)


class Job:
    """A started run. `close` ends it, whatever state it is in."""

    def __init__(self, zygote: socket.socket, limits: Limits, *, node: bool, stdin: bytes):
        self._limits = limits
        self._selector = selectors.DefaultSelector()
        self._open: set[int] = set()
        self._frames: deque[bytes] = deque()
        self._reader = FrameReader(limits.result_bytes)
        self._report: dict[str, Any] | None = None
        self._cut: Status | None = None
        self._detail = ""
        self._nonce = b""
        self._started = False
        self.completed = False
        ends = [*os.pipe(), *os.pipe(), *os.pipe()]
        channel, channel_there = socket.socketpair()
        control, control_there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stdin, self._outputs = ends[1], (_Output(ends[2]), _Output(ends[4]))
        self._channel, self._control = channel, control
        self._to_stdin, self._to_channel = bytearray(stdin), bytearray()
        self._open |= {ends[1], ends[2], ends[4]}
        theirs = [ends[0], ends[3], ends[5], channel_there.fileno(), control_there.fileno()]
        job = {
            "seconds": limits.seconds,
            "memory_bytes": limits.memory_bytes,
            "processes": limits.processes,
            "node": node,
        }
        try:
            socket.send_fds(zygote, [json.dumps(job).encode()], theirs)
        except OSError as error:
            self.close()
            raise CapacityError(f"sandbox worker is gone: {error}; make a new Sandbox") from None
        finally:
            for descriptor in (ends[0], ends[3], ends[5]):
                os.close(descriptor)
            channel_there.close()
            control_there.close()
        self._started = True
        self._lost_at = time.monotonic() + limits.seconds + _LOST_AFTER_SECONDS
        self._watch()

    @property
    def ended(self) -> bool:
        """Whether the run is known to be over, or told to be."""
        return self._report is not None or self._cut is not None

    def send(self, payload: bytes) -> None:
        """Queue a frame for the run."""
        self._to_channel += frame(payload)
        self._flush_channel()

    def ask(self, operation: bytes, payload: bytes = b"") -> None:
        """Queue a request with a fresh nonce."""
        self._nonce = secrets.token_bytes(protocol.NONCE_BYTES)
        self.send(operation + self._nonce + payload)

    def reply(self) -> Reply | None:
        """The run's next frame; None once it has ended. A reply without the nonce ends it."""
        while not self._frames:
            if self.ended:
                return None
            self._step()
        received = self._frames.popleft()
        kind, payload = received[:1], received[1:]
        if self._nonce and kind in (protocol.VALUE, protocol.ERROR, protocol.MEMORY):
            if not secrets.compare_digest(payload[: protocol.NONCE_BYTES], self._nonce):
                self._end("error", "sent a reply without its nonce")
                return None
            payload = payload[protocol.NONCE_BYTES :]
        return Reply(kind, payload)

    def finish(self) -> None:
        """Ask for the closing word and wait for the run's end."""
        self.ask(protocol.FINISH)
        answer = self.reply()
        self.completed = answer is not None and answer.kind == protocol.VALUE
        self.wait()

    def fail(self, reply: Reply | None) -> None:
        """Note why the run did not get ready (or answered out of turn) and end it."""
        if reply is None:
            self.wait()
        elif reply.kind in (protocol.ERROR, protocol.MEMORY):
            status: Status = "memory" if reply.kind == protocol.MEMORY else "error"
            self._end(status, reply.payload.decode(errors="replace"))
        else:
            self._end("error", "broke the protocol")

    def wait(self) -> None:
        """Until everything of the run is dead, and what it wrote is read."""
        while self._report is None:
            self._step()
        for output in self._outputs:
            while output.descriptor in self._open and self._read_output(output):
                pass

    def outcome(self) -> Outcome:
        """How the run ended; call after `wait`."""
        report = self._report
        assert report is not None, "outcome before the end"
        if report["failure"]:
            raise CapacityError(f"sandbox layer failed in a run: {report['failure']}")
        stdout, stderr = (o.data.decode(errors="replace") for o in self._outputs)
        status, detail = self._status(report, stderr)
        return Outcome(
            status=status,
            stdout=stdout,
            stderr=stderr,
            seconds=report["seconds"],
            completed=self.completed and status == "ok",
            detail=detail,
        )

    def close(self) -> None:
        """End the run if it still goes, and let go of every descriptor."""
        try:
            if self._started and self._report is None:
                with contextlib.suppress(OSError):
                    self._control.send(b"k")
                    self._control.settimeout(_LOST_AFTER_SECONDS)
                    self._receive_report()
        finally:
            self._selector.close()
            for descriptor in self._open:
                os.close(descriptor)
            self._open.clear()
            self._channel.close()
            self._control.close()

    def _status(self, report: dict[str, Any], stderr: str) -> tuple[Status, str]:
        if self._cut is not None:
            return self._cut, self._detail
        if report["timed_out"]:
            return "timeout", f"did not end in {self._limits.seconds:g} s"
        if report["signal"]:
            if "JavaScript heap out of memory" in stderr:
                return "memory", "the heap is full"
            return "killed", f"died of signal {report['signal']}"
        if self.completed:
            return "ok", ""
        return "error", "ended without the closing word (exit, or a closed channel)"

    def _watch(self) -> None:
        for descriptor in self._open:
            os.set_blocking(descriptor, False)
        self._channel.setblocking(False)
        for output in self._outputs:
            self._selector.register(output.descriptor, selectors.EVENT_READ, output)
        self._selector.register(self._channel, selectors.EVENT_READ, "channel")
        self._selector.register(self._control, selectors.EVENT_READ, "control")
        if self._to_stdin:
            self._selector.register(self._stdin, selectors.EVENT_WRITE, "stdin")
        else:
            self._close_one(self._stdin)

    def _step(self) -> None:
        left = self._lost_at - time.monotonic()
        events = self._selector.select(max(left, 0.0))
        if not events and left <= 0:
            raise CapacityError("sandbox worker does not answer; make a new Sandbox")
        for key, mask in events:
            if isinstance(key.data, _Output):
                self._read_output(key.data)
            elif key.data == "stdin":
                self._flush_stdin()
            elif key.data == "control":
                self._read_report()
            else:
                if mask & selectors.EVENT_WRITE:
                    self._flush_channel()
                if mask & selectors.EVENT_READ:
                    self._read_channel()

    def _read_output(self, output: _Output) -> bool:
        """Read once; False where there is nothing more to read now."""
        try:
            data = os.read(output.descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(output.descriptor)
            self._close_one(output.descriptor)
            return False
        room = self._limits.output_bytes - sum(len(o.data) for o in self._outputs)
        output.data += data[:room]
        if len(data) > room:
            self._end("output", f"wrote more than {self._limits.output_bytes} bytes")
            return False
        return True

    def _read_channel(self) -> bool:
        """Read once; False where there is nothing more to read now."""
        try:
            data = self._channel.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(self._channel)
            return False
        try:
            self._frames += self._reader.feed(data)
        except FrameError as error:
            self._end("output", str(error))
            return False
        return True

    def _read_report(self) -> None:
        # What the run wrote before its end comes first: it is all there by now.
        while self._channel in self._selector.get_map() and self._read_channel():
            pass
        message = self._receive_report()
        self._selector.unregister(self._control)
        if not message:
            raise CapacityError("sandbox worker died in a run; make a new Sandbox")
        self._report = json.loads(message)

    def _receive_report(self) -> bytes:
        try:
            return self._control.recv(_REPORT_BYTES)
        except ConnectionResetError:
            # The supervisor left before it read our last word; its report still waits here.
            return self._control.recv(_REPORT_BYTES)

    def _flush_stdin(self) -> None:
        try:
            del self._to_stdin[: os.write(self._stdin, self._to_stdin)]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._to_stdin.clear()
        if not self._to_stdin:
            self._selector.unregister(self._stdin)
            self._close_one(self._stdin)

    def _flush_channel(self) -> None:
        if self._to_channel:
            try:
                del self._to_channel[: self._channel.send(self._to_channel)]
            except BlockingIOError:
                pass
            except OSError:
                self._to_channel.clear()  # nobody reads it any more
        if self._channel in self._selector.get_map():
            writing = selectors.EVENT_WRITE if self._to_channel else 0
            self._selector.modify(self._channel, selectors.EVENT_READ | writing, "channel")

    def _end(self, status: Status, detail: str) -> None:
        """Have the run killed for a reason; the first reason stands."""
        if self._cut is None:
            self._cut, self._detail = status, detail
            self._frames.clear()
            with contextlib.suppress(OSError):
                self._control.send(b"k")

    def _close_one(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        os.close(descriptor)
