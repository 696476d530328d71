"""transformers in eager mode, its fastest here for a fair share of work (experts: grouped_mm)."""

import argparse
from typing import Any

import cases
import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Transformers(cases.Peer):
    """A model and a cache that grows by concatenation, transformers' default."""

    def __init__(self, arguments: argparse.Namespace):
        torch.set_num_threads(arguments.threads)
        torch.set_grad_enabled(False)
        options: dict[str, Any] = {"dtype": _DTYPES[arguments.precision]}
        config = transformers.AutoConfig.from_pretrained(arguments.model)
        if getattr(config, "n_routed_experts", None):
            options["experts_implementation"] = "grouped_mm"
        self._model = AutoModelForCausalLM.from_pretrained(
            arguments.model, attn_implementation="sdpa", **options
        ).eval()
        self._cache = DynamicCache()

    def prefill(self, rows: list[list[int]]) -> None:
        self._cache = DynamicCache()
        self._model(torch.tensor(rows), past_key_values=self._cache, logits_to_keep=1)

    def decode(self, ids: list[int]) -> None:
        self._model(torch.tensor(ids)[:, None], past_key_values=self._cache)

    def rewind(self, length: int) -> None:
        extra = self._cache.get_seq_length() - length
        if extra:
            self._cache.crop(-extra)

    def score(self, ids: list[int]) -> tuple[list[int], list[float]]:
        logits = self._model(torch.tensor([ids])).logits[0, :-1].double()  # [T-1, V]
        logprobs = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        return logits.argmax(-1).tolist(), logprobs.tolist()


def versions(arguments: argparse.Namespace) -> dict[str, Any]:
    """What ran."""
    del arguments
    name = f"transformers {transformers.__version__}, torch {torch.__version__}"
    return {"version": name, "isa": torch.backends.cpu.get_cpu_capability()}


if __name__ == "__main__":
    cases.main(Transformers, versions)
