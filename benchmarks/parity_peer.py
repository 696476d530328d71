"""One peer scores given tokens: run with the peer's own Python, which need not have Rorqual.

    PYTHON benchmarks/parity_peer.py transformers|llama.cpp|vllm MODEL REQUEST.json ANSWER.npz

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


class _ContextParams(ctypes.Structure):
    """llama_context_params of the build that xllamacpp 2026.10.11549 carries.

    NOTE: longer than the real one by up to `_TAIL`: passed by value, the surplus is not read.
    """

    _TAIL = 512
    _fields_ = [
        *((name, ctypes.c_uint32) for name in (
            "n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq", "n_outputs_max",
            "n_outputs_max_per_seq")),
        *((name, ctypes.c_int32) for name in (
            "n_threads", "n_threads_batch", "ctx_type", "rope_scaling_type", "pooling_type",
            "attention_type", "flash_attn_type")),
        *((name, ctypes.c_float) for name in (
            "rope_freq_base", "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor",
            "yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", ctypes.c_uint32),
        ("defrag_thold", ctypes.c_float),
        ("cb_eval", ctypes.c_void_p),
        ("cb_eval_user_data", ctypes.c_void_p),
        ("type_k", ctypes.c_int32),
        ("type_v", ctypes.c_int32),
        ("rest", ctypes.c_char * _TAIL),
    ]  # fmt: skip


class _ModelParams(ctypes.Structure):
    """Opaque: the defaults are kept. Longer than the real one, as above."""

    _fields_ = [("bytes", ctypes.c_char * 1024)]


class _Batch(ctypes.Structure):
    """llama_batch."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_F32 = 0


class LlamaCpp:
    """A .gguf file through the C interface in xllamacpp's library; F32 gets an F32 cache."""

    def __init__(self, model: Path, threads: int, context: int):
        package = importlib.import_module("xllamacpp")
        self.lib = lib = ctypes.CDLL(package.xllamacpp.__file__)
        self.quiet = _LOG(lambda level, text, data: None)
        if not os.environ.get("LLAMA_VERBOSE"):
            lib.llama_log_set(self.quiet, None)
        lib.llama_backend_init()
        lib.llama_model_default_params.restype = _ModelParams
        lib.llama_context_default_params.restype = _ContextParams
        for name in (
            "llama_model_load_from_file",
            "llama_init_from_model",
            "llama_get_memory",
            "llama_model_get_vocab",
        ):
            getattr(lib, name).restype = ctypes.c_void_p  # fmt: skip
        lib.llama_batch_init.restype = _Batch
        lib.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, _ModelParams]
        lib.llama_init_from_model.argtypes = [ctypes.c_void_p, _ContextParams]
        lib.llama_decode.argtypes = [ctypes.c_void_p, _Batch]
        lib.llama_get_logits_ith.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        for name in (
            "llama_n_ctx",
            "llama_n_batch",
            "llama_get_memory",
            "llama_n_threads",
            "llama_model_get_vocab",
            "llama_vocab_n_tokens",
        ):
            getattr(lib, name).argtypes = [ctypes.c_void_p]  # fmt: skip
        lib.llama_memory_clear.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        loaded = lib.llama_model_load_from_file(
            str(model).encode(), lib.llama_model_default_params()
        )
        if not loaded:
            raise SystemExit(f"llama.cpp does not load {model}; LLAMA_VERBOSE=1 says why")
        self.context = self._open(loaded, threads, context, exact="f32" in model.stem.lower())
        self.vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(loaded))
        self.batch = lib.llama_batch_init(context, 0, 1)

    def _open(self, model: int, threads: int, context: int, *, exact: bool) -> int:
        lib = self.lib
        params = lib.llama_context_default_params()
        known = (params.n_ctx, params.n_batch, params.n_ubatch, params.type_k, params.type_v)
        if known != (512, 2048, 512, 1, 1):
            raise SystemExit(f"llama.cpp's defaults are {known}: another layout than this file's")
        # F32 throughout has no flash attention either, which would round to F16 on the way.
        params.n_ctx = params.n_batch = params.n_ubatch = max(context, 512)
        params.n_outputs_max = params.n_outputs_max_per_seq = params.n_batch
        params.n_threads = params.n_threads_batch = threads
        if exact:
            params.type_k = params.type_v = _F32
            params.flash_attn_type = 0
        made = lib.llama_init_from_model(model, params)
        if not made:
            raise SystemExit("llama.cpp opens no context; LLAMA_VERBOSE=1 says why")
        seen = (lib.llama_n_ctx(made), lib.llama_n_batch(made), lib.llama_n_threads(made))
        if seen != (params.n_ctx, params.n_batch, threads):
            raise SystemExit(f"llama.cpp took {seen}: another layout than this file's")
        return made

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
    """vLLM on the CPU in fp32; MLA off, whose CPU kernels take bf16 and one shape only."""
    os.environ |= {
        "VLLM_MLA_DISABLE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "OMP_NUM_THREADS": str(request["threads"]),
    }
    vllm = importlib.import_module("vllm")
    llm = vllm.LLM(
        model=str(model), dtype="float32", max_model_len=context, max_num_seqs=4,
        enforce_eager=True, enable_prefix_caching=False, disable_log_stats=True,
    )  # fmt: skip
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
