"""Answers to one request by the engine and by its peers, and how far they lie apart.

A request is tokens to force, of the first few of which whole distributions are kept, and prompts to
continue greedily. Peers run in their own Python through peers/score.py.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from parity_common import Floats, Forced, log_softmax, markdown, sequence_gap
from peers.build import is_built, python_of

from rorqual.checkpoint.weights import Weights
from rorqual.kernels.runtime_layout import Precision

WORKER = Path(__file__).parent / "peers" / "score.py"
# Of benchmarks/peers/build.py; None: the tests' own transformers.
ENVIRONMENT = {"transformers": None, "llama.cpp": "llama", "vllm": "vllm"}


@dataclass(frozen=True)
class Asked:
    """What every system is asked; peers/score.py reads it as JSON."""

    sequences: list[list[int]]
    num_full: int
    prompts: list[list[int]]
    max_tokens: int
    threads: int

    @property
    def context(self) -> int:
        """The longest of all sequences."""
        longest = max(map(len, self.prompts), default=0) + self.max_tokens
        return max(longest, *map(len, self.sequences))


@dataclass(frozen=True)
class Answer:
    """targets, argmax [positions with a next token]; full [rows, V] log p; greedy [prompts, m]."""

    targets: Floats
    argmax: NDArray[np.integer[Any]]
    full: Floats
    greedy: NDArray[np.integer[Any]]
    gaps: list[list[float]] = field(default_factory=list)  # of the two best logits, greedy


def can_ask(kind: str) -> bool:
    """Whether a peer is here; where it is not, a line says how to build it."""
    environment = ENVIRONMENT[kind]
    if environment is None or is_built(environment):
        return True
    print(f"without {kind}: python benchmarks/peers/build.py {environment}", file=sys.stderr)
    return False


def ask_peer(kind: str, model: Path, asked: Asked, work: Path) -> Answer:
    """One peer in its own Python; SystemExit with its last words if it fails."""
    environment = ENVIRONMENT[kind]
    python = sys.executable if environment is None else str(python_of(environment))
    request, answer = work / "request.json", work / "answer.npz"
    request.write_text(json.dumps(asdict(asked)), encoding="utf-8")
    print(f"  {kind} on {model.name}", file=sys.stderr, flush=True)
    command = [python, str(WORKER), kind, str(model), str(request), str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise SystemExit(f"{kind} on {model.name} failed: {''.join(last) or done.returncode}")
    with np.load(answer) as found:
        return Answer(found["targets"], found["argmax"], found["full"], found["greedy"])


def ask_engine(weights: Weights, precision: Precision, asked: Asked) -> Answer:
    """Our native runtime in one precision."""
    print(f"  engine {precision}", file=sys.stderr, flush=True)
    forced = Forced(weights, precision, context=asked.context)
    targets: list[Floats] = []
    argmax: list[NDArray[np.integer[Any]]] = []
    full: list[Floats] = []
    for number, sequence in enumerate(asked.sequences):
        ids = np.array(sequence, np.int32)
        logprobs = log_softmax(forced.logits(ids)[0][:-1])
        targets.append(logprobs[np.arange(len(ids) - 1), ids[1:]])
        argmax.append(logprobs.argmax(axis=-1))
        if number < asked.num_full:
            full.append(logprobs.astype(np.float32))
    greedy = [forced.greedy(prompt, asked.max_tokens) for prompt in asked.prompts]
    forced.close()
    return Answer(
        np.concatenate(targets),
        np.concatenate(argmax),
        np.concatenate(full),
        np.array([tokens for tokens, _ in greedy]),
        [gaps for _, gaps in greedy],
    )


def distance(answer: Answer, reference: Answer) -> dict[str, Any]:
    """An answer against the reference's; KL(reference || answer) where both show distributions."""
    apart = np.abs(answer.targets - reference.targets)
    perplexity = float(np.exp(-answer.targets.mean()))
    found: dict[str, Any] = {
        "perplexity": perplexity,
        "perplexity_ratio": perplexity / float(np.exp(-reference.targets.mean())),
        "logprob_mean": float(apart.mean()),
        "logprob_p99": float(np.percentile(apart, 99)),
        "logprob_max": float(apart.max()),
        "argmax_agrees": float((answer.argmax == reference.argmax).mean()),
        "kl_mean": None,
        "greedy_equal": int((answer.greedy == reference.greedy).all(axis=1).sum()),
        "greedy_prompts": len(reference.greedy),
        "greedy_parts": [],
    }
    if answer.full.size and reference.full.size:
        p = reference.full.astype(np.float64)
        found["kl_mean"] = float((np.exp(p) * (p - answer.full)).sum(axis=-1).mean())
    gaps = answer.gaps or reference.gaps
    for number, one in enumerate(gaps):
        where = sequence_gap(answer.greedy[number].tolist(), reference.greedy[number].tolist(), one)
        if where is not None:
            found["greedy_parts"].append({"prompt": number, "token": where[0], "gap": where[1]})
    return found


def table(title: str, found: dict[str, dict[str, Any]]) -> str:
    """One line a system."""
    header = [
        title, "perplexity", "ratio", "log p apart: mean", "max", "KL mean, nats",
        "argmax agrees", "greedy answers equal",
    ]  # fmt: skip
    rows: list[Sequence[str]] = [
        [
            name, f"{f['perplexity']:.4f}", f"{f['perplexity_ratio']:.5f}",
            f"{f['logprob_mean']:.2e}", f"{f['logprob_max']:.2e}",
            "not shown" if f["kl_mean"] is None else f"{f['kl_mean']:.2e}",
            f"{f['argmax_agrees']:.2%}", f"{f['greedy_equal']} of {f['greedy_prompts']}",
        ]
        for name, f in found.items()
    ]  # fmt: skip
    return markdown(header, rows)
