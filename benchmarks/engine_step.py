"""Speed of the native runtime's steps for several precisions and thread counts in one process.

    python benchmarks/engine_step.py [--size m_small] [--precision bf16 int8] [--threads 1 2]

`rorqual bench` with loops around it: one line a case, on the same random weights.
"""

import argparse
from typing import get_args

from rorqual.cli.bench import case_json
from rorqual.engine.benchmark import Case, StepBench, fastest_gemm, text_ids
from rorqual.engine.random_model import SHAPES, RandomWeights, random_config
from rorqual.kernels.library import Library, native_library
from rorqual.kernels.runtime_layout import Precision


def measure(
    weights: RandomWeights, precision: Precision, library: Library, cases: list[Case]
) -> None:
    """Print the cases' lines."""
    ids = text_ids(None, weights.config.vocab_size, 1 << 16)
    bench = StepBench(
        weights.config, weights.read, precision=precision, library=library, cases=cases,
        token_ids=ids,
    )  # fmt: skip
    _, gemm = fastest_gemm(library)
    for case in cases:
        found = case_json(bench.measure(case, 2.0), library, gemm, 0.0)
        line = f"  {case.name:18}{found['tokens_per_second']:9.0f} tok/s{found['step_ms']:10.3f} ms"
        if "touched_bytes" in found:
            line += f"{found['touched_bytes'] / 1e6:9.1f} MB"
            line += (
                f"{found['bytes_per_second'] / 1e9:7.1f} GB/s{found['bandwidth_percent']:6.1f} %"
            )
            line += f" of {found['read_bytes_per_second'] / 1e9:.1f}"
        else:
            line += f"{found['gemm_percent']:9.1f} % of {gemm / 1e9:.0f} GFLOP/s"
        print(line, flush=True)
    bench.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", choices=tuple(SHAPES), default="m_small")
    parser.add_argument("--precision", nargs="+", choices=get_args(Precision), default=["bf16"])
    parser.add_argument("--threads", nargs="+", type=int, default=[2])
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--isa", default=None)
    arguments = parser.parse_args()
    weights = RandomWeights(random_config(arguments.size))
    found = native_library()
    assert found is not None, "build the native kernels first"
    context = arguments.context
    cases = [Case("decode", 1, context), Case("decode", 16, context)]
    cases.append(Case("prefill", 8 if context <= 512 else 1, context))
    for precision in arguments.precision:
        for threads in arguments.threads:
            library = found.using(isa=arguments.isa, num_threads=threads)
            print(f"{arguments.size} {precision} {library.isa} threads={threads}", flush=True)
            measure(weights, precision, library, cases)


if __name__ == "__main__":
    main()
