"""What the sandbox does for programs that mean no harm, and how it starts, refuses and ends."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rorqual.errors import CapacityError, ConfigError
from rorqual.sandbox import CallResult, Limits, Sandbox, SandboxLevel, SandboxReport
from tests.sandbox.conftest import BRIEF, PATIENT, children_of, leftovers, zygotes


def test_a_program_runs_and_its_output_comes_back(sandbox: Sandbox) -> None:
    source = "import sys\nprint(input()[::-1], 'é中')\nprint('note', file=sys.stderr)"
    outcome = sandbox.run_python(source, stdin="olleh\n", limits=PATIENT)
    assert (outcome.status, outcome.completed) == ("ok", True), outcome
    assert (outcome.stdout, outcome.stderr) == ("hello é中\n", "note\n")
    assert 0 < outcome.seconds < 30


def test_a_program_may_use_the_standard_library(sandbox: Sandbox) -> None:
    source = """
import asyncio, bisect, collections, ctypes, dataclasses, datetime, decimal, fractions, hashlib
import heapq, itertools, math, random, re, sqlite3, statistics, tempfile, threading, zoneinfo
asyncio.run(asyncio.sleep(0))
with tempfile.NamedTemporaryFile('w+') as f:
    f.write('x')
thread = threading.Thread(target=print, args=(zoneinfo.ZoneInfo('Asia/Shanghai'),))
thread.start()
thread.join()
print(hashlib.sha256(b'').hexdigest()[:8], datetime.datetime.now().year > 2000)
if __name__ == '__main__':
    print('main')
"""
    outcome = sandbox.run_python(source, limits=PATIENT)
    assert outcome.stdout == "Asia/Shanghai\ne3b0c442 True\nmain\n", outcome


def test_large_input_and_output_pass_through(sandbox: Sandbox) -> None:
    text = "x" * (1 << 20)
    limits = replace(PATIENT, output_bytes=2 << 20)
    outcome = sandbox.run_python(
        "import sys\nsys.stdout.write(sys.stdin.read())", stdin=text, limits=limits
    )
    assert outcome.completed and outcome.stdout == text
    assert sandbox.run_python("print('unread')", stdin=text, limits=PATIENT).completed


def test_a_traceback_names_the_program_and_nothing_of_ours(sandbox: Sandbox) -> None:
    outcome = sandbox.run_python("def f():\n    return 1 / 0\nf()\n", limits=PATIENT)
    assert outcome.status == "error" and not outcome.completed
    assert 'File "program.py", line 2, in f' in outcome.stderr and "1 / 0" in outcome.stderr
    assert "harness" not in outcome.stderr
    assert outcome.detail == "ZeroDivisionError: division by zero"


def test_sets_print_in_one_order_in_every_worker(sandbox: Sandbox) -> None:
    source = "print(set('determinism'))"
    with Sandbox(sandbox.report.level, 1, at_most=sandbox.report.level) as other:
        first, second = (s.run_python(source, limits=PATIENT).stdout for s in (sandbox, other))
    assert first == second


def test_calls_return_plain_values(sandbox: Sandbox) -> None:
    source = "state = []\ndef f(*a):\n    state.append(1)\n    return [len(state), *a]\n"
    values = [[], [1, -2.5, True, None, "é中\n"], [[1, [2]], {"a": {"b": [1e300]}}], [10**40]]
    results = sandbox.call_python(source, "f", values, limits=PATIENT)
    assert results == [CallResult("ok", [i + 1, *v]) for i, v in enumerate(values)]
    assert [type(x) for x in results[1].value[1:]] == [int, float, bool, type(None), str]
    (tuples,) = sandbox.call_python("def f(): return (1, (2,))", "f", [[]], limits=PATIENT)
    assert tuples.value == [1, [2]]
    (odd,) = sandbox.call_python("def f(): return [float('inf')]", "f", [[]], limits=PATIENT)
    assert odd.value == [math.inf]


def test_a_failing_call_does_not_end_the_others(sandbox: Sandbox) -> None:
    source = "def f(x):\n    if x == 1: raise ValueError('one')\n    return bytearray(x)[:0].hex()"
    calls = [[0], [1], [1 << 40], [2]]
    results = sandbox.call_python(source, "f", calls, limits=PATIENT)
    assert [r.status for r in results] == ["ok", "error", "memory", "ok"]
    assert results[1].detail == "ValueError: one"


def test_calls_after_the_end_carry_how_it_ended(sandbox: Sandbox) -> None:
    source = (
        "import os\ndef f(x):\n    while x == 1: pass\n    if x == 2: os._exit(0)\n    return x"
    )
    results = sandbox.call_python(source, "f", [[0], [1], [0]], limits=replace(BRIEF, seconds=2.0))
    assert [r.status for r in results] == ["ok", "timeout", "timeout"]
    results = sandbox.call_python(source, "f", [[0], [2], [0]], limits=PATIENT)
    assert [r.status for r in results] == ["ok", "error", "error"]
    assert sandbox.call_python("x = 1", "f", [[1]], limits=PATIENT)[0].status == "error"
    assert sandbox.call_python("f = 1 / 0", "f", [[1]], limits=PATIENT)[0].status == "error"
    assert sandbox.call_python(source, "f", [], limits=PATIENT) == []


JUDGEMENTS = {
    "right": ("def f(x): return (x, {1: {2}})", True),
    "wrong": ("def f(x): return (x, {1: {3}})", False),
    "list for tuple": ("def f(x): return [x, {1: {2}}]", False),
    "always equal": (
        "class A:\n    __eq__ = lambda s, o: True\n    __getitem__ = lambda s, i: s\n"
        "def f(x): return A()",
        False,
    ),
    "tuple subclass": ("class A(tuple): pass\ndef f(x): return A((x, {1: {2}}))", False),
    "raises": ("def f(x): raise ValueError", False),
    "exits": ("import sys\ndef f(x): sys.exit(0)", False),
    "exits hard": ("import os\ndef f(x): os._exit(0)", False),
    "fails to load": ("1 / 0\ndef f(x): return (x, {1: {2}})", False),
    "not there": ("def g(x): return (x, {1: {2}})", False),
    "last call exits": (
        "import os\nn = []\ndef f(x):\n    n.append(1)\n    if len(n) == 2: os._exit(0)\n"
        "    return (x, {1: {2}})",
        False,
    ),
}
TEST = """
def check(candidate):
    assert candidate(1) == (1, {1: {2}})
    try:
        assert f(2.5) == (2.5, {1: {2}})
    except ZeroDivisionError:
        pass
"""


@pytest.mark.parametrize("case", JUDGEMENTS)
def test_the_judge_tells_right_from_wrong(sandbox: Sandbox, case: str) -> None:
    source, right = JUDGEMENTS[case]
    outcome = sandbox.judge(source, "f", TEST, limits=PATIENT)
    assert outcome.completed is right, outcome
    assert (outcome.status == "ok") is right


def test_a_judge_that_never_ends_meets_its_own_deadline(sandbox: Sandbox) -> None:
    test = "def check(candidate):\n    while True: candidate()\n"
    outcome = sandbox.judge("def f(): return 1", "f", test, limits=BRIEF)
    assert not outcome.completed and outcome.status in ("timeout", "output")
    test = "def check(candidate):\n    try: candidate()\n    except Exception: pass\n"
    outcome = sandbox.judge("def f():\n    while True: pass", "f", test, limits=BRIEF)
    assert not outcome.completed and outcome.status == "timeout"


def test_node_runs_programs_and_waits_for_timers(sandbox: Sandbox) -> None:
    source = """
const text = require('fs').readFileSync(0, 'utf8');
setTimeout(() => console.log(text.trim() + '!', [3, 1, 2].sort().join()), 20);
require('fs').writeFileSync('note', 'x');
"""
    outcome = sandbox.run_node(source, stdin="hello\n", limits=PATIENT)
    assert (outcome.status, outcome.completed) == ("ok", True), outcome
    assert (outcome.stdout, outcome.stderr) == ("hello! 1,2,3\n", "")


def test_threads_share_a_sandbox(report: SandboxReport) -> None:
    found: dict[int, str] = {}
    with Sandbox(report.level, num_workers=2) as shared:

        def run(number: int) -> None:
            found[number] = shared.run_python(f"print({number} ** 2)", limits=PATIENT).stdout

        threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(zygotes()) <= 4  # two of this sandbox, two that other tests hold
    assert found == {n: f"{n**2}\n" for n in range(8)}


def test_closing_leaves_no_process_and_no_folder(report: SandboxReport) -> None:
    for level in range(SandboxLevel.RLIMITS, report.level + 1):
        before = set(zygotes())
        with Sandbox(SandboxLevel(level), at_most=SandboxLevel(level)) as opened:
            assert opened.report.level == level, opened.report.words
            assert opened.run_python("pass", limits=PATIENT).completed
        assert set(zygotes()) == before
        assert leftovers() == {"processes": [], "files": []}
        with pytest.raises(CapacityError, match="closed"):
            opened.run_python("pass")


def test_closing_waits_for_the_runs_of_other_threads(report: SandboxReport) -> None:
    outcomes: list[str] = []
    opened = Sandbox(report.level, num_workers=1)
    threads = [
        threading.Thread(
            target=lambda: outcomes.append(
                opened.run_python("while True: pass", limits=BRIEF).status
            )
        )
    ]
    threads[0].start()
    while not leftovers()["processes"]:
        time.sleep(0.01)
    opened.close()
    threads[0].join()
    assert outcomes == ["timeout"]


def test_an_interrupt_ends_the_run(sandbox: Sandbox) -> None:
    def interrupt() -> None:
        time.sleep(0.4)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        sandbox.run_python("while True: pass", limits=PATIENT)
    thread.join()
    deadline = time.monotonic() + 10
    while leftovers()["processes"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert leftovers() == {"processes": [], "files": []}
    assert sandbox.run_python("pass", limits=PATIENT).completed


def test_a_killed_parent_leaves_no_process(report: SandboxReport, tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(f"""
from rorqual.sandbox import Limits, Sandbox, SandboxLevel
with Sandbox(SandboxLevel({int(report.level)}), 1) as sandbox:
    print("ready", flush=True)
    sandbox.run_python("while True: pass", limits=Limits(seconds=60))
""")
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 20
        while len(family := children_of(parent.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)  # zygote, supervisor, run
        assert len(family) == 3
        parent.kill()
    deadline = time.monotonic() + 20
    while any(map(is_alive, family)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_alive, family))


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_dead_worker_is_replaced(report: SandboxReport) -> None:
    before = set(zygotes())
    with Sandbox(report.level, num_workers=1) as opened:
        (worker,) = set(zygotes()) - before
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(CapacityError, match="worker"):
            opened.run_python("pass", limits=PATIENT)
        assert opened.run_python("pass", limits=PATIENT).completed


def test_a_lesser_machine_is_refused_in_words(report: SandboxReport) -> None:
    with pytest.raises(CapacityError, match=r"RLIMITS found, LANDLOCK_SECCOMP required; run on"):
        Sandbox(at_most=SandboxLevel.RLIMITS)
    if report.level == SandboxLevel.NAMESPACES:
        with pytest.raises(CapacityError, match=r"NAMESPACES required; allow user and mount"):
            Sandbox(SandboxLevel.NAMESPACES, at_most=SandboxLevel.LANDLOCK_SECCOMP)


def test_the_report_names_every_layer(report: SandboxReport) -> None:
    assert [layer.name for layer in report.layers] == [
        "resource limits",
        "namespaces",
        "landlock",
        "seccomp",
        "user",
        "attack",
    ]
    assert report.words.startswith(f"sandbox level {report.level.name} ({int(report.level)} of 3)")


def test_missing_node_is_an_error_in_words(
    report: SandboxReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rorqual.sandbox.sandbox.find_node", lambda: None)
    with Sandbox(report.level, 1) as opened, pytest.raises(CapacityError, match="Node"):
        opened.run_node("1")


def test_another_system_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(CapacityError, match=r"NONE found.*darwin has none of the layers"):
        Sandbox(SandboxLevel.NONE)


@pytest.mark.parametrize("field", ["seconds", "memory_bytes", "output_bytes", "processes"])
def test_a_limit_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        Limits(**{field: 0})
    with pytest.raises(ConfigError, match="num_workers"):
        Sandbox(num_workers=0)


def test_an_ordinary_user_gets_the_same_levels(report: SandboxReport, tmp_path: Path) -> None:
    """Started again as a user without privilege (in a user namespace, where that is allowed)."""
    if os.geteuid() != 0 or report.level < SandboxLevel.NAMESPACES:
        pytest.skip("needs root and user namespaces")
    program = """
import json, os
from rorqual.sandbox import Limits, Sandbox, SandboxLevel
found = {}
for level in (3, 2):
    with Sandbox(SandboxLevel(level), 1, at_most=SandboxLevel(level)) as sandbox:
        look = "import os\\nprint(os.getuid(), os.getpid())\\nopen('x', 'w')"
        outcome = sandbox.run_python(look, limits=Limits(seconds=30))
        found[level] = [int(sandbox.report.level), outcome.completed, outcome.stdout.split()[0]]
print(json.dumps(found))
"""
    command = ["unshare", "--user", "--map-user=1234", "--map-group=1234"]
    done = subprocess.run(
        [*command, sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"3": [3, True, "1000"], "2": [2, True, "1234"]}
