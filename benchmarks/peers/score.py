"""One peer scores given tokens: run with the peer's own Python, which need not have Rorqual.

    PYTHON benchmarks/peers/score.py transformers|llama.cpp|vllm MODEL REQUEST.json ANSWER.npz

REQUEST: {"sequences": [[id, ...], ...], "num_full": n, "prompts": [[id, ...], ...],
"max_tokens": m, "threads": t}. ANSWER: targets and argmax of every position that has a next token,
sequence after sequence; full [rows, V] log-probabilities of the first n sequences; greedy
[prompts, m]. vLLM gives no `full`: its interface hands out chosen log-probabilities only.
"""

import ctypes
import importlib
import json
import os
import sys
from pathlib import Path

import mended_vllm
import numpy as np

Logits = np.ndarray  # [T, V] float32


def log_softmax(logits: Logits) -> np.ndarray:
    """float64, so that the comparison adds no rounding of its own."""
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


class Transformers:
    """A model directory or .gguf file in fp32."""

    def __init__(self, model: Path, threads: int, context: int):
        self.torch = importlib.import_module("torch")
        library = importlib.import_module("transformers")
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
        self.torch.set_num_threads(threads)
        gguf = {"gguf_file": model.name} if model.suffix == ".gguf" else {}
        folder = model.parent if gguf else model
        self.model = library.AutoModelForCausalLM.from_pretrained(
            folder, dtype=self.torch.float32, **gguf
        ).eval()

    def logits(self, ids: list[int]) -> Logits:
        with self.torch.inference_mode():
            return self.model(self.torch.tensor([ids])).logits[0].float().numpy()

    def greedy(self, prompt: list[int], max_tokens: int) -> list[int]:
        """Past any end token, which `generate` would stop at or forbid."""
        fed, cache, found = self.torch.tensor([prompt]), None, []
        with self.torch.inference_mode():
            for _ in range(max_tokens):
                out = self.model(fed, past_key_values=cache, use_cache=True)
                cache, fed = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
                found.append(int(fed))
        return found


_F32 = 0  # of GGML's types
_NO_FLASH_ATTENTION = 0


class LlamaCpp:
    """A .gguf file through the C interface; F32 gets an F32 cache and no flash attention.

    Flash attention would round to F16 on the way.
    """

    def __init__(self, model: Path, threads: int, context: int):
        self.lib = lib = importlib.import_module("llama_cpp")
        self.quiet = lib.llama_log_callback(lambda level, text, data: None)  # kept alive
        if not os.environ.get("LLAMA_VERBOSE"):
            lib.llama_log_set(self.quiet, ctypes.c_void_p(0))
        lib.llama_backend_init()
        options = lib.llama_model_default_params()
        loaded = lib.llama_model_load_from_file(str(model).encode(), options)
        if not loaded:
            raise SystemExit(f"llama.cpp does not load {model}; LLAMA_VERBOSE=1 says why")
        shape = lib.llama_context_default_params()
        shape.n_ctx = shape.n_batch = shape.n_ubatch = max(context, 512)
        shape.n_outputs_max = shape.n_outputs_max_per_seq = shape.n_batch
        shape.n_threads = shape.n_threads_batch = threads
        if "f32" in model.stem.lower():
            shape.type_k = shape.type_v = _F32
            shape.flash_attn_type = _NO_FLASH_ATTENTION
        self.context = lib.llama_init_from_model(loaded, shape)
        if not self.context:
            raise SystemExit("llama.cpp opens no context; LLAMA_VERBOSE=1 says why")
        self.vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(loaded))
        self.batch = lib.llama_batch_init(context, 0, 1)

    def _feed(self, ids: list[int], first: int, num_outputs: int) -> Logits:
        batch = self.batch
        batch.n_tokens = len(ids)
        for at, token in enumerate(ids):
            batch.token[at], batch.pos[at] = token, first + at
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = 0
            batch.logits[at] = at >= len(ids) - num_outputs
        code = self.lib.llama_decode(self.context, batch)
        if code:
            raise SystemExit(f"llama_decode answered {code}")
        rows = range(len(ids) - num_outputs, len(ids))
        found = [self.lib.llama_get_logits_ith(self.context, row) for row in rows]
        return np.stack([np.ctypeslib.as_array(row, (self.vocab_size,)).copy() for row in found])

    def _clear(self) -> None:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def logits(self, ids: list[int]) -> Logits:
        self._clear()
        return self._feed(ids, 0, len(ids))

    def greedy(self, prompt: list[int], max_tokens: int) -> list[int]:
        self._clear()
        row = self._feed(prompt, 0, 1)[0]
        found: list[int] = []
        for number in range(max_tokens):
            found.append(int(row.argmax()))
            row = self._feed(found[-1:], len(prompt) + number, 1)[0]
        return found


PEERS = {"transformers": Transformers, "llama.cpp": LlamaCpp}


def ask(peer: "Transformers | LlamaCpp", request: dict) -> dict[str, np.ndarray]:
    """What the request wants of a peer that shows its logits."""
    targets, argmax, full = [], [], []
    for number, ids in enumerate(request["sequences"]):
        logprobs = log_softmax(peer.logits(ids)[:-1])
        targets.append(logprobs[np.arange(len(ids) - 1), ids[1:]])
        argmax.append(logprobs.argmax(axis=-1))
        if number < request["num_full"]:
            full.append(logprobs.astype(np.float32))
    greedy = [peer.greedy(prompt, request["max_tokens"]) for prompt in request["prompts"]]
    return {
        "targets": np.concatenate(targets),
        "argmax": np.concatenate(argmax),
        "full": np.concatenate(full) if full else np.zeros((0, 0), np.float32),
        "greedy": np.array(greedy),
    }


def ask_vllm(model: Path, request: dict, context: int) -> dict[str, np.ndarray]:
    """vLLM on the CPU in fp32, mended."""
    os.environ["OMP_NUM_THREADS"] = str(request["threads"])
    llm = mended_vllm.load(
        model=str(model), dtype="float32", max_model_len=context, max_num_seqs=4,
        disable_log_stats=True,
    )  # fmt: skip
    vllm = importlib.import_module("vllm")
    scored = llm.generate(
        [{"prompt_token_ids": ids} for ids in request["sequences"]],
        vllm.SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False),
        use_tqdm=False,
    )
    targets, argmax = [], []
    for ids, one in zip(request["sequences"], scored, strict=True):
        for token, found in zip(ids[1:], one.prompt_logprobs[1:], strict=True):
            targets.append(found[token].logprob)
            argmax.append(next(key for key, value in found.items() if value.rank == 1))
    count = request["max_tokens"]
    answers = llm.generate(
        [{"prompt_token_ids": prompt} for prompt in request["prompts"]],
        vllm.SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False),
        use_tqdm=False,
    )
    return {
        "targets": np.array(targets),
        "argmax": np.array(argmax),
        "full": np.zeros((0, 0), np.float32),
        "greedy": np.array([list(one.outputs[0].token_ids) for one in answers]),
    }


def main() -> None:
    kind, model, request_file, answer_file = sys.argv[1:]
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    context = max(
        max(map(len, request["sequences"])),
        max(map(len, request["prompts"]), default=0) + request["max_tokens"],
    )
    if kind == "vllm":
        answer = ask_vllm(Path(model), request, context + 1)
    else:
        peer = PEERS[kind](Path(model), request["threads"], context)
        answer = ask(peer, request)
    np.savez(
        answer_file,
        targets=answer["targets"],
        argmax=answer["argmax"],
        full=answer["full"],
        greedy=answer["greedy"],
    )


if __name__ == "__main__":
    main()
