"""A model trained here, exported by `rorqual convert`, in transformers, llama.cpp and vLLM.

    python benchmarks/peers/build.py llama vllm              # once; what is missing is left out
    python benchmarks/exported.py models/rorqual-pocket

Each peer loads the export (a Hugging Face directory in fp32; GGUF as F32, BF16 and Q8_0) and scores
the same held-out worked solutions in both languages; the reference is the engine in fp32 on the
model itself. Prompts are the beginnings of the solutions, continued greedily past their end. A peer
that fails to load the export is recorded with what it says. Exits 1 if one fails, if one in fp32 is
further than 1e-4 from the engine at any target, or if a greedy answer of an fp32 peer differs.
"""

import argparse
import json
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from parity_answers import Answer, Asked, ask_engine, ask_peer, can_ask, distance, table
from parity_common import take, worked_solutions

from rorqual.checkpoint import model_directory
from rorqual.checkpoint.convert import Dtype, convert
from rorqual.checkpoint.weights import open_weights
from rorqual.eval.checkpoint import file_digests
from rorqual.tasks import LANGUAGES
from rorqual.tokenizer import Tokenizer
from rorqual.train.folder import git_commit

HERE: Final = Path(__file__).parent
MOST_APART: Final = 1e-4
PROMPT_TOKENS: Final = 16
ANSWER_TOKENS: Final = 48
EXPORTS: Final[tuple[Dtype, ...]] = ("f32", "bf16", "q8_0")


def asked_of(path: Path, num_targets: int, num_prompts: int, threads: int) -> Asked:
    """Half of the targets in each language."""
    tokenizer = Tokenizer.load(path)
    context = open_weights(path).config.max_position_embeddings
    raw = tomllib.loads((HERE / "pocket_families.toml").read_text(encoding="utf-8"))
    names = [task["name"] for task in raw["tasks"]]
    sequences = [
        document.ids.tolist()
        for language in LANGUAGES
        for document in take(
            worked_solutions(tokenizer, names, language, context, "tasks"), num_targets // 2
        )
    ]
    whole = [ids for ids in sequences if len(ids) > 1]
    step = max(1, len(whole) // num_prompts)
    prompts = [ids[:PROMPT_TOKENS] for ids in whole[::step][:num_prompts]]
    return Asked(whole, len(whole), prompts, ANSWER_TOKENS, threads)


def measure(path: Path, asked: Asked, work: Path) -> dict[str, Any]:
    """Every peer against the engine in fp32: figures, or what went wrong."""
    reference = ask_engine(open_weights(path), "fp32", asked)
    systems: dict[str, Any] = {"engine fp32": distance(reference, reference)}
    failed: dict[str, str] = {}

    def peer(name: str, ask: Callable[[], Answer]) -> None:
        try:
            systems[name] = distance(ask(), reference)
        except SystemExit as error:
            failed[name] = str(error)

    exported = work / "hf"
    convert(path, exported, to="hf", dtype="f32")
    peer(
        "transformers fp32",
        lambda: ask_peer("transformers", exported, asked, work),
    )
    if can_ask("vllm"):
        peer("vLLM fp32", lambda: ask_peer("vllm", exported, asked, work))
    for dtype in EXPORTS if can_ask("llama.cpp") else ():
        file = work / f"model-{dtype}.gguf"
        convert(path, file, to="gguf", dtype=dtype)
        peer(
            f"llama.cpp {dtype.upper()}",
            lambda file=file: ask_peer("llama.cpp", file, asked, work),
        )
    return {"systems": systems, "failed": failed}


def bars(result: dict[str, Any]) -> dict[str, bool]:
    """Exact peers stay near and write the same; no peer failed."""
    kept = {f"{name} loads the export": False for name in result["failed"]}
    for name in ("transformers fp32", "llama.cpp F32", "vLLM fp32"):
        found = result["systems"].get(name)
        if found is not None:
            kept[f"{name}: log p within {MOST_APART:g}"] = found["logprob_max"] <= MOST_APART
            equal = found["greedy_equal"] == found["greedy_prompts"]
            kept[f"{name}: greedy answers equal"] = equal
    return kept


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=8_000, help="targets to force")
    parser.add_argument("--prompts", type=int, default=24, help="continued greedily")
    parser.add_argument("--threads", type=int, default=2, help="of the peers")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs/results/exported.json")
    return parser.parse_args()


def main() -> None:
    args = parse()
    path = model_directory(args.model)
    asked = asked_of(path, args.tokens, args.prompts, args.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(path, asked, Path(folder))
    result |= {
        "model": str(args.model),
        "model_sha256": file_digests(path),
        "git_commit": git_commit(),
        "targets": sum(len(ids) - 1 for ids in asked.sequences),
    }
    result["bars"] = bars(result)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table("against the engine in fp32", result["systems"]))
    for name, reason in result["failed"].items():
        print(f"\n{name}: {reason}")
    print(f"\n{result['targets']} targets")
    for name, kept in result["bars"].items():
        print(f"{'kept  ' if kept else 'MISSED'} {name}")
    raise SystemExit(not all(result["bars"].values()))


if __name__ == "__main__":
    main()
