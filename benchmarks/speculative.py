"""Speculative decoding on a trained model and real prompts: what is accepted, what it is worth.

    python benchmarks/speculative.py models/rorqual-pocket
    python benchmarks/speculative.py MODEL --rounds 1 --requests 2 --batch 1      # a quick look

Held-out problems of the tasks (with thinking), in English and Chinese, and continued plain text
are answered with `num_speculative_tokens` off, 1, 2 and auto: the same requests and seeds, as many
at a time as the batch, prefix cache off. Settings take turns within a round, so that all of them
see the same machine; the figures are medians (least to most) over rounds of written tokens per
second, prompts included. A round whose tokens differ between settings ends the run with an error.
"""

import argparse
import json
import statistics
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rorqual.config.tasks import TaskShare
from rorqual.engine.llm import LLM
from rorqual.engine.requests import SamplingParams
from rorqual.eval.problems import held_out_problems, open_tasks
from rorqual.tasks import Language

HERE: Final = Path(__file__).parent
TEXTS: Final[dict[Language, Path]] = {
    "en": HERE.parent / "docs" / "claims.md",
    "zh": HERE.parent / "docs" / "claims.zh.md",
}
SETTINGS: Final[dict[str, int | str]] = {"off": "off", "1": 1, "2": 2, "auto": "auto"}
BEGINNING_TOKENS: Final = 48


@dataclass
class Line:
    """One setting on one workload: written tokens per second of each round."""

    workload: str
    batch: int
    temperature: float
    setting: str
    tokens_per_second: list[float] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0
    measured_gain: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.tokens_per_second)

    def text(self, off: "Line") -> str:
        rates = self.tokens_per_second
        share = f"{100 * self.accepted / self.drafted:5.1f} %" if self.drafted else "      -"
        pairs = [mine / other for mine, other in zip(rates, off.tokens_per_second, strict=True)]
        own = "" if self.measured_gain is None else f"  (measured itself {self.measured_gain:.2f})"
        return (
            f"{self.workload:12} {self.batch:5} {self.temperature:4.1f} {self.setting:>5} "
            f"{self.median:9.0f} ({min(rates):.0f} to {max(rates):.0f}) {share} "
            f"{statistics.median(pairs):6.2f} ({min(pairs):.2f} to {max(pairs):.2f}){own}"
        )


def problem_prompts(llm: LLM, tasks: Path, language: Language, count: int) -> list[list[int]]:
    """Held-out problems as the model's chat format puts them."""
    raw = tomllib.loads(tasks.read_text(encoding="utf-8"))["tasks"]
    shares = [
        TaskShare.model_validate(one | {"languages": (language,)})
        for one in raw
        if language in one.get("languages", ("en", "zh"))
    ]
    with open_tasks(shares):
        problems = held_out_problems(shares, count, seed=7)
    return [
        llm.tokenizer.encode_messages(
            [{"role": "user", "content": problem.prompt}],
            add_generation_prompt=True,
            thinking=True,
        )
        for problem in problems
    ]


def text_prompts(llm: LLM, language: Language, count: int) -> list[list[int]]:
    """Beginnings of plain text, one after another out of a document."""
    ids = llm.tokenizer.encode(TEXTS[language].read_text(encoding="utf-8"))
    places = [index * (len(ids) - BEGINNING_TOKENS) // count for index in range(count)]
    return [
        [llm.tokenizer.bos_token_id, *ids[place : place + BEGINNING_TOKENS]] for place in places
    ]


def answer(
    llm: LLM, prompts: Sequence[list[int]], temperature: float, seed: int, max_tokens: int
) -> tuple[list[list[int]], float]:
    """The tokens written, and the seconds it took."""
    params = [
        SamplingParams(
            temperature=temperature, top_p=0.95, seed=seed + index, max_tokens=max_tokens
        )
        for index in range(len(prompts))
    ]
    started = time.perf_counter()
    outputs = llm.generate(prompts, params)
    seconds = time.perf_counter() - started
    return [output.outputs[0].token_ids for output in outputs], seconds


def measure(
    llms: dict[str, LLM], name: str, prompts: Sequence[list[int]], batch: int, temperature: float,
    rounds: int, max_tokens: int,
) -> list[Line]:  # fmt: skip
    """All settings on one workload, in turn."""
    lines = {setting: Line(name, batch, temperature, setting) for setting in llms}
    before = {setting: llm.stats() for setting, llm in llms.items()}
    for number in range(rounds):
        expected: list[list[int]] | None = None
        order = list(llms) if number % 2 == 0 else list(llms)[::-1]
        for setting in order:
            found, seconds = answer(llms[setting], prompts, temperature, 1000 * number, max_tokens)
            if expected is not None and found != expected:
                raise SystemExit(f"{name}: {setting} wrote other tokens; speculation is not exact")
            expected = found
            written = sum(len(ids) for ids in found)
            lines[setting].tokens_per_second.append(written / seconds)
    for setting, llm in llms.items():
        line, stats, old = lines[setting], llm.stats(), before[setting]
        line.drafted = stats.drafted_tokens - old.drafted_tokens
        line.accepted = stats.accepted_tokens - old.accepted_tokens
        line.measured_gain = stats.speculation_gain
    return list(lines.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?", default="models/rorqual-pocket")
    parser.add_argument("--tasks", type=Path, default=HERE / "pocket_families.toml")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--temperature", nargs="+", type=float, default=[0.0, 0.6])
    parser.add_argument("--requests", type=int, default=8, help="of a workload, times the batch")
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None, help="write the figures here too")
    arguments = parser.parse_args()
    found: list[Line] = []
    print("workload     batch    T draft   tokens/s (least to most)  accepted  speed-up")
    for batch in arguments.batch:
        llms = {
            name: LLM(
                arguments.model, precision=arguments.precision, max_num_seqs=batch, seed=0,
                prefix_caching=False, max_cache_bytes=64 << 20, num_speculative_tokens=value,
            )
            for name, value in SETTINGS.items()
        }  # fmt: skip
        count = max(4, arguments.requests) if batch == 1 else arguments.requests * batch // 2
        first = llms["off"]
        workloads: dict[str, list[list[int]]] = {}
        languages: tuple[Language, ...] = ("en", "zh")
        for language in languages:
            workloads[f"problems {language}"] = problem_prompts(
                first, arguments.tasks, language, count
            )
            workloads[f"text {language}"] = text_prompts(first, language, count)
        for name, prompts in workloads.items():
            for llm in llms.values():
                answer(llm, prompts, 0.0, 0, arguments.max_tokens)  # warm, and auto's trial
            for temperature in arguments.temperature:
                lines = measure(
                    llms, name, prompts, batch, temperature, arguments.rounds, arguments.max_tokens
                )
                for line in lines:
                    print(line.text(lines[0]), flush=True)
                found += lines
        for llm in llms.values():
            llm.close()
    if arguments.json is not None:
        raw = [asdict(line) | {"median": line.median} for line in found]
        arguments.json.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
