"""`rorqual bench`: tokens per second of a model here, beside what this machine allows."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console
from rich.table import Table

from rorqual.checkpoint.weights import open_weights
from rorqual.cli.options import find_model, say
from rorqual.config import list_presets
from rorqual.engine.benchmark import (
    Case,
    Measured,
    StepBench,
    fastest_gemm,
    limit_bytes_per_second,
    text_ids,
)
from rorqual.engine.loading import Source
from rorqual.engine.random_model import SHAPES, RandomWeights, random_config
from rorqual.errors import CapacityError, ConfigError
from rorqual.kernels.library import InstructionSet, Library, native_library
from rorqual.tokenizer import Tokenizer
from rorqual.units import format_bytes, format_flops

_DECODED_BATCHES: Final = (1, 16)
_TEXT_TOKENS: Final = 65_536
_PIPE_WIDTH: Final = 160  # a file or pipe has no width of its own


def bench(
    model: Annotated[
        str,
        typer.Argument(
            help="A model, as `rorqual serve` takes it; or, with random weights, a preset or one "
            f"of {', '.join(SHAPES)}."
        ),
    ] = "m_small",
    precision: Annotated[
        Literal["fp32", "bf16", "int8", "int4"], typer.Option(help="Of the weights in memory.")
    ] = "bf16",
    context: Annotated[int, typer.Option(help="Tokens before the decoded one, or of a prompt.")] = (
        512
    ),
    prompts: Annotated[int, typer.Option(help="Prompts in the timed prefill step.")] = 8,
    seconds: Annotated[float, typer.Option(help="Time spent on each case, at least.")] = 2.0,
    threads: Annotated[
        int | None, typer.Option(help="Threads; left out: one a physical core.")
    ] = None,
    isa: Annotated[
        str | None, typer.Option(help="Slower instruction set to use, such as avx2.")
    ] = None,
    usd_per_hour: Annotated[
        float, typer.Option(help="What this machine costs an hour, for the price of tokens.")
    ] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Time decoding of 1 and 16 sequences and a prefill step of one model, without a server.

    Shares are of this machine as measured in the same run: bandwidth_percent of the speed at which
    it reads as many bytes as a decoding step touches, gemm_percent of its fastest matrix product.
    """
    if usd_per_hour < 0 or seconds <= 0:
        raise ConfigError(
            f"--usd-per-hour {usd_per_hour} and --seconds {seconds}: expected a price of at least "
            "0 and more than 0 seconds"
        )
    library = _choose_library(isa, threads)
    cases = [Case("decode", batch, context) for batch in _DECODED_BATCHES]
    cases.append(Case("prefill", prompts, context))
    say(f"loading {model} in {precision}")
    source, tokenizer = _open_source(model)
    config = source.config
    runner = StepBench(
        config, source.read, precision=precision, library=library, cases=cases,
        token_ids=text_ids(tokenizer, config.vocab_size, _TEXT_TOKENS),
    )  # fmt: skip
    gemm = fastest_gemm(library)
    rows: list[dict[str, Any]] = []
    for case in cases:
        say(f"timing {case.name}")
        rows.append(case_json(runner.measure(case, seconds), library, gemm[1], usd_per_hour))
    result = {
        "model": model,
        "text": "worked problems" if tokenizer else "random ids",
        "precision": precision,
        "isa": library.isa,
        "threads": library.num_threads,
        "machine": platform.machine(),
        "weight_bytes": runner.runtime.weight_bytes,
        "gemm": {"name": gemm[0], "flops_per_second": gemm[1]},
        "usd_per_hour": usd_per_hour,
        "cases": rows,
    }
    runner.close()
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        _print_table(result, rows)


def _choose_library(isa: str | None, threads: int | None) -> Library:
    library = native_library()
    if library is None:
        raise CapacityError(
            "the native kernels are not built, and the torch path is not what is measured here; "
            "install a C++ compiler and Rorqual again"
        )
    chosen: InstructionSet | None = None
    if isa is not None:
        chosen = next((name for name in library.instruction_sets() if name == isa), None)
        if chosen is None:
            available = ", ".join(library.instruction_sets())
            raise ConfigError(f"--isa {isa} does not run on this machine; use one of {available}")
    return library.using(isa=chosen, num_threads=threads)


def _open_source(model: str) -> tuple[Source, Tokenizer | None]:
    """Weights and tokenizer of a model; random weights, and none, for a shape's name."""
    if model in SHAPES or (model in list_presets() and not Path(model).exists()):
        return RandomWeights(random_config(model)), None
    weights = open_weights(find_model(model))
    return weights, weights.tokenizer()


def case_json(
    measured: Measured, library: Library, gemm_flops_per_second: float, usd_per_hour: float
) -> dict[str, Any]:
    """One case's figures; the read limit is measured now, prefill has none."""
    speed, step = measured.tokens_per_second, measured.step_seconds
    tokens = measured.case.tokens_per_step
    figures: dict[str, Any] = {
        "case": measured.case.name,
        "steps": len(measured.seconds),
        "tokens_per_second": speed,
        "tokens_per_second_min": tokens / max(measured.seconds),
        "tokens_per_second_max": tokens / min(measured.seconds),
        "step_ms": 1e3 * step,
        "flops_per_second": measured.flops / step,
        "gemm_percent": 100 * measured.flops / step / gemm_flops_per_second,
        "usd_per_million_tokens": usd_per_hour / 3600 / speed * 1e6,
    }
    if measured.touched_bytes:
        limit = limit_bytes_per_second(library, measured.touched_bytes)
        figures |= {
            "touched_bytes": measured.touched_bytes,
            "bytes_per_second": measured.touched_bytes / step,
            "read_bytes_per_second": limit,
            "bandwidth_percent": 100 * measured.touched_bytes / step / limit,
            "experts_touched_per_layer": measured.experts_touched,
        }
    return figures


def _print_table(result: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    gemm = result["gemm"]
    title = (
        f"{result['model']}, {result['precision']}, {format_bytes(result['weight_bytes'])} of "
        f"weights, {result['isa']}, {result['threads']} threads, fed {result['text']}; fastest "
        f"matrix product here ({gemm['name']}) {format_flops(gemm['flops_per_second'])}/s"
    )
    table = Table(title=title)
    table.add_column("case", no_wrap=True)
    columns = (
        "tok/s (min-max)",
        "ms",
        "GB/s",
        "% of reading",
        "% of GEMM",
        "experts",
        "$/M tokens",
    )
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        bounds = f"{row['tokens_per_second_min']:.0f}-{row['tokens_per_second_max']:.0f}"
        decodes = "touched_bytes" in row
        table.add_row(
            row["case"],
            f"{row['tokens_per_second']:.0f} ({bounds})",
            f"{row['step_ms']:.2f}",
            f"{row['bytes_per_second'] / 1e9:.1f}" if decodes else "",
            f"{row['bandwidth_percent']:.0f}" if decodes else "",
            f"{row['gemm_percent']:.0f}",
            f"{row['experts_touched_per_layer']:.1f}" if decodes else "",
            f"{row['usd_per_million_tokens']:.4f}",
        )
    console = Console()
    (console if console.is_terminal else Console(width=_PIPE_WIDTH)).print(table)
