"""What level a worker really gives: its layers' own word, then a hostile run that tries them."""

import json
import os
import sys
import tempfile
from collections.abc import Mapping

from rorqual.sandbox import protocol
from rorqual.sandbox.levels import Layer, SandboxLevel, SandboxReport
from rorqual.sandbox.limits import Limits, Outcome
from rorqual.sandbox.worker import Worker, find_node

# Each attempt must fail with OSError; the names of those that did not are printed.
_HOSTILE = """
import json, os, socket
outside = {outside!r}
def network(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
def outside_read(): open(outside).close()
def outside_write(): open(outside, "a").close()
def outside_create(): os.mkdir(outside + "-made")
def new_process():
    if os.fork() == 0: os._exit(0)
def signal_parent(): os.kill(os.getppid() or {parent}, 0)
succeeded = []
for attempt in (network, outside_read, outside_write, outside_create, new_process, signal_parent):
    try:
        attempt()
        succeeded.append(attempt.__name__)
    except OSError:
        pass
print(json.dumps(succeeded))
"""
_LAYERS = ("namespaces", "landlock", "seccomp")
_PROBE_LIMITS = Limits(seconds=20.0)


def probe() -> SandboxReport:
    """The level this machine gives, found by starting a worker and attacking it."""
    if not sys.platform.startswith("linux"):
        return no_linux()
    worker = Worker(at_most=SandboxLevel.NAMESPACES, node=find_node())
    try:
        return examine(worker)
    finally:
        worker.close()


def no_linux() -> SandboxReport:
    """The report of a machine whose kernel has none of the layers."""
    found = f"{sys.platform} has none of the layers used here; a Linux machine or container does"
    return SandboxReport(SandboxLevel.NONE, (Layer("kernel", False, found),))


def examine(worker: Worker) -> SandboxReport:
    """Attack a worker and say what held."""
    found = worker.found
    claimed = _claimed(found)
    outcome, succeeded = _attack(worker)
    held = outcome.completed and (claimed < SandboxLevel.LANDLOCK_SECCOMP or not succeeded)
    words = "nothing got out" if not succeeded else f"succeeded: {', '.join(succeeded)}"
    if not outcome.completed:
        words = f"the run failed: {outcome.detail or outcome.stderr[-200:]}"
    level = claimed if held else SandboxLevel.RLIMITS if outcome.completed else SandboxLevel.NONE
    layers = [
        Layer("resource limits", outcome.completed, "set in every run"),
        *(Layer(name, not found[name], found[name] or "held when tried") for name in _LAYERS),
        _user_layer(found),
        Layer("attack", held and not succeeded, words),
    ]
    return SandboxReport(level, tuple(layers))


def _user_layer(found: Mapping[str, str]) -> Layer:
    """Whom a run is: never root with its privileges, at best nobody."""
    if os.geteuid() != 0:
        return Layer("user", False, f"runs as you, user {os.geteuid()}")
    dropped = not found["namespaces"] or not found["user"]
    words = found["user"] or "cannot be dropped"
    return Layer("user", dropped, "runs as nobody" if dropped else f"root, no privilege: {words}")


def _claimed(found: Mapping[str, str]) -> SandboxLevel:
    if not found["namespaces"] and not found["seccomp"]:
        return SandboxLevel.NAMESPACES
    if not found["landlock"] and not found["seccomp"]:
        return SandboxLevel.LANDLOCK_SECCOMP
    return SandboxLevel.RLIMITS


def _attack(worker: Worker) -> tuple[Outcome, list[str]]:
    with tempfile.TemporaryDirectory(prefix="rorqual-probe-") as folder:
        os.chmod(folder, 0o777)
        outside = os.path.join(folder, "outside")
        with open(outside, "w", encoding="utf-8") as file:
            file.write("secret")
        os.chmod(outside, 0o666)
        source = _HOSTILE.format(outside=outside, parent=os.getpid())
        job = worker.start(_PROBE_LIMITS)
        try:
            setup = {"source": source, "function": None, "check": None, "plain": True}
            job.send(json.dumps(setup).encode())
            ready = job.reply()
            if ready is not None and ready.kind == protocol.READY:
                job.finish()
            else:
                job.fail(ready)
            job.wait()
            outcome = job.outcome()
        finally:
            job.close()
    succeeded: list[str] = json.loads(outcome.stdout) if outcome.completed else []
    return outcome, succeeded
