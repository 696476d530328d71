"""Inference engines on the same weights: Rorqual, llama.cpp, transformers, vLLM.

    python benchmarks/peers/build.py llama transformers vllm    # once
    python benchmarks/engine.py --models m_small smollm2 --rounds 3 --json build/peers/engine.json
    python benchmarks/engine.py --avx2                          # both restricted to AVX2
    python benchmarks/engine.py --only rorqual llama --cases decode:1:16 decode:1:4096

Every measurement is a process of its own, alone on the machine; engines take turns, so a slow
minute hits all of them. Printed: tokens/s at the median step as median (min-max) over rounds; how
many times as fast ours is in bf16 and in int8, as ratios within a round; and, from one forward over
the first tokens of the text, the share of positions whose likeliest token is the reference's
(ours in fp32) and the mean difference of log-probabilities of the true tokens.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_models import FILE_OF, Format, prepare
from peers.build import BUILT, ROOT, is_built, python_of
from peers.cases import Case

PEERS = ROOT / "benchmarks" / "peers"
CASES = ("decode:1:512", "decode:16:512", "prefill:8:512")
# Feeding 16 contexts to a model of a billion weights takes minutes before anything is timed.
LARGE_CASES = ("decode:1:512", "decode:16:64", "prefill:1:512")
LARGE = ("r1-qwen-1.5b", "v2-lite")


@dataclass(frozen=True)
class Engine:
    """One column of the comparison: a runner, its precision, the file it reads."""

    name: str
    runner: str
    precision: str
    reads: Format
    environment: str | None = None  # of benchmarks/peers/build.py; None: this one
    isa: str | None = None

    def command(self, folder: Path, arguments: argparse.Namespace) -> list[str]:
        """What to run for one process."""
        python = sys.executable if self.environment is None else str(python_of(self.environment))
        command = [python, str(PEERS / f"run_{self.runner}.py"), str(folder / FILE_OF[self.reads])]
        command += ["--ids", str(folder / "ids.json"), "--precision", self.precision]
        command += ["--threads", str(arguments.threads), "--seconds", str(arguments.seconds)]
        return command + (["--isa", self.isa] if self.isa else [])


def _ours(precision: str, reads: Format = "hf", isa: str | None = None) -> Engine:
    return Engine(f"rorqual {precision}", "rorqual", precision, reads, isa=isa)


def _llama(form: Format, isa: str | None = None) -> Engine:
    environment = "llama-avx2" if isa == "avx2" else "llama"
    name = f"llama.cpp {form}" + (f" {isa}" if isa else "")
    return Engine(name, "llama", form, form, environment, isa)


# Its build for AVX2 alone is at times the faster one where there is more, so both take part.
_LLAMA = (_llama("bf16"), _llama("q8_0"), _llama("bf16", "avx2"), _llama("q8_0", "avx2"))


TRANSFORMERS = [
    Engine(f"transformers {p}", "transformers", p, "hf", "transformers") for p in ("bf16", "fp32")
]
VLLM = Engine("vllm bf16", "vllm", "bf16", "hf", "vllm")
MODELS: dict[str, list[Engine]] = {
    "m_small": [
        *(_ours("bf16"), _ours("int8"), _ours("int4"), *_LLAMA),
        *(*TRANSFORMERS, VLLM),
    ],
    "smollm2": [_ours("bf16"), _ours("int8"), *_LLAMA],
    "r1-qwen-1.5b": [_ours("bf16"), _ours("int8"), _llama("bf16"), _llama("q8_0")],
    "v2-lite": [_ours("int8", "q8_0"), _llama("q8_0")],
    "m_tiny": [_ours("bf16"), _ours("int8"), _llama("bf16"), _llama("q8_0"), *TRANSFORMERS, VLLM],
}


def engines_for(model: str, arguments: argparse.Namespace) -> list[Engine]:
    """Those that are asked for and built; the others are named on stderr."""
    chosen = MODELS[model]
    if arguments.avx2:
        of_ours = [_ours(e.precision, e.reads, "avx2") for e in chosen if e.runner == "rorqual"]
        of_llama = [e for e in chosen if e.runner == "llama" and e.isa is None]
        chosen = of_ours + [_llama(e.reads, "avx2") for e in of_llama]
    wanted = tuple(arguments.only or ("",))
    chosen = [engine for engine in chosen if engine.name.startswith(wanted)]
    for engine in chosen:
        if engine.environment and not is_built(engine.environment):
            fix = f"python benchmarks/peers/build.py {engine.environment}"
            print(f"left out: {engine.name} is not built; {fix}", file=sys.stderr)
    return [e for e in chosen if e.environment is None or is_built(e.environment)]


def run(engine: Engine, folder: Path, arguments: argparse.Namespace, *extra: str) -> dict[str, Any]:
    """One process's JSON; what fails is a result too: {"error": last lines of stderr}."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT / "src") if engine.environment is None else "",
    }  # fmt: skip
    command = [*engine.command(folder, arguments), *extra]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=arguments.timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"longer than {arguments.timeout} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        status = f"exit {done.returncode}"
        return {"error": " | ".join([status, *done.stderr.strip().splitlines()[-3:]])}
    return json.loads(lines[-1])


def agreement(result: dict[str, Any], reference: dict[str, Any]) -> tuple[float, float] | None:
    """Share of equal likeliest tokens, mean |difference| of the true tokens' log-probabilities."""
    if "argmax" not in result or "argmax" not in reference:
        return None
    pairs = zip(result["argmax"], reference["argmax"], strict=True)
    equal = statistics.fmean(ours == theirs for ours, theirs in pairs)
    values = zip(result["logprobs"], reference["logprobs"], strict=True)
    return equal, statistics.fmean(abs(ours - theirs) for ours, theirs in values)


def compare(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Rounds of every engine on one model."""
    engines = engines_for(model, arguments)
    # The reference needs the directory; V2-Lite in fp32 fits no machine that this is meant for.
    reference = _ours("fp32") if any(engine.reads == "hf" for engine in engines) else None
    formats: set[Format] = {engine.reads for engine in engines} | ({"hf"} if reference else set())
    folder = prepare(model, formats)
    found: dict[str, Any] = {e.name: {"rounds": [], "errors": []} for e in engines}
    truth: dict[str, Any] = run(reference, folder, arguments, "--score") if reference else {}
    cases = cases_of(model, arguments)
    wanted = ("--cases", *map(str, cases))
    for number in range(arguments.rounds):
        for engine in engines:
            # Only the first round looks at what is computed, and only it has time for that.
            extra = ("--score", *wanted) if number == 0 else wanted
            result = run(engine, folder, arguments, *extra)
            entry = found[engine.name]
            if "error" in result:
                entry["errors"].append(result["error"])
                print(f"  {model} {engine.name}: {result['error']}", file=sys.stderr, flush=True)
                entry["rounds"].append({})
                continue
            if number == 0:
                entry["agreement"] = agreement(result, truth)
            entry |= {"version": result["version"], "isa": result["isa"]}
            speeds = {
                str(case): case.tokens_per_step / statistics.median(result["seconds"][str(case)])
                for case in cases
            }
            entry["rounds"].append(speeds)
            shown = ", ".join(f"{case} {speed:.0f}" for case, speed in speeds.items())
            print(f"  {model} {engine.name}: {shown}", file=sys.stderr, flush=True)
    about = {"model": model, "machine": machine(), "threads": arguments.threads}
    return about | {"cases": [str(case) for case in cases], "engines": found}


def cases_of(model: str, arguments: argparse.Namespace) -> list[Case]:
    """Those asked for, or what suits the model's size."""
    defaults = LARGE_CASES if model in LARGE else CASES
    return arguments.cases or [Case.parse(text) for text in defaults]


def machine() -> str:
    """The processor, as Linux names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def spread(values: list[float], digits: int = 0) -> str:
    """`median (min-max)`, or a dash."""
    if not values:
        return "-"
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def print_table(result: dict[str, Any]) -> None:
    """One block a case."""
    engines = result["engines"]
    for name in result["cases"]:
        print(f"\n{result['model']}, {name}, {result['threads']} threads, {result['machine']}")
        print(
            f"{'engine':22}{'tok/s':>24}{'bf16 is x':>20}{'int8 is x':>20}{'argmax':>8}{'dlogp':>8}"
        )
        for engine, entry in engines.items():
            speeds = [r[name] for r in entry["rounds"] if name in r]
            line = f"{engine:22}{spread(speeds):>24}"
            for ours in ("rorqual bf16", "rorqual int8"):
                if ours not in engines:
                    line += f"{'-':>20}"
                    continue
                pairs = zip(engines[ours]["rounds"], entry["rounds"], strict=True)
                ratios = [a[name] / b[name] for a, b in pairs if name in a and name in b]
                line += f"{spread(ratios, 2):>20}"
            agreed = entry.get("agreement")
            line += f"{agreed[0]:>8.1%}{agreed[1]:>8.3f}" if agreed else f"{'-':>8}{'-':>8}"
            print(line)
    for engine, entry in engines.items():
        print(f"{engine}: {entry.get('version', 'no result')}; {entry.get('isa', '')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["m_small", "smollm2"])
    parser.add_argument("--only", nargs="+", help="engines whose names begin so")
    parser.add_argument("--cases", nargs="+", type=Case.parse, help="decode:SEQUENCES:CONTEXT ...")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="a case, at least")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one process")
    parser.add_argument("--avx2", action="store_true", help="ours and llama.cpp without AVX-512")
    parser.add_argument("--json", type=Path, help="write every round's figures here")
    arguments = parser.parse_args()
    results = []
    for model in arguments.models:
        results.append(compare(model, arguments))
        print_table(results[-1])
        if arguments.json:
            BUILT.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
