"""What every peer's runner shares: arguments, the text it is fed, the timing loop, its JSON line.

Standard library alone, since each runner lives in the environment of its peer. A runner is a class
with the methods of `Peer`; what is timed is one call that takes token ids and leaves logits in
memory. Decoding feeds the given text, never the model's own choice.
"""

import argparse
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DECODE_WINDOW = 32  # steps after the context before the cache is cut back to it
FEWEST_REPEATS = 3
SCORED_TOKENS = 128


@dataclass(frozen=True)
class Case:
    """`decode:16:512` or `prefill:8:512`: kind, sequences, context."""

    kind: str
    sequences: int
    context: int

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Read the form above."""
        kind, sequences, context = text.split(":")
        if kind not in ("decode", "prefill"):
            raise argparse.ArgumentTypeError(f"{text}: expected decode:16:512 or prefill:8:512")
        return cls(kind, int(sequences), int(context))

    def __str__(self) -> str:
        return f"{self.kind}:{self.sequences}:{self.context}"

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one timed call is fed."""
        return self.sequences * (1 if self.kind == "decode" else self.context)

    @property
    def longest(self) -> int:
        """Positions of a sequence that a cache must hold."""
        return self.context + DECODE_WINDOW


class Text:
    """Token ids, read in a circle."""

    def __init__(self, ids: list[int]):
        self._ids, self._cursor = ids, 0

    def take(self, count: int) -> list[int]:
        """The next `count` ids."""
        found: list[int] = []
        while len(found) < count:
            piece = self._ids[self._cursor : self._cursor + count - len(found)]
            found += piece
            self._cursor = (self._cursor + len(piece)) % len(self._ids)
        return found

    def rows(self, case: Case) -> list[list[int]]:
        """A context for every sequence."""
        return [self.take(case.context) for _ in range(case.sequences)]


class Peer(ABC):
    """One engine with one model loaded."""

    @abstractmethod
    def prefill(self, rows: list[list[int]]) -> None:
        """Empty the cache and feed the rows, keeping logits of each row's last token."""

    @abstractmethod
    def decode(self, ids: list[int]) -> None:
        """Feed one token to every sequence and leave its logits in memory."""

    @abstractmethod
    def rewind(self, length: int) -> None:
        """Cut every sequence's cache back to `length` tokens."""

    @abstractmethod
    def score(self, ids: list[int]) -> tuple[list[int], list[float]]:
        """The likeliest next token at every position, and the log-probability of the true one."""

    def fill(self, rows: list[list[int]]) -> None:
        """Prepare decoding: as `prefill`, but where memory is short, in pieces."""
        self.prefill(rows)

    def times(self, case: Case, text: Text, seconds: float) -> list[float]:
        """Seconds of each repeat of the case; one repeat (decode: some) before is not counted."""
        if case.kind == "prefill":
            rows = text.rows(case)
            self.prefill(rows)
            return repeat(lambda _: self.prefill(rows), seconds)
        self.fill(text.rows(case))
        for _ in range(FEWEST_REPEATS):
            self.decode(text.take(case.sequences))

        def rewind(step: int) -> None:
            if step % DECODE_WINDOW == 0:
                self.rewind(case.context)

        return repeat(lambda _: self.decode(text.take(case.sequences)), seconds, rewind)


def repeat(
    run: Callable[[int], None], seconds: float, before: Callable[[int], None] = lambda step: None
) -> list[float]:
    """Time `run` for at least `seconds`; what `before` does is not counted."""
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < FEWEST_REPEATS or time.perf_counter() < until:
        before(len(times))
        start = time.perf_counter()
        run(len(times))
        times.append(time.perf_counter() - start)
    return times


def main(
    load: Callable[[argparse.Namespace], Peer],
    versions: Callable[[argparse.Namespace], dict[str, Any]],
) -> None:
    """A runner's command line: loads, measures every case, prints one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--ids", type=Path, required=True, help="JSON list of token ids")
    parser.add_argument("--precision", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--isa", default=None)
    parser.add_argument("--cases", nargs="*", type=Case.parse, default=[])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--score", action="store_true")
    arguments = parser.parse_args()
    ids = json.loads(arguments.ids.read_text())
    start = time.perf_counter()
    peer = load(arguments)
    result: dict[str, Any] = {"load_seconds": time.perf_counter() - start, "seconds": {}}
    if arguments.score:
        result["argmax"], result["logprobs"] = peer.score(ids[:SCORED_TOKENS])
    text = Text(ids)
    for case in arguments.cases:
        result["seconds"][str(case)] = peer.times(case, text, arguments.seconds)
    print(json.dumps(result | versions(arguments)), flush=True)
