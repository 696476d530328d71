"""Attempts to get out, to look in, to use too much, or to lie about the result; none may succeed.

Every attempt runs at two levels. One that gets through prints ESCAPED or runs to its end; both are
failures here. After each, no process, file or descriptor may be left.
"""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rorqual.sandbox import Limits, Sandbox, SandboxLevel
from rorqual.sandbox.kernel import MACHINE
from tests.sandbox.conftest import BRIEF, PATIENT, SECRET, must_fail, succeeded

pytestmark = pytest.mark.usefixtures("no_trace")


NETWORK = {
    "tcp": "socket.create_connection(('127.0.0.1', PORT), 5)",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    "tcp6": "socket.socket(socket.AF_INET6, socket.SOCK_STREAM).connect(('::1', PORT))",
    "listen": "socket.create_server(('127.0.0.1', 0))",
    "unix": "socket.socket(socket.AF_UNIX).connect(UNIX)",
    "abstract": "socket.socket(socket.AF_UNIX).connect('\\0' + NAME)",
    "unix datagram": "socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b'x', UNIX)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).bind((0, 0))",
    "dns": "assert socket.getaddrinfo('localhost', 80, type=socket.SOCK_STREAM)",
    "asyncio": "import asyncio; asyncio.run(asyncio.open_connection('127.0.0.1', PORT))",
}


def test_network_is_out_of_reach(sandbox: Sandbox, servers: dict[str, object]) -> None:
    assert succeeded(sandbox, NETWORK, **servers) == []


WRITES = {
    "create": "open(OUT + '/made', 'w')",
    "overwrite": "open(OUT + '/open', 'w')",
    "append": "open(OUT + '/open', 'a').write('x')",
    "truncate": "os.truncate(OUT + '/open', 0)",
    "delete": "os.unlink(OUT + '/open')",
    "mkdir": "os.mkdir(OUT + '/made')",
    "rename out": "open('x', 'w'); os.rename('x', OUT + '/made')",
    "rename in": "os.rename(OUT + '/open', 'x')",
    "hard link": "os.link(OUT + '/open', 'x'); open('x', 'a')",
    "symlink there": "os.symlink('/', OUT + '/made')",
    "through a symlink": "os.symlink(OUT, 'x'); open('x/made', 'w')",
    "chmod": "os.chmod(OUT + '/open', 0)",
    "chown": "os.chown(OUT + '/open', 0, 0)",
    "utime": "os.utime(OUT + '/open', (0, 0))",
    "xattr": "os.setxattr(OUT + '/open', 'user.x', b'1')",
    "interpreter": "open(os.__file__, 'a')",
    "root": "open('/made', 'w')",
    "tmp": "open('/tmp/rorqual-made', 'w')",
    "shm": "open('/dev/shm/rorqual-made', 'w')",
    "device": "os.mknod('x', 0o60666, os.makedev(8, 0))",
    "setuid": "open('x', 'w'); os.chmod('x', 0o4755)",
}


def test_nothing_outside_is_written(sandbox: Sandbox, outside: Path) -> None:
    def state() -> dict[str, tuple[str, int, float]]:
        return {
            p.name: (p.read_text(), p.stat().st_mode, p.stat().st_mtime) for p in outside.iterdir()
        }

    before = state()
    assert succeeded(sandbox, WRITES, OUT=str(outside)) == []
    assert state() == before
    assert not os.path.exists("/tmp/rorqual-made")


READS = {
    "private": "open(OUT + '/secret')",
    "world-readable": "open(OUT + '/open')",
    "symlink": "os.symlink(OUT + '/open', 'x'); open('x')",
    "listing": "os.listdir(OUT)",
    "path descriptor": "open(os.open(OUT, os.O_PATH) and '/proc/self/fd/5/open')",
    "environment": "open(f'/proc/{PARENT}/environ', 'rb')",
    "memory": "open(f'/proc/{PARENT}/mem', 'rb')",
    "own parent": "open(f'/proc/{os.getppid()}/environ', 'rb')",
    "root link": "os.listdir(f'/proc/{PARENT}/root')",
    "process list": "os.listdir('/proc')",
    "home": "os.listdir(os.path.expanduser('~root'))",
    "passwd": "open('/etc/passwd')",
    "packages": "os.listdir(os.path.dirname(os.__file__) + '/site-packages').remove('')",
    "this repository": "open(REPOSITORY)",
}


def test_nothing_outside_is_read(sandbox: Sandbox, outside: Path) -> None:
    names = {"OUT": str(outside), "PARENT": os.getpid(), "REPOSITORY": __file__}
    assert succeeded(sandbox, READS, **names) == []


def test_descriptors_lead_nowhere(sandbox: Sandbox) -> None:
    source = """
import os, stat
kinds = {}
for fd in range(200):
    try:
        kinds[fd] = stat.S_IFMT(os.fstat(fd).st_mode)
    except OSError:
        pass
print(sorted(kinds))
"""
    assert sandbox.run_python(source, limits=PATIENT).stdout == "[0, 1, 2, 3]\n"


def test_environment_and_arguments_are_empty(sandbox: Sandbox) -> None:
    os.environ["RORQUAL_TEST_KEY"] = SECRET
    try:
        source = "import os, sys\nprint(dict(os.environ), sys.argv, 'rorqual' in sys.modules)"
        outcome = sandbox.run_python(source, limits=PATIENT)
    finally:
        del os.environ["RORQUAL_TEST_KEY"]
    assert outcome.stdout == "{} ['program.py'] False\n"


CALLS = {  # x86-64 numbers and arguments
    "ptrace attach": (101, 16, "PARENT"),
    "process_vm_readv": (310, "PARENT", 0, 0, 0, 0, 0),
    "process_vm_writev": (311, "PARENT", 0, 0, 0, 0, 0),
    "kill": (62, "PARENT", 0),
    "pidfd_open": (434, "PARENT", 0),
    "rt_sigqueueinfo": (129, "PARENT", 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "unshare user": (272, 0x10000000),
    "setns": (308, 0, 0),
    "chroot": (161, 0),
    "keyctl": (250, 0, 0, 0),
    "add_key": (248, 0, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, 0, 0, 0),
    "io_uring_setup": (425, 4, 0),
    "userfaultfd": (323, 0),
    "memfd_create": (319, 0, 0),
    "shmget": (29, 0, 4096, 0o1666),
    "msgget": (68, 0, 0o1666),
    "setsid": (112,),
    "setpgid": (109, 0, 0),
    "setuid": (105, 0),
    "execve": (59, 0, 0, 0),
    "execveat": (322, 0, 0, 0, 0, 0),
    "fork": (57,),
    "vfork": (58,),
    "clone": (56, 17, 0, 0, 0, 0),
    "clone into namespaces": (56, 0x10000000 | 0x20000000 | 17, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "seccomp": (317, 0, 0, 0),
    "personality": (135, 0xFFFFFFFF),
    "prctl dumpable": (157, 4, 1, 0, 0, 0),
    "open_by_handle_at": (304, 0, 0, 0),
    "landlock_create_ruleset": (444, 0, 0, 1),
    "syslog": (103, 10, 0, 0),
    "reboot": (169, 0, 0, 0),
    "fcntl set owner": (72, 0, 8, "PARENT"),
    "prlimit of parent": (302, "PARENT", 7, 0, 0),
    "tiocsti": (16, 0, 0x5412, 0),
}


@pytest.mark.skipif(MACHINE != "x86_64", reason="numbers of x86-64")
def test_dangerous_system_calls_are_refused(sandbox: Sandbox) -> None:
    attempts = {name: f"call({', '.join(map(str, call))})" for name, call in CALLS.items()}
    assert succeeded(sandbox, attempts, PARENT=os.getpid()) == []


SIGNALS = {
    "parent": "os.kill(PARENT, 9)",
    "supervisor": "os.kill(os.getppid() or PARENT, 9)",
    "everybody": "os.kill(-1, 9)",
    "group of the parent": "os.killpg(PARENT, 9)",
    "own group": "os.kill(0, 9)",
}


def test_signals_reach_nobody_else(sandbox: Sandbox) -> None:
    assert succeeded(sandbox, SIGNALS, PARENT=os.getpid()) == []


BOMBS = {
    "memory": ("x = []\nwhile True: x.append(bytearray(1 << 24))", ("memory",)),
    "one allocation": ("bytearray(1 << 40)", ("memory",)),
    "mapped memory": (
        "import mmap\nx = [mmap.mmap(-1, 1 << 28) for _ in range(64)]\nprint('ESCAPED')",
        ("error", "memory"),
    ),
    "fork": ("import os\nwhile True: os.fork()", ("error",)),
    "spawn": ("import subprocess, sys\nsubprocess.run([sys.executable, '-V'])", ("error",)),
    "threads": (
        "import threading, time\nt = [threading.Thread(target=time.sleep, args=(99,))"
        " for _ in range(4096)]\nfor x in t: x.start()\nprint('ESCAPED')",
        ("error", "memory", "timeout"),
    ),
    "file": ("f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20))", ("error", "killed")),
    "descriptors": ("x = [open('/dev/null') for _ in range(5000)]\nprint('ESCAPED')", ("error",)),
    "stdout": ("while True: print('x' * 1000)", ("output",)),
    "stderr": ("import sys\nwhile True: sys.stderr.write('x' * 1000)", ("output",)),
    "stdout of a thread": (
        "import threading\nt = threading.Thread(target=lambda: [print('x' * 99)"
        " for _ in iter(int, 1)])\nt.start()",
        ("output",),
    ),
    "recursion": ("def f(): f()\nf()", ("error",)),
    "stack": (
        "import functools, sys\nsys.setrecursionlimit(1 << 30)\nclass C:\n"
        "    def __call__(self): return functools.partial(self)()\nC()()",
        ("killed",),
    ),
    "crash": ("import ctypes\nctypes.string_at(0)", ("killed",)),
    "raise the limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nprint('ESCAPED')",
        ("error",),
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_meet_a_limit(sandbox: Sandbox, bomb: str) -> None:
    source, statuses = BOMBS[bomb]
    limits = replace(PATIENT, seconds=5.0) if bomb == "threads" else PATIENT
    outcome = sandbox.run_python(source, limits=limits)
    must_fail(outcome, *statuses)
    assert len(outcome.stdout) + len(outcome.stderr) <= limits.output_bytes


ENDLESS = {
    "loop": "while True: pass",
    "one operation": "9 ** 9 ** 9",
    "sleep": "import time\ntime.sleep(999)",
    "thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(999,)).start()",
    "ignored signals": (
        "import signal, time\nfor n in range(1, 65):\n"
        "    try: signal.signal(n, signal.SIG_IGN)\n    except Exception: pass\ntime.sleep(999)"
    ),
    "caught errors": "while True:\n    try: 1 / 0\n    except BaseException: pass",
    "exit handler": "import atexit, time\natexit.register(time.sleep, 999)",
    "stopped": "import os, signal, time\nos.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(999)",
    "repr of the error": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E"
    ),
}


@pytest.mark.parametrize("way", ENDLESS)
def test_endless_programs_end_at_the_deadline(sandbox: Sandbox, way: str) -> None:
    outcome = sandbox.run_python(ENDLESS[way], limits=BRIEF)
    must_fail(outcome, "timeout")
    assert outcome.seconds < BRIEF.seconds + 5


def test_hostile_files_are_removed_and_not_followed(sandbox: Sandbox, outside: Path) -> None:
    source = f"""
import os
for target in ({str(outside)!r}, {str(outside / "open")!r}, '/'):
    os.symlink(target, 'link-' + str(len(os.listdir('.'))))
os.mkdir('locked', 0)
os.mkdir('a'); open('a/b', 'w').close(); os.chdir('a')
for _ in range(1200):
    os.mkdir('d'); os.chdir('d')
    open('f', 'w').close()
"""
    outcome = sandbox.run_python(source, limits=PATIENT)
    assert outcome.status in ("ok", "error")  # the scratch of a namespace is out of room earlier
    assert (outside / "open").read_text() == SECRET
    assert sorted(p.name for p in outside.iterdir()) == ["open", "secret"]


def test_the_attempts_succeed_where_only_resources_are_limited(outside: Path) -> None:
    """The control: without the upper layers the same attempts get through."""
    with Sandbox(SandboxLevel.RLIMITS, num_workers=1, at_most=SandboxLevel.RLIMITS) as weak:
        harmless = {
            "read": READS["world-readable"],
            "write": WRITES["append"],
            "network": NETWORK["listen"],
            "descriptor": "open('/dev/null').nothing_like_this",
        }
        names = succeeded(weak, harmless, OUT=str(outside))
        assert names == ["read", "write", "network"]


def test_a_run_sees_nothing_of_the_one_before(sandbox: Sandbox) -> None:
    mark = """
import builtins, json, os, sys
builtins.mark = json.mark = sys.mark = 1
os.environ['MARK'] = '1'
open('mark', 'w').close()
"""
    assert sandbox.run_python(mark, limits=PATIENT).completed
    look = """
import builtins, json, os, sys
print([hasattr(m, 'mark') for m in (builtins, json, sys)], dict(os.environ), os.listdir('.'))
"""
    assert sandbox.run_python(look, limits=PATIENT).stdout == "[False, False, False] {} []\n"


def test_attacks_in_parallel_do_not_disturb_a_run_beside_them(sandbox: Sandbox) -> None:
    statuses: list[str] = []

    def attack() -> None:
        statuses.append(sandbox.run_python("while True: pass", limits=BRIEF).status)

    threads = [threading.Thread(target=attack) for _ in range(3)]
    for thread in threads:
        thread.start()
    good = sandbox.run_python("print(1)", limits=Limits(seconds=30))
    for thread in threads:
        thread.join()
    assert good.completed and statuses == ["timeout"] * 3
