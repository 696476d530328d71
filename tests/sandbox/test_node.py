"""Node under the same layers: what gets out, what it may use, how it ends."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from rorqual.sandbox import Sandbox
from tests.sandbox.conftest import BRIEF, PATIENT, must_fail

pytestmark = pytest.mark.usefixtures("no_trace")

NODE = {
    "write": "fs.writeFileSync(OUT + '/made', 'x')",
    "append": "fs.appendFileSync(OUT + '/open', 'x')",
    "read": "fs.readFileSync(OUT + '/open', 'utf8')",
    "child": "if (cp.spawnSync(process.execPath, ['-v']).error) throw new Error()",
    "signal": "process.kill(PARENT, 0)",
    "environment": "fs.readFileSync('/proc/' + PARENT + '/environ')",
    "mode": "fs.chmodSync(OUT + '/open', 0)",
}
NODE_LATER = {
    "tcp": "net.connect(PORT, '127.0.0.1').on('connect', () => console.log('tcp'))",
    "unix": "net.connect(UNIX).on('connect', () => console.log('unix'))",
    "abstract": "net.connect('\\0' + NAME).on('connect', () => console.log('abstract'))",
    "udp": "dgram.createSocket('udp4').send('x', PORT, '127.0.0.1', e => e || console.log('udp'))",
    "dns": "require('dns').lookup('localhost', e => e || console.log('dns'))",
}


def test_node_is_confined_alike(
    sandbox: Sandbox, outside: Path, servers: dict[str, object]
) -> None:
    names = {**servers, "OUT": str(outside), "PARENT": os.getpid()}
    lines = [f"const {name} = {json.dumps(value)};" for name, value in names.items()]
    lines += ["const fs = require('fs'), cp = require('child_process');"]
    lines += ["const net = require('net'), dgram = require('dgram');"]
    lines += ["process.on('uncaughtException', () => {});"]
    for name, attempt in NODE.items():
        lines += [f"try {{ {attempt}; console.log({name!r}); }} catch {{}}"]
    lines += [f"try {{ {attempt}; }} catch {{}}" for attempt in NODE_LATER.values()]
    lines += ["console.log('end');"]
    outcome = sandbox.run_node("\n".join(lines), limits=PATIENT)
    assert outcome.stdout == "end\n", outcome
    assert sorted(path.name for path in outside.iterdir()) == ["open", "secret"]


NODE_FAILURES = {
    "exit": "process.exit(0)",
    "throw": "throw new Error('x')",
    "rejection": "Promise.reject(new Error('x'))",
    "forge": "require('fs').writeSync(3, Buffer.alloc(64, 1)); process.exit(0)",
    "recursion": "(function f() { f(); })()",
    "syntax": "this is no JavaScript",
}


@pytest.mark.parametrize("way", NODE_FAILURES)
def test_failing_node_programs_do_not_complete(sandbox: Sandbox, way: str) -> None:
    must_fail(sandbox.run_node(NODE_FAILURES[way], limits=PATIENT), "error", "output")


NODE_BOMBS = {
    "heap": ("const x = []; while (true) x.push(new Array(1e6).fill(1.5))", ("memory", "killed")),
    "buffers": (
        "const x = []; while (true) x.push(Buffer.alloc(1 << 26, 1))",
        ("error", "memory", "killed"),
    ),
    "output": (
        "(function f() { console.log('x'.repeat(1000)); setImmediate(f); })()",
        ("output",),
    ),
}


@pytest.mark.parametrize("bomb", NODE_BOMBS)
def test_node_bombs_meet_a_limit(sandbox: Sandbox, bomb: str) -> None:
    source, statuses = NODE_BOMBS[bomb]
    small = replace(PATIENT, memory_bytes=128 << 20)
    must_fail(sandbox.run_node(source, limits=small), *statuses)


@pytest.mark.parametrize("source", ["while (true) {}", "setInterval(() => {}, 1000)"])
def test_endless_node_programs_end_at_the_deadline(sandbox: Sandbox, source: str) -> None:
    must_fail(sandbox.run_node(source, limits=replace(BRIEF, seconds=2.0)), "timeout")
