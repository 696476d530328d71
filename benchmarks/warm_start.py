"""How soon a model answers: from `LLM(path)` to the first token, in fresh processes.

    python benchmarks/warm_start.py [--model models/rorqual-pocket] [--size m_small] [--rounds 9]

Measures the shipped model (or --model) and a checkpoint of m_small's shape with random weights in
bf16, written for the occasion. Each start is a process of its own, in one of these states:

    first    nothing kept: weights are packed
    warm     packed weights are mapped (models of 32 MB and more are kept)
    unread   the same, but neither they nor the checkpoint are in memory: read from disk

`import` is `from rorqual import LLM`, `load` is `LLM(path)`, `token` the first token of a prompt of
16 tokens, `process` all of it with the start of Python, seen from outside. Medians, milliseconds.
--imports prints instead which modules an import spends its time in.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from rorqual.checkpoint.writing import TensorSource, write_json, write_shards
from rorqual.config import ModelConfig
from rorqual.config.model import model_config_to_hf
from rorqual.engine.random_model import SHAPES, RandomWeights, random_config

SHIPPED = Path(__file__).resolve().parents[1] / "models" / "rorqual-pocket"
STAGES = ("import", "load", "token", "load+token", "process")
CHILD = """
import json, sys, time
begin = time.perf_counter()
from rorqual import LLM, SamplingParams
params = SamplingParams
imported = time.perf_counter()
llm = LLM(sys.argv[1], **json.loads(sys.argv[2]))
loaded = time.perf_counter()
llm.generate([list(range(5, 21))], params(max_tokens=1, temperature=0.0, ignore_eos=True))
answered = time.perf_counter()
print(json.dumps([imported - begin, loaded - imported, answered - loaded]), flush=True)
llm.close()
"""


def write_random_model(size: str, path: Path) -> None:
    """A checkpoint of a shape of engine/random_model.py in bf16, with the shipped tokenizer."""
    config = random_config(size)
    assert isinstance(config, ModelConfig), f"{size} is no DeepSeek shape"
    weights = RandomWeights(config)

    def read(name: str) -> memoryview:
        bits = weights.read(name).view(np.uint32) >> np.uint32(16)  # [...] bf16, cut not rounded
        return bits.astype(np.uint16).data.cast("B")

    path.mkdir()
    write_shards(
        path,
        [
            TensorSource(name, "BF16", weights.shape(name), lambda name=name: read(name))
            for name in weights.names()
        ],
    )
    fields = model_config_to_hf(config, dtype="bfloat16") | {"bos_token_id": 0, "eos_token_id": 1}
    write_json(path / "config.json", fields)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((SHIPPED / name).read_bytes())


def start(model: Path, options: dict[str, object], cache: Path) -> dict[str, float]:
    """Seconds of each stage of one start."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", CHILD, str(model), json.dumps(options)]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        process = time.perf_counter() - begin
    assert child.returncode == 0 and line, "the start failed"
    imported, loaded, token = json.loads(line)
    return dict(zip(STAGES, (imported, loaded, token, loaded + token, process), strict=True))


def forget(folder: Path) -> None:
    """Drop the files of a folder from the system's page cache."""
    os.sync()  # dirty pages cannot be dropped
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def measure(model: Path, options: dict[str, object], rounds: int, cache: Path) -> bool:
    """Print a line for each state; whether packed weights were kept."""
    found: dict[str, list[dict[str, float]]] = {"first": [], "warm": [], "unread": []}
    entries = cache / "rorqual" / "packed"
    for _ in range(rounds):  # interleaved, so that what else the machine does meets all alike
        for path in entries.glob("*"):
            path.unlink()
        found["first"].append(start(model, options, cache))
        found["warm"].append(start(model, options, cache))
        forget(cache)
        forget(model)
        found["unread"].append(start(model, options, cache))
    for state, starts in found.items():
        columns = [1e3 * statistics.median(one[stage] for one in starts) for stage in STAGES]
        print(f"  {state:8}" + "".join(f"{column:12.0f}" for column in columns), flush=True)
    return any(entries.glob("*"))


def print_imports(rounds: int) -> None:
    """Milliseconds that `from rorqual import LLM` spends in each package, the least of rounds."""
    least: dict[str, float] = {}
    command = [sys.executable, "-X", "importtime", "-c", "from rorqual import LLM"]
    for _ in range(rounds):
        text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        for line in text.splitlines()[1:]:
            own, _, name = (part.strip() for part in line.removeprefix("import time:").split("|"))
            least[name] = min(least.get(name, float("inf")), float(own) / 1e3)
    packages: dict[str, float] = {}
    for name, milliseconds in least.items():
        parts = name.split(".")
        package = ".".join(parts[:2]) if parts[0] == "rorqual" else parts[0]
        packages[package] = packages.get(package, 0.0) + milliseconds
    print(f"{sum(packages.values()):8.1f} ms in {len(least)} modules")
    for name, milliseconds in sorted(packages.items(), key=lambda item: -item[1])[:20]:
        print(f"{milliseconds:8.1f} {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--size", choices=SHAPES, default="m_small")
    parser.add_argument("--precision", choices=("bf16", "int8", "int4"), default="bf16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--imports", action="store_true")
    arguments = parser.parse_args()
    if arguments.imports:
        return print_imports(arguments.rounds)
    options: dict[str, object] = {"precision": arguments.precision}
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        random_model = Path(folder) / arguments.size
        write_random_model(arguments.size, random_model)
        print("  state   " + "".join(f"{stage:>12}" for stage in STAGES) + "   (ms)")
        for name, model in (
            (arguments.model.name, arguments.model),
            (arguments.size, random_model),
        ):
            print(f"{name} {arguments.precision}", flush=True)
            cache = Path(folder) / "cache"
            cache.mkdir(exist_ok=True)
            kept = measure(model, options, arguments.rounds, cache)
            print("  packed weights were kept" if kept else "  too small to be kept")


if __name__ == "__main__":
    main()
