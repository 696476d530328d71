"""Between Hugging Face directories and GGUF files, tensor by tensor, without torch.

Every family that the engine serves goes both ways. GGUF leaves MTP modules out (llama.cpp has no
place for them); everything else survives a round trip, bit for bit in F32, and in BF16 and Q8_0
where the source was no finer. The target appears whole or not at all.

Types in GGUF: norms, biases and routers stay F32, as llama.cpp expects; rows that no block of 32
divides stay F32 where Q8_0 was asked for.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rorqual.checkpoint.atomic import atomic_directory, atomic_file
from rorqual.checkpoint.gguf_config import config_to_gguf, is_published_llama3, llama3_table
from rorqual.checkpoint.gguf_names import ROPE_FACTORS, GgufTensor, gguf_tensors, pieces
from rorqual.checkpoint.gguf_types import TYPE_NAMED, WriteType, bf16_bits
from rorqual.checkpoint.gguf_writing import GgufSource, write_gguf
from rorqual.checkpoint.weights import Weights, open_weights
from rorqual.checkpoint.writing import TensorSource, write_json, write_shards
from rorqual.config import (
    DenseConfig,
    Llama3RopeConfig,
    ModelConfig,
    dense_config_to_hf,
    model_config_to_hf,
)
from rorqual.errors import ConfigError
from rorqual.release import examine, known_keys, sign_here
from rorqual.tokenizer.gguf import tokenizer_to_gguf

Format = Literal["hf", "gguf"]
Dtype = Literal["f32", "bf16", "q8_0"]
OnProgress = Callable[[int, int, str], None]  # bytes done, bytes in all, what happens now

_GGUF_TYPES: dict[Dtype, WriteType] = {"f32": "F32", "bf16": "BF16", "q8_0": "Q8_0"}
_FILE_TYPES: dict[Dtype, int] = {"f32": 0, "bf16": 32, "q8_0": 7}  # general.file_type
_HF_DTYPES: dict[Dtype, tuple[str, str]] = {
    "f32": ("F32", "float32"),
    "bf16": ("BF16", "bfloat16"),
}
_QUANTISATION_VERSION = 2
_KEPT_FP32 = ".e_score_correction_bias"
_LITE_LAYERS = (26, 27)  # by these llama.cpp knows a model without q_lora_rank


def convert(
    source: Path,
    target: Path,
    *,
    to: Format,
    dtype: Dtype,
    on_progress: OnProgress = lambda done, total, step: None,
) -> list[str]:
    """Write the model at `source` as `to` at `target`; returns what the user should know of it.

    source: a model directory or .gguf file. target: a new directory (hf) or .gguf file (gguf).
    """
    if to == "hf" and dtype not in _HF_DTYPES:
        raise ConfigError(
            f"--dtype {dtype} with --to hf: Hugging Face directories are written in f32 or bf16; "
            "choose one of them, or --to gguf"
        )
    if (target.suffix == ".gguf") != (to == "gguf"):
        expected = "a file name ending in .gguf" if to == "gguf" else "a directory name"
        raise ConfigError(f"{target}: --to {to} writes {expected}; change the name or the format")
    if source.resolve() == target.resolve():
        raise ConfigError(f"{target}: the target is the source; choose another name")
    weights = open_weights(source)
    if to == "gguf":
        _to_gguf(weights, target, dtype, on_progress)
        return _gguf_notes(weights.config)
    # What was trained here stays so in another dtype; any other signature ends with its files.
    trained_here = examine(weights.path, known_keys()).state == "local"
    _to_hf(weights, target, dtype, on_progress, trained_here)
    return []


def _gguf_notes(config: ModelConfig | DenseConfig) -> list[str]:
    """Where the file says less than the source, or llama.cpp computes something else from it."""
    if isinstance(config, DenseConfig):
        rope = config.rope_scaling
        if not isinstance(rope, Llama3RopeConfig) or is_published_llama3(rope):
            return []
        return [
            "llama.cpp reads this rope table, but it cannot be read back here: GGUF does not keep "
            "the parameters, and they are not those of Llama 3.1"
        ]
    notes: list[str] = []
    if config.num_nextn_predict_layers:
        notes.append("MTP modules are left out: llama.cpp has no place for them")
    if config.q_lora_rank is None and config.num_hidden_layers not in _LITE_LAYERS:
        notes.append(
            "llama.cpp loads this architecture without q_lora_rank only at "
            f"{' or '.join(map(str, _LITE_LAYERS))} layers (V2-Lite); this file has "
            f"{config.num_hidden_layers}, it can be served here"
        )
    if config.num_experts and not config.n_shared_experts:
        notes.append(
            "llama.cpp wants shared experts in this architecture and does not load the file; it "
            "can be served here"
        )
    if config.topk_method == "group_limited_greedy" and config.n_group > 1:
        notes.append(
            "llama.cpp ranks expert groups by the sum of their two best, this model by the best "
            "alone; some tokens will take other experts there"
        )
    return notes


def _to_gguf(weights: Weights, target: Path, dtype: Dtype, on_progress: OnProgress) -> None:
    config = weights.config
    tokenizer_values = tokenizer_to_gguf(weights.tokenizer(), config.vocab_size)
    metadata: dict[str, Any] = {
        **config_to_gguf(config, str(weights.path)),
        "general.name": weights.path.stem,
        "general.file_type": _FILE_TYPES[dtype],
        "general.quantization_version": _QUANTISATION_VERSION,
        **tokenizer_values,
        **_end_tokens(config, tokenizer_values),
    }
    kind = _GGUF_TYPES[dtype]
    sources = [_gguf_source(tensor, weights, kind) for tensor in gguf_tensors(config)]
    if isinstance(config, DenseConfig) and isinstance(config.rope_scaling, Llama3RopeConfig):
        table = llama3_table(config.rope_scaling, config.rope_theta, config.head_dim)
        sources.append(GgufSource(ROPE_FACTORS, "F32", table.shape, lambda: iter([table])))
    progress = _Progress(sum(source.num_bytes for source in sources), on_progress)
    counted = [
        GgufSource(s.name, s.kind, s.shape, progress.counting(s.pieces, s.name, s.num_bytes))
        for s in sources
    ]
    with atomic_file(target) as file:
        write_gguf(file, metadata, counted)
    progress.finish()


def _gguf_source(tensor: GgufTensor, weights: Weights, wanted: WriteType) -> GgufSource:
    whole_blocks = tensor.shape[-1] % TYPE_NAMED[wanted].block_values == 0
    kind: WriteType = wanted if whole_blocks and not tensor.fp32 else "F32"
    return GgufSource(tensor.name, kind, tensor.shape, lambda: pieces(tensor, weights.read))


def _end_tokens(config: ModelConfig | DenseConfig, tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The config's token ids, where the tokenizer's own settings name none."""
    ends = config.eos_token_ids if isinstance(config, DenseConfig) else (config.eos_token_id,)
    found = {"bos": config.bos_token_id, "eos": ends[0] if ends else None}
    named = {f"tokenizer.ggml.{key}_token_id": value for key, value in found.items()}
    named = {k: v for k, v in named.items() if v is not None and k not in tokenizer}
    end = tokenizer.get("tokenizer.ggml.eos_token_id", named.get("tokenizer.ggml.eos_token_id"))
    other = [token_id for token_id in ends if token_id != end]
    return named | ({"tokenizer.ggml.eot_token_id": other[0]} if other else {})


def _to_hf(
    weights: Weights, target: Path, dtype: Dtype, on_progress: OnProgress, trained_here: bool
) -> None:
    config = weights.config
    stored, published = _HF_DTYPES[dtype]
    tokenizer = weights.tokenizer()
    names = weights.names()
    sources = [_hf_source(name, weights, stored) for name in names]
    progress = _Progress(sum(source.num_bytes for source in sources), on_progress)

    def counted(source: TensorSource) -> TensorSource:
        def read() -> memoryview:
            data = source.read()
            progress.add(source.num_bytes, source.name)
            return data

        return TensorSource(source.name, source.dtype, source.shape, read)

    if isinstance(config, DenseConfig):
        raw = dense_config_to_hf(config, dtype=published)
        ends: Any = list(config.eos_token_ids)
    else:
        raw = model_config_to_hf(config, dtype=published)
        ends = config.eos_token_id
    generation = {"bos_token_id": config.bos_token_id, "eos_token_id": ends}
    generation |= weights.generation()
    with atomic_directory(target) as directory:
        write_json(directory / "config.json", raw)
        write_json(directory / "generation_config.json", generation)
        tokenizer.save(directory)
        write_shards(directory, [counted(source) for source in sources])
        if trained_here:
            sign_here(directory, target.name)
    progress.finish()


def _hf_source(name: str, weights: Weights, dtype: str) -> TensorSource:
    stored = "F32" if name.endswith(_KEPT_FP32) else dtype

    def read() -> memoryview:
        values = np.ascontiguousarray(weights.read(name))
        raw: NDArray[Any] = bf16_bits(values) if stored == "BF16" else values
        return raw.reshape(-1).view(np.uint8).data

    return TensorSource(name, stored, weights.shape(name), read)


class _Progress:
    """Counts bytes written and reports them."""

    def __init__(self, total_bytes: int, report: OnProgress):
        self._total = total_bytes
        self._done = 0
        self._report = report

    def add(self, num_bytes: int, name: str) -> None:
        """One tensor is about to be written."""
        self._report(self._done, self._total, name)
        self._done += num_bytes

    def finish(self) -> None:
        """The target is in place."""
        self._report(self._total, self._total, "done")

    def counting(
        self, make: Callable[[], Iterator[NDArray[np.float32]]], name: str, num_bytes: int
    ) -> Callable[[], Iterator[NDArray[np.float32]]]:
        """`make`, reporting when it starts."""

        def start() -> Iterator[NDArray[np.float32]]:
            self.add(num_bytes, name)
            return make()

        return start
