"""One sandbox per level, shared by a file's tests, and a check that a run leaves nothing behind."""

import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rorqual.sandbox import Limits, Outcome, Sandbox, SandboxLevel, SandboxReport, probe

# Generous, so that a busy machine does not fail a test; programs that never end get less.
PATIENT = Limits(seconds=30.0)
BRIEF = Limits(seconds=0.7)
SECRET = "the-secret-5309"


@pytest.fixture(scope="session")
def report() -> SandboxReport:
    return probe()


def open_sandbox(report: SandboxReport, level: SandboxLevel) -> Sandbox:
    if report.level < level:
        pytest.skip(f"this machine gives less: {report.words}")
    return Sandbox(level, num_workers=1, at_most=level)


@pytest.fixture(scope="module", params=[SandboxLevel.NAMESPACES, SandboxLevel.LANDLOCK_SECCOMP])
def sandbox(request: pytest.FixtureRequest, report: SandboxReport) -> Iterator[Sandbox]:
    with open_sandbox(report, request.param) as opened:
        yield opened


def children_of(parent: int) -> list[int]:
    """Processes whose parent is this one, and theirs, zombies included."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found: list[int] = []
    edge = [parent]
    while edge:
        edge = [pid for pid, above in parents.items() if above in edge]
        found += edge
    return found


def zygotes() -> list[int]:
    """The warm workers of this test process."""

    def is_zygote(pid: int) -> bool:
        try:
            return b"rorqual.sandbox.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False

    return [pid for pid in children_of(os.getpid()) if is_zygote(pid)]


def leftovers() -> dict[str, list[str]]:
    """Processes beneath the workers, files in their folders, descriptors beyond the usual."""
    folders = Path(tempfile.gettempdir()).glob("rorqual-sandbox-*")
    return {
        "processes": [str(pid) for zygote in zygotes() for pid in children_of(zygote)],
        "files": [str(path) for folder in folders for path in folder.rglob("*")],
    }


@pytest.fixture
def no_trace(sandbox: Sandbox) -> Iterator[None]:
    """After the test: no process, no file, no descriptor that was not there before."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    deadline = time.monotonic() + 10
    while any(leftovers().values()) and time.monotonic() < deadline:
        time.sleep(0.02)  # a supervisor needs a moment between its report and its exit
    assert leftovers() == {"processes": [], "files": []}
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the parent's with a secret and a file anyone may write to."""
    for path in (tmp_path, *tmp_path.parents):
        if path == Path("/tmp"):
            break
        path.chmod(0o755)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "open").write_text(SECRET)
    (tmp_path / "open").chmod(0o666)
    tmp_path.chmod(0o777)
    return tmp_path


def succeeded(sandbox: Sandbox, attempts: Mapping[str, str], **names: object) -> list[str]:
    """The attempts that raised nothing, all made in one run, each on its own."""
    lines = ["import ctypes, os, socket"]
    lines += [f"{name} = {value!r}" for name, value in names.items()]
    lines += ["def call(*numbers):"]
    lines += ["    result = libc.syscall(*[ctypes.c_long(n) for n in numbers])"]
    lines += ["    if result < 0 and ctypes.get_errno() in (1, 38): raise PermissionError"]
    lines += ["libc = ctypes.CDLL(None, use_errno=True)"]
    for name, attempt in attempts.items():
        lines += [f"try: exec({attempt!r}); print({name!r})", "except Exception: pass"]
    outcome = sandbox.run_python("\n".join(lines), limits=PATIENT)
    assert outcome.completed, outcome
    assert SECRET not in outcome.stdout + outcome.stderr
    return outcome.stdout.splitlines()


def must_fail(outcome: Outcome, *statuses: str) -> None:
    assert not outcome.completed
    assert outcome.status in (statuses or ("error", "killed"))
    assert "ESCAPED" not in outcome.stdout
    assert SECRET not in outcome.stdout + outcome.stderr + outcome.detail


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, object]]:
    """Listeners in this process: a run that reaches one of them is out."""
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        name = f"rorqual-test-{os.getpid()}"
        path = f"/tmp/{name}"
        unix.bind(path)
        os.chmod(path, 0o777)
        abstract.bind("\0" + name)
        unix.listen()
        abstract.listen()
        yield {"PORT": tcp.getsockname()[1], "UNIX": path, "NAME": name}
        os.unlink(path)
