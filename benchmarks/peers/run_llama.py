"""llama.cpp through its C interface, as llama-cpp-python binds it: batches of ids in, logits out.

FlashAttention and the split cache are llama.cpp's own defaults, which were the faster ones here.
"""

import argparse
import ctypes
from typing import Any

import cases
import llama_cpp
import numpy as np

BATCH_TOKENS, MICRO_BATCH_TOKENS = 4096, 512


@llama_cpp.llama_log_callback
def _quiet(level: int, text: bytes, data: object) -> None:
    del level, text, data


class LlamaCpp(cases.Peer):
    """One context with a cache for every sequence."""

    def __init__(self, arguments: argparse.Namespace):
        llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(arguments.model).encode(), options)
        assert self._model, f"llama.cpp does not load {arguments.model}"
        sequences = max([case.sequences for case in arguments.cases], default=1)
        longest = max([case.longest for case in arguments.cases], default=cases.SCORED_TOKENS)
        shape = llama_cpp.llama_context_default_params()
        shape.n_ctx = sequences * -(-max(longest, cases.SCORED_TOKENS) // 256) * 256
        shape.n_batch, shape.n_ubatch = BATCH_TOKENS, MICRO_BATCH_TOKENS
        shape.n_seq_max = sequences
        shape.n_threads = shape.n_threads_batch = arguments.threads
        self._context = llama_cpp.llama_init_from_model(self._model, shape)
        assert self._context, "llama.cpp makes no context of that size"
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._lengths: list[int] = []

    def prefill(self, rows: list[list[int]]) -> None:
        llama_cpp.llama_memory_clear(self._memory, True)
        items = [
            (token, position, sequence, position == len(row) - 1)
            for sequence, row in enumerate(rows)
            for position, token in enumerate(row)
        ]
        for begin in range(0, len(items), BATCH_TOKENS):
            self._feed(items[begin : begin + BATCH_TOKENS])
        self._lengths = [len(row) for row in rows]

    def decode(self, ids: list[int]) -> None:
        pairs = enumerate(zip(ids, self._lengths, strict=True))
        self._feed([(token, length, sequence, True) for sequence, (token, length) in pairs])
        self._lengths = [length + 1 for length in self._lengths]

    def rewind(self, length: int) -> None:
        for sequence in range(len(self._lengths)):
            cut = llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1)
            assert cut, "llama.cpp cannot cut this cache"
        self._lengths = [length] * len(self._lengths)

    def score(self, ids: list[int]) -> tuple[list[int], list[float]]:
        llama_cpp.llama_memory_clear(self._memory, True)
        self._feed([(token, position, 0, True) for position, token in enumerate(ids)])
        best, logprobs = [], []
        for position, following in enumerate(ids[1:]):
            address = llama_cpp.llama_get_logits_ith(self._context, position)
            row = np.ctypeslib.as_array(address, shape=(self._vocab_size,)).astype(np.float64)
            best.append(int(row.argmax()))
            logprobs.append(float(row[following] - np.logaddexp.reduce(row)))
        return best, logprobs

    def _feed(self, items: list[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(items)
        for row, (token, position, sequence, wanted) in enumerate(items):
            batch.token[row], batch.pos[row], batch.logits[row] = token, position, wanted
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
        status = llama_cpp.llama_decode(self._context, batch)
        assert status == 0, f"llama_decode returned {status}"
        llama_cpp.llama_synchronize(self._context)


def versions(arguments: argparse.Namespace) -> dict[str, Any]:
    """What ran: the binding, and the instruction sets that this build of llama.cpp uses."""
    del arguments
    features = llama_cpp.llama_print_system_info().decode()
    return {"version": f"llama-cpp-python {llama_cpp.__version__}", "isa": features}


if __name__ == "__main__":
    cases.main(LlamaCpp, versions)
