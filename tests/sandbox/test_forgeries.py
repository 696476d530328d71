"""Lies about the result: early exits, forged frames, patched modules, values that always agree.

None may count as a success, and none may change what the parent compares.
"""

from dataclasses import replace

import pytest

from rorqual.sandbox import Sandbox
from tests.sandbox.conftest import PATIENT, must_fail

pytestmark = pytest.mark.usefixtures("no_trace")

EXITS = (
    "import sys\nsys.exit(0)",
    "raise SystemExit",
    "import os\nos._exit(0)",
    "import os\nprint('ok')\nos.close(3)",
    "import atexit, os\natexit.register(os._exit, 0)",
    "import threading, os\nt = threading.Thread(target=os._exit, args=(0,))\nt.start()\nt.join()",
    "raise KeyboardInterrupt",
    "raise GeneratorExit",
    "class E(BaseException): pass\nraise E",
    "import sys\nsys.settrace(lambda *a: 1 / 0)\ndef f(): pass\nf()",
    "this is no Python",
    "\0",
)


@pytest.mark.parametrize("source", EXITS)
def test_an_early_exit_is_no_success(sandbox: Sandbox, source: str) -> None:
    must_fail(sandbox.run_python(source, limits=PATIENT), "error")


FORGERIES = {
    "garbage": "b'\\xff' * 5000",
    "ready at once": "struct.pack('>I', 1) + b'R'",
    "ready and a value": "struct.pack('>I', 1) + b'R' + struct.pack('>I', 20) + b'V' * 20",
    "value": "struct.pack('>I', 20) + b'V' + bytes(16) + b'42 '",
    "error": "struct.pack('>I', 20) + b'E' + bytes(16) + b'42 '",
    "question": "struct.pack('>I', 6) + b'Q[\"l\"]'",
    "endless frame": "struct.pack('>I', 0xFFFFFFFF) + bytes(60000)",
    "json": 'b\'{"status": "ok", "completed": true, "value": 42}\'',
    "many frames": "(struct.pack('>I', 1) + b'R') * 10000",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_results_on_every_descriptor_are_refused(sandbox: Sandbox, forgery: str) -> None:
    forge = f"""
import os, struct
for fd in range(3, 64):
    try:
        os.write(fd, {FORGERIES[forgery]})
    except OSError:
        pass
"""
    outcome = sandbox.run_python(f"{forge}\nos._exit(0)", limits=PATIENT)
    must_fail(outcome, "error", "output")
    source = f"def f():\n{forge.replace(chr(10), chr(10) + '    ')}\n    return 41"
    (result,) = sandbox.call_python(source, "f", [[]], limits=PATIENT)
    assert result.status != "ok" and result.value is None


def test_replaying_an_earlier_reply_is_refused(sandbox: Sandbox) -> None:
    """The reply to the first call, seen by patching os.write, does not answer the second."""
    source = """
import os
seen = []
original = os.write
def write(fd, data):
    seen.append(bytes(data))
    return original(fd, seen[0] if fd == 3 else data)
def f(x):
    os.write = write
    return x
"""
    first, second = sandbox.call_python(source, "f", [[1], [2]], limits=PATIENT)
    assert (first.status, first.value) == ("ok", 1)
    assert second.status == "error" and second.value is None


PATCHES = (
    "import json\njson.dumps = lambda *a, **k: '42'\njson.loads = lambda *a: [42]",
    "import builtins\nbuiltins.type = lambda *a: int\nbuiltins.isinstance = lambda *a: True",
    "import builtins\nbuiltins.len = lambda *a: 0\nbuiltins.bytes = str",
    "import os\nos.write = lambda fd, data: len(data)",
    "import os\nos._exit = lambda *a: None",
    "import sys\nsys.modules.clear()",
    "import sys\nfor m in list(sys.modules.values()): m.__dict__.clear()",
    "import gc\nfor o in gc.get_objects():\n    if type(o) is dict: o.clear()",
    "import sys\nf = sys._getframe(1)\nwhile f:\n    f.f_globals.clear()\n    f = f.f_back",
)


@pytest.mark.parametrize("patch", PATCHES)
def test_patched_modules_do_not_change_what_the_parent_reads(sandbox: Sandbox, patch: str) -> None:
    """A wrong answer stays wrong: whatever is patched, the parent compares what it received."""
    source = f"def f(x):\n    return 7\n{patch}\n"
    (result,) = sandbox.call_python(source, "f", [[3]], limits=replace(PATIENT, seconds=1.0))
    assert result.status != "ok" or result.value in (7, 42)
    wrong = f"def double(x):\n    return 7\n{patch}\n"
    test = "def check(candidate):\n    assert candidate(3) == 6\n"
    limits = replace(PATIENT, seconds=1.0)
    assert not sandbox.judge(wrong, "double", test, limits=limits).completed


VALUES = {
    "always equal": "class A:\n    def __eq__(self, o): return True\nv = A()",
    "always equal int": "class A(int):\n    def __eq__(self, o): return True\nv = A(1)",
    "str subclass": "class A(str):\n    def __eq__(self, o): return True\nv = A('1')",
    "list subclass": "class A(list): pass\nv = A()",
    "key subclass": "class A(str): pass\nv = {A('1'): 1}",
    "int key": "v = {1: 1}",
    "nested": "class A(float):\n    __eq__ = lambda s, o: True\nv = [[{'a': A(1)}]]",
    "metaclass": (
        "class M(type):\n    __name__ = property(lambda c: 1 / 0)\n"
        "    __eq__ = lambda c, o: True\n    __hash__ = type.__hash__\n"
        "class A(metaclass=M): pass\nv = A()"
    ),
    "bytes": "v = b'1'",
    "set": "v = {1}",
    "function": "v = print",
    "generator": "v = (x for x in [1])",
    "deep": "v = []\nfor _ in range(500): v = [v]",
    "cyclic": "v = []\nv.append(v)",
    "huge int": "v = 10 ** 5000",
    "huge int without limit": "import sys\nsys.set_int_max_str_digits(0)\nv = 10 ** 5000",
    "lone surrogate": "v = '\\ud800'",
}


@pytest.mark.parametrize("kind", VALUES)
def test_only_plain_data_comes_back(sandbox: Sandbox, kind: str) -> None:
    source = f"{VALUES[kind]}\ndef f():\n    return v\n"
    (result,) = sandbox.call_python(source, "f", [[]], limits=PATIENT)
    assert result.status == "error" and result.value is None


def test_results_are_bounded(sandbox: Sandbox) -> None:
    source = "def f():\n    return 'x' * (1 << 24)\n"
    (result,) = sandbox.call_python(source, "f", [[]], limits=PATIENT)
    assert result.status == "output"
    small = replace(PATIENT, result_bytes=1000)
    results = sandbox.call_python("def f():\n    return 'x' * 400\n", "f", [[]] * 9, limits=small)
    assert [r.status for r in results] == ["ok"] * 2 + ["output"] * 7


def test_two_runs_of_one_judgement_do_not_meet(sandbox: Sandbox) -> None:
    """The candidate cannot reach the judge's files, process or memory."""
    candidate = """
import os
def f():
    try:
        os.kill(os.getppid(), 9)
    except OSError:
        pass
    try:
        return len([name for name in os.listdir('..') if name.startswith('run-')])
    except OSError:
        return 0
"""
    test = "def check(candidate):\n    assert candidate() == 0\n"
    assert sandbox.judge(candidate, "f", test, limits=PATIENT).completed
