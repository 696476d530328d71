"""How exactly the engine computes what the trainer trained: log-probabilities, routes, tasks.

    python benchmarks/parity.py models/rorqual-pocket
    python benchmarks/parity.py MODEL --tokens 2000 --problems 0      # a quick look

Teacher-forces the same tokens (held-out worked solutions and answers about itself in both
languages, and text that no run trained on) through the trainer's model in fp32, which is the
reference, and through the native runtime in each precision. Routed models also run with the
reference's routes replayed, so that one rounding error does not send a token elsewhere; the
trainer's own bf16, free and replayed, is the yardstick beside it. `--problems` asks held-out
problems in each precision, same seeds. Prints tables and writes JSON; exits 1 if a bar is missed.

NOTE: keeps one [tokens, V] fp32 array of reference logits in memory.
"""

import argparse
import json
import math
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from parity_common import (
    Document,
    Floats,
    Forced,
    Routes,
    changed_routes,
    log_softmax,
    markdown,
    mixture,
    of_targets,
)

from rorqual.checkpoint import load_model, model_directory
from rorqual.checkpoint.weights import open_weights
from rorqual.config.eval import EvalRunConfig
from rorqual.engine.llm import LLM
from rorqual.engine.requests import SamplingParams
from rorqual.eval.checkpoint import file_digests
from rorqual.eval.problems import held_out_problems, open_tasks
from rorqual.eval.run import evaluate
from rorqual.eval.summary import find_group, summarize
from rorqual.kernels.runtime_layout import Precision
from rorqual.model import Completion, Transformer
from rorqual.model.router import Router, Routing
from rorqual.tasks import Language
from rorqual.tokenizer import Tokenizer
from rorqual.train.folder import git_commit

HERE: Final = Path(__file__).parent
DOCS: Final = HERE.parent / "docs"
TEXTS: Final[dict[Language, Sequence[Path]]] = {
    "en": [DOCS / "claims.md"],
    "zh": [DOCS / "claims.zh.md"],
}
FP32_MOST: Final = 1e-4
BF16_MEAN: Final = 1e-2
BF16_P99: Final = 5e-2
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "bf16", "int8", "int4")

Step = Callable[[Document, "Reference"], tuple[Floats, Routes | None]]


@dataclass(frozen=True, slots=True)
class Reference:
    """The trainer's model in fp32 over one document: logits [T, V], routes [T, layers, K]."""

    logits: NDArray[np.float32]
    routes: Routes | None


@dataclass
class Gathered:
    """Differences of one way of computing to the reference, over all documents."""

    targets: list[Floats] = field(default_factory=list)  # |log p| differences of the next tokens
    entries: list[NDArray[np.float32]] = field(default_factory=list)  # |logit| differences [T, V]
    kl: list[Floats] = field(default_factory=list)
    gaps: list[Floats] = field(default_factory=list)  # reference's two best logits
    agrees: list[NDArray[np.bool_]] = field(default_factory=list)
    most: float = 0.0  # |log p| difference of any token of the vocabulary
    changed: int = 0
    nats: dict[str, float] = field(default_factory=dict)

    def add(
        self, document: Document, reference: Reference, logits: Floats, routes: Routes | None
    ) -> None:
        """One document; its last row has no target and is left out."""
        ids = document.ids
        theirs, ours = log_softmax(reference.logits[:-1]), log_softmax(logits[:-1])
        chosen = of_targets(ours, ids)
        self.targets.append(np.abs(chosen - of_targets(theirs, ids)))
        self.most = max(self.most, float(np.abs(ours - theirs).max()))
        self.entries.append(np.abs(logits[:-1] - reference.logits[:-1]))
        self.kl.append((np.exp(theirs) * (theirs - ours)).sum(axis=-1))
        best = np.partition(reference.logits[:-1], -2, axis=-1)[:, -2:]
        self.gaps.append(best[:, 1] - best[:, 0])
        self.agrees.append(logits[:-1].argmax(-1) == reference.logits[:-1].argmax(-1))
        if routes is not None and reference.routes is not None:
            self.changed += changed_routes(routes[:-1], reference.routes[:-1])
        for key in (f"{document.source} {document.language}", "all"):
            self.nats[key] = self.nats.get(key, 0.0) - float(chosen.sum())

    def figures(self, num_bytes: dict[str, int]) -> dict[str, Any]:
        """What the tables say."""
        targets, kl = np.concatenate(self.targets), np.concatenate(self.kl)
        gaps, agrees = np.concatenate(self.gaps), np.concatenate(self.agrees)
        error = float(np.percentile(np.concatenate([e.ravel() for e in self.entries]), 99))
        clear = gaps > error
        return {
            "targets": len(targets),
            "logprob_mean": float(targets.mean()),
            "logprob_p99": float(np.percentile(targets, 99)),
            "logprob_max": float(targets.max()),
            "logprob_max_any_token": self.most,
            "logit_p99": error,
            "kl_mean": float(kl.mean()),
            "kl_p99": float(np.percentile(kl, 99)),
            "argmax_agrees": float(agrees.mean()),
            "clear_positions": int(clear.sum()),
            "clear_positions_that_differ": int((clear & ~agrees).sum()),
            "largest_gap_that_differs": float(gaps[~agrees].max(initial=0.0)),
            "share_changed_routes": self.changed / len(targets),
            "bits_per_byte": {
                key: nats / math.log(2) / num_bytes[key] for key, nats in self.nats.items()
            },
        }


@contextmanager
def replayed(model: Transformer, routes: Routes | None) -> Iterator[None]:
    """The trainer's routers choose these experts; their weights follow from its own scores."""
    routers = [module for module in model.modules() if isinstance(module, Router)]
    hooks: list[Any] = []
    if routes is not None:
        for layer, router in enumerate(routers):
            chosen = torch.from_numpy(routes[:, layer].astype(np.int64))  # [T, K]

            def choose(
                module: Router, _: object, out: Routing, chosen: torch.Tensor = chosen
            ) -> Routing:
                weight = module._scale(out.scores.gather(1, chosen))
                return Routing(chosen, weight, out.scores)

            hooks.append(router.register_forward_hook(choose))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def trainer(
    model: Transformer, document: Document, dtype: torch.dtype, replay: Routes | None = None
) -> Reference:
    """The trainer's forward over a whole document."""
    tokens = torch.from_numpy(document.ids.astype(np.int64))[None]  # [1, T]
    with replayed(model, replay):
        out = model(tokens, dtype=dtype)
    logits = model.lm_head(out.hidden)[0].float().numpy()  # [T, V]
    routes = [one.routing.expert_idx for one in out.routing]
    found = torch.stack(routes, dim=1).to(torch.int16).numpy() if routes else None
    return Reference(logits, found)


def compare(
    documents: Sequence[Document],
    references: Sequence[Reference],
    step: Step,
    sizes: NDArray[np.int32],
) -> dict[str, Any]:
    """One way of computing against the references."""
    gathered = Gathered()
    num_bytes: dict[str, int] = {}
    for document, reference in zip(documents, references, strict=True):
        logits, routes = step(document, reference)
        gathered.add(document, reference, logits, routes)
        count = int(sizes[document.ids[1:]].sum())
        for key in (f"{document.source} {document.language}", "all"):
            num_bytes[key] = num_bytes.get(key, 0) + count
    return gathered.figures(num_bytes)


def all_figures(path: Path, documents: Sequence[Document], context: int) -> dict[str, Any]:
    """Every way of computing over the documents."""
    sizes = Tokenizer.load(path).token_num_bytes()
    model = load_model(path, dtype=torch.float32, with_mtp=False).eval()
    references = [trainer(model, document, torch.float32) for document in documents]
    routed = references[0].routes is not None
    found: dict[str, Any] = {}

    def measure(name: str, step: Step) -> None:
        found[name] = compare(documents, references, step, sizes)
        print(f"  {name}: done", file=sys.stderr, flush=True)

    def by_trainer(replay: bool) -> Step:
        def step(document: Document, reference: Reference) -> tuple[Floats, Routes | None]:
            out = trainer(model, document, torch.bfloat16, reference.routes if replay else None)
            return out.logits, out.routes

        return step

    measure("trainer bf16", by_trainer(False))
    if routed:
        measure("trainer bf16, routes replayed", by_trainer(True))
    weights = open_weights(path)
    for precision in PRECISIONS:
        forced = Forced(weights, precision, context=context)
        measure(f"engine {precision}", lambda d, _, forced=forced: forced.logits(d.ids))
        if routed and precision != "fp32":
            measure(
                f"engine {precision}, routes replayed",
                lambda d, r, forced=forced: forced.logits(d.ids, r.routes),
            )
        forced.close()
    return found


def bars(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What has to hold of these figures: value, limit, kept."""
    half = found.get("engine bf16, routes replayed", found["engine bf16"])
    own = found.get("trainer bf16, routes replayed", found["trainer bf16"])
    wanted: dict[str, tuple[float, float]] = {
        "fp32: largest difference of log p, any token": (
            found["engine fp32"]["logprob_max_any_token"], FP32_MOST),
        "bf16 replayed: mean": (half["logprob_mean"], BF16_MEAN),
        "bf16 replayed: 99th percentile": (half["logprob_p99"], BF16_P99),
        "bf16 replayed: mean against the trainer's bf16": (
            half["logprob_mean"], own["logprob_mean"]),
        "bf16 replayed: 99th percentile against the trainer's bf16": (
            half["logprob_p99"], own["logprob_p99"]),
        "bf16 replayed: clear argmax that differs": (half["clear_positions_that_differ"], 0),
        "fp32: clear argmax that differs": (
            found["engine fp32"]["clear_positions_that_differ"], 0),
    }  # fmt: skip
    return {
        name: {"value": value, "limit": limit, "kept": value <= limit}
        for name, (value, limit) in wanted.items()
    }


def sample_with_llm(
    model: LLM,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    should_stop: Callable[[], bool],
) -> list[Completion]:
    """What `rorqual.eval` draws with, on the engine in any precision."""
    params = [
        SamplingParams(
            seed=int(seed), temperature=temperature, max_tokens=max_new_tokens,
            skip_special_tokens=False,
        )
        for seed in seeds
    ]  # fmt: skip
    outputs = [one.outputs[0] for one in model.generate(prompts, params)]
    return [
        Completion(ids=o.token_ids, logprobs=[], ended=o.finish_reason == "stop", entropy=0.0)
        for o in outputs
    ]


def accuracy(path: Path, config: EvalRunConfig, precision: Precision) -> dict[str, Any]:
    """Pass@1 on held-out problems, overall, by language and by family."""
    problems = held_out_problems(config.tasks, config.eval.num_problems, config.eval.seed)
    with (
        LLM(path, precision=precision, max_cache_bytes=256 << 20) as llm,
        open_tasks(config.tasks) as tasks,
    ):
        done = evaluate(llm, llm.tokenizer, problems, tasks, config.eval, sampler=sample_with_llm)
    groups = summarize(done.items)

    def cell(task: str | None, language: str | None) -> dict[str, Any]:
        one = find_group(groups, task=task, language=language)
        return {"pass@1": one["pass@1"], "interval": one["pass@1_interval"]}

    cells = {"all": cell(None, None), "en": cell(None, "en"), "zh": cell(None, "zh")}
    return cells | {share.name: cell(share.name, None) for share in config.tasks}


def eval_config(file: Path, num_problems: int) -> EvalRunConfig:
    """The file's tasks and sampling with another number of problems."""
    raw = tomllib.loads(file.read_text(encoding="utf-8"))
    raw["eval"]["num_problems"] = num_problems
    return EvalRunConfig.model_validate(raw)


def report(result: dict[str, Any]) -> str:
    """The JSON as Markdown tables."""
    names = list(result["logits"])
    rows = []
    for name in names:
        f = result["logits"][name]
        clear = f"{f['clear_positions_that_differ']} of {f['clear_positions']}"
        rows.append([
            name, f"{f['logprob_mean']:.2e}", f"{f['logprob_p99']:.2e}", f"{f['logprob_max']:.2e}",
            f"{f['share_changed_routes']:.2%}", f"{f['argmax_agrees']:.2%}", clear,
            f"{f['kl_mean']:.2e}", f"{f['bits_per_byte']['all']:.4f}",
        ])  # fmt: skip
    header = [
        "against the trainer in fp32", "log p mean", "99th percentile", "max", "routes changed",
        "argmax agrees", "clear argmax that differs", "KL mean, nats", "bits per byte",
    ]  # fmt: skip
    parts = [markdown(header, rows)]
    parts.append(
        markdown(
            ["bar", "value", "limit", "kept"],
            [
                [name, f"{b['value']:.3g}", f"{b['limit']:.3g}", "yes" if b["kept"] else "**no**"]
                for name, b in result["bars"].items()
            ],
        )
    )
    if result["accuracy"]:
        cells = list(result["accuracy"]["fp32"])
        rows = [
            [p, *(f"{found[c]['pass@1']:.1%} ({found[c]['interval'][0]:.1%}-"
                  f"{found[c]['interval'][1]:.1%})" for c in cells)]
            for p, found in result["accuracy"].items()
        ]  # fmt: skip
        parts.append(markdown(["pass@1", *cells], rows))
    return "\n\n".join(parts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="a model directory that this repository trained")
    parser.add_argument("--tokens", type=int, default=20_000, help="targets to force")
    parser.add_argument(
        "--families",
        type=Path,
        default=HERE / "pocket_families.toml",
        help="tasks: those whose solutions are forced and whose problems are asked",
    )
    parser.add_argument("--problems", type=int, default=360, help="0: leave task accuracy out")
    parser.add_argument("--out", type=Path, default=DOCS / "results" / "parity.json")
    return parser.parse_args()  # fmt: skip


def main() -> None:
    args = parse()
    path = model_directory(args.model)
    context = open_weights(path).config.max_position_embeddings
    config = eval_config(args.families, max(args.problems, 1))
    names = [share.name for share in config.tasks if share.name != "about_itself"]
    documents = mixture(Tokenizer.load(path), names, TEXTS, args.tokens, context)
    counts: dict[str, int] = {}
    for document in documents:
        key = f"{document.source} {document.language}"
        counts[key] = counts.get(key, 0) + document.num_targets
    logits = all_figures(path, documents, context)
    found = {p: accuracy(path, config, p) for p in PRECISIONS} if args.problems else {}
    result = {
        "model": str(args.model),
        "model_sha256": file_digests(path),
        "git_commit": git_commit(),
        "targets": counts,
        "logits": logits,
        "bars": bars(logits),
        "accuracy": found,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(counts), report(result), sep="\n\n")
    raise SystemExit(not all(bar["kept"] for bar in result["bars"].values()))


if __name__ == "__main__":
    main()
