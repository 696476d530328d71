"""A warm worker: one zygote process, and the socket on which it is asked for runs."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rorqual.errors import CapacityError
from rorqual.sandbox.job import Job
from rorqual.sandbox.levels import SandboxLevel
from rorqual.sandbox.limits import Limits
from rorqual.sandbox.scratch import remove_tree

_HERE = Path(__file__).resolve().parent
# The zygote imports this folder's modules by their own names, but not the package's `__init__`,
# which imports the parent's side: a small process forks faster.
_LAUNCH = f"""
import sys, types
for name, path in (("rorqual", {str(_HERE.parent)!r}), ("rorqual.sandbox", {str(_HERE)!r})):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from rorqual.sandbox.zygote import main
main()
"""
_START_SECONDS = 60.0
_ELF = b"\x7fELF"


class Worker:
    """Starts in about a tenth of a second; `found` says which layers hold ("" for those)."""

    def __init__(self, *, at_most: SandboxLevel, node: str | None):
        self.folder = tempfile.mkdtemp(prefix="rorqual-sandbox-")
        os.chmod(self.folder, 0o711)  # a run may be another user, with a folder of its own inside
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = {
            "control": theirs.fileno(),
            "folder": self.folder,
            "at_most": int(at_most),
            "node": node,
            "node_harness": (_HERE / "harness_node.js").read_text(encoding="utf-8"),
        }
        try:
            # Not -I: it would ignore the hash seed, and sets would differ from worker to worker.
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-P", "-B", "-c", _LAUNCH, json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PYTHONHASHSEED": "0"},
                pass_fds=[theirs.fileno()],
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the parent
            )
        except BaseException:
            self._socket.close()
            os.rmdir(self.folder)
            raise
        finally:
            theirs.close()
        self._hello: Mapping[str, str] | None = None

    @property
    def found(self) -> Mapping[str, str]:
        """Layer by layer "" where it holds, else the reason; waits for the zygote's start."""
        if self._hello is None:
            self._hello = self._read_hello()
            if not self._hello["namespaces"]:
                os.rmdir(self.folder)  # it was the jail's mount point; nothing lies in it here
        return self._hello

    def start(self, limits: Limits, *, node: bool = False, stdin: bytes = b"") -> Job:
        """Begin a run."""
        return Job(self._socket, limits, node=node, stdin=stdin)

    def close(self) -> None:
        """Stop the zygote and remove what it may have left; a second call does nothing."""
        self._socket.close()
        self._kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
        with contextlib.suppress(FileNotFoundError):
            remove_tree(self.folder)

    def _read_hello(self) -> dict[str, str]:
        self._socket.settimeout(_START_SECONDS)
        message = b""
        with contextlib.suppress(TimeoutError):
            message = self._socket.recv(1 << 16)
        if not message:
            trace = self._last_words()
            self.close()
            raise CapacityError(f"sandbox worker did not start: {trace}")
        self._socket.settimeout(None)
        return json.loads(message)

    def _kill(self) -> None:
        """The zygote and its supervisors, whose runs die with them; before it is reaped."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _last_words(self) -> str:
        self._kill()
        _, errors = self._process.communicate()
        lines = errors.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no reason given"


def find_node() -> str | None:
    """The real Node binary on PATH or beside this Python, None if there is none."""
    beside = os.path.join(os.path.dirname(sys.executable), "node")
    found = shutil.which("node") or shutil.which(beside)
    if found is None:
        return None
    with open(found, "rb") as binary:
        if binary.read(len(_ELF)) == _ELF:
            return os.path.realpath(found)
    # A package's wrapper script: ask it for the binary it starts.
    asked = subprocess.run(
        [found, "-p", "process.execPath"], capture_output=True, text=True, check=False
    )
    path = asked.stdout.strip()
    return os.path.realpath(path) if asked.returncode == 0 and os.path.isfile(path) else None
