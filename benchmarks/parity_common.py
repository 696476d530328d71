"""What the parity benchmarks share: text to force, scoring it on the runtime, and the figures.

A document is teacher-forced: its tokens are given, and what counts are the log-probabilities of
each next one. Letters as in docs/shapes.md.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rorqual.checkpoint.weights import Weights
from rorqual.kernels.library import native_library
from rorqual.kernels.runtime import Runtime
from rorqual.kernels.runtime_layout import Precision
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch
from rorqual.tasks import LANGUAGES, Language, load_task, make_in_split
from rorqual.tokenizer import Tokenizer

Ids = NDArray[np.int32]
Floats = NDArray[np.floating[Any]]
Routes = NDArray[np.int16]

_CHUNK_TOKENS: Final = 100  # of a document fed at once: chunks end in the middle of a block
_SHARE_THINKING: Final = 0.7
_DRAWS_WITHOUT_NEWS: Final = 200


@dataclass(frozen=True, slots=True)
class Document:
    """Tokens [T], the first of which is given and the others forced."""

    source: str
    language: Language
    ids: Ids

    @property
    def num_targets(self) -> int:
        """Positions whose next token is known."""
        return len(self.ids) - 1


def take(documents: Iterator[Document], num_targets: int) -> list[Document]:
    """Documents with that many targets in all, the last one cut; fewer if they run out."""
    taken: list[Document] = []
    missing = num_targets
    for document in documents:
        if missing <= 0:
            break
        cut = document.ids[: missing + 1]
        taken.append(Document(document.source, document.language, cut))
        missing -= len(cut) - 1
    return taken


def worked_solutions(
    tokenizer: Tokenizer, names: Sequence[str], language: Language, context: int, source: str
) -> Iterator[Document]:
    """Held-out problems of these tasks at level 1 with their worked solutions, none twice."""
    tasks = [load_task(name) for name in names]
    seen: set[str] = set()
    misses = number = 0
    while misses < _DRAWS_WITHOUT_NEWS:
        rng = random.Random(f"parity {source} {language} {number}")
        task = tasks[number % len(tasks)]
        number += 1
        problem = make_in_split(task, rng, 1, language, held_out=True)
        if problem.problem_id in seen:
            misses += 1
            continue
        misses = 0
        seen.add(problem.problem_id)
        thinking = rng.random() < _SHARE_THINKING
        messages = task.solve(problem, rng).messages(problem, thinking=thinking)
        ids = tokenizer.encode_conversation(messages).ids
        yield Document(source, language, np.array(ids[:context], np.int32))


def plain_text(
    tokenizer: Tokenizer, files: Sequence[Path], language: Language, context: int
) -> Iterator[Document]:
    """The files in pieces of the whole context, each after a begin token."""
    begin = tokenizer.bos_token_id
    for file in files:
        ids = tokenizer.encode(file.read_text(encoding="utf-8"))
        for at in range(0, len(ids), context - 1):
            piece = np.array([begin, *ids[at : at + context - 1]], np.int32)
            if len(piece) > 1:
                yield Document("text", language, piece)


def mixture(
    tokenizer: Tokenizer,
    tasks: Sequence[str],
    texts: dict[Language, Sequence[Path]],
    num_targets: int,
    context: int,
) -> list[Document]:
    """Half of all targets a language: an eighth text, a sixteenth about itself, the rest tasks."""
    found: list[Document] = []
    for language in LANGUAGES:
        own: list[Document] = take(
            worked_solutions(tokenizer, ["about_itself"], language, context, "about_itself"),
            num_targets // 16,
        )
        own += take(plain_text(tokenizer, texts[language], language, context), num_targets // 8)
        missing = num_targets // 2 - sum(document.num_targets for document in own)
        found += own
        found += take(worked_solutions(tokenizer, tasks, language, context, "tasks"), missing)
    return found


class Forced:
    """The native runtime in one precision, fed documents from outside the scheduler."""

    def __init__(self, weights: Weights, precision: Precision, *, context: int):
        library = native_library()
        if library is None:
            raise SystemExit("the native library is missing; build it (make setup)")
        self.num_blocks = -(-context // BLOCK_TOKENS)
        self._runtime = Runtime(
            weights.config,
            weights.read,
            precision=precision,
            num_blocks=self.num_blocks,
            library=library,
            max_batch_tokens=_CHUNK_TOKENS,
        )
        # Scattered blocks, as a long-running cache has them.
        order = np.random.default_rng(0).permutation(self.num_blocks)
        self._table = order.astype(np.int32)[None]

    def logits(self, ids: Ids, replay: Routes | None = None) -> tuple[Floats, Routes | None]:
        """Logits [T, V] after each token, in chunks through the paged cache, and its routes."""
        logits: list[Floats] = []
        routes: list[Routes] = []
        for at in range(0, len(ids), _CHUNK_TOKENS):
            piece = np.ascontiguousarray(ids[at : at + _CHUNK_TOKENS], np.int32)
            batch = StepBatch(
                piece,
                np.array([0, len(piece)], np.int32),
                np.array([at], np.int32),
                self._table,
                np.arange(len(piece), dtype=np.int32),
            )
            part = None if replay is None else np.ascontiguousarray(replay[at : at + len(piece)])
            out = self._runtime.step(batch, record_routes=True, replay_routes=part)
            logits.append(out.logits)
            if out.routes is not None:
                routes.append(out.routes)
        return np.concatenate(logits), np.concatenate(routes) if routes else None

    def greedy(self, prompt: Sequence[int], max_tokens: int) -> tuple[list[int], list[float]]:
        """Tokens after the prompt and the gap between the two largest logits at each of them."""
        ids = np.array(prompt, np.int32)
        row = self.logits(ids)[0][-1]
        tokens: list[int] = []
        gaps: list[float] = []
        for number in range(max_tokens):
            second, first = np.partition(row, -2)[-2:]
            tokens.append(int(row.argmax()))
            gaps.append(float(first - second))
            batch = StepBatch(
                np.array(tokens[-1:], np.int32),
                np.array([0, 1], np.int32),
                np.array([len(ids) + number], np.int32),
                self._table,
                np.array([0], np.int32),
            )
            row = self._runtime.step(batch).logits[0]
        return tokens, gaps

    def close(self) -> None:
        """Give back the memory."""
        self._runtime.close()


def log_softmax(logits: Floats) -> Floats:
    """[T, V] -> [T, V] float64, so that the comparison adds no rounding of its own."""
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def of_targets(logprobs: Floats, ids: Ids) -> Floats:
    """log p of each next token: [T, V], [T] -> [T - 1]"""
    return logprobs[np.arange(len(ids) - 1), ids[1:]]


def changed_routes(a: Routes, b: Routes) -> int:
    """Tokens that go to another set of experts in any layer. [T, layers, K] twice"""
    same = (np.sort(a, axis=-1) == np.sort(b, axis=-1)).all(axis=(1, 2))
    return int((~same).sum())


def sequence_gap(
    ours: Sequence[int], theirs: Sequence[int], gaps: Sequence[float]
) -> tuple[int, float] | None:
    """Where two greedy answers part, and our gap between the two best logits there."""
    for at, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        if mine != other:
            return at, gaps[at]
    return None


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as docs/results.md has them."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
