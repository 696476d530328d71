"""Ours, in the checkout's own environment: the native runtime's step, as the engine calls it."""

import argparse
import json
from typing import Any

import cases
import numpy as np

from rorqual import __version__
from rorqual.checkpoint.weights import open_weights
from rorqual.engine.benchmark import Case, StepBench
from rorqual.kernels.library import native_library
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch


class Rorqual(cases.Peer):
    """A StepBench, whose own loop and text are the ones that `rorqual bench` uses."""

    def __init__(self, arguments: argparse.Namespace):
        library = native_library()
        assert library is not None, "build the native kernels first"
        self._library = library.using(isa=arguments.isa, num_threads=arguments.threads)
        weights = open_weights(arguments.model)
        wanted = [self._case(case) for case in arguments.cases]
        self._bench = StepBench(
            weights.config,
            weights.read,
            precision=arguments.precision,
            library=self._library,
            cases=[*wanted, Case("prefill", 1, cases.SCORED_TOKENS)],
            token_ids=np.asarray(json.loads(arguments.ids.read_text()), np.int32),
        )

    @staticmethod
    def _case(case: cases.Case) -> Case:
        kind = "decode" if case.kind == "decode" else "prefill"
        return Case(kind, case.sequences, case.context)

    def times(self, case: cases.Case, text: cases.Text, seconds: float) -> list[float]:
        return list(self._bench.measure(self._case(case), seconds).seconds)

    def score(self, ids: list[int]) -> tuple[list[int], list[float]]:
        """In one step over a cache of its own blocks, the first ones."""
        count = len(ids)
        blocks = np.arange(-(-count // BLOCK_TOKENS), dtype=np.int32)[None]
        rows = np.arange(count, dtype=np.int32)
        fed = np.asarray(ids, np.int32)
        ends = np.asarray([0, count], np.int32)
        batch = StepBatch(fed, ends, np.zeros(1, np.int32), blocks, rows)
        logits = self._bench.runtime.step(batch).logits.astype(np.float64)
        logits -= np.logaddexp.reduce(logits, axis=1, keepdims=True)
        return logits[:-1].argmax(1).tolist(), logits[rows[:-1], fed[1:]].tolist()

    def prefill(self, rows: list[list[int]]) -> None:
        raise NotImplementedError("StepBench times its own steps")

    def decode(self, ids: list[int]) -> None:
        raise NotImplementedError("StepBench times its own steps")

    def rewind(self, length: int) -> None:
        raise NotImplementedError("StepBench times its own steps")


def versions(arguments: argparse.Namespace) -> dict[str, Any]:
    """What ran."""
    library = native_library()
    assert library is not None
    return {"version": f"rorqual {__version__}", "isa": library.using(isa=arguments.isa).isa}


if __name__ == "__main__":
    cases.main(Rorqual, versions)
