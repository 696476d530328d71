"""The models that engines are compared on: the same weights in every format a peer reads.

Random shapes are written as a Hugging Face directory in bf16, and everything else is converted from
that by `rorqual convert`'s code; smollm2 is the packaged GGUF, converted. Files are kept in
build/peers/models/NAME until deleted. ids.json holds what every engine is fed.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Literal

import numpy as np
from peers.build import BUILT

from rorqual.checkpoint.convert import convert
from rorqual.checkpoint.gguf_types import bf16_bits
from rorqual.checkpoint.models import resolve_model
from rorqual.checkpoint.weights import open_weights
from rorqual.checkpoint.writing import TensorSource, write_json, write_shards
from rorqual.config import DenseConfig, dense_config_to_hf, model_config_to_hf
from rorqual.engine.benchmark import text_ids
from rorqual.engine.random_model import RandomWeights, random_config
from rorqual.tokenizer import train_tokenizer

Format = Literal["hf", "bf16", "q8_0"]
FILE_OF: dict[Format, str] = {"hf": "hf", "bf16": "bf16.gguf", "q8_0": "q8_0.gguf"}
_TEXT_TOKENS = 65_536


def prepare(name: str, formats: set[Format]) -> Path:
    """The model's folder with the wanted formats in it; what is there already is kept."""
    folder = BUILT / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    missing = {form for form in formats if not (folder / FILE_OF[form]).exists()}
    source: Path | None = None
    if missing:
        print(f"writing {name}: {', '.join(sorted(missing))}", file=sys.stderr, flush=True)
        source = _source(name, folder)
        for form in sorted(missing - {"hf"}):
            convert(source, folder / FILE_OF[form], to="gguf", dtype=form)
        if "hf" in missing and source != folder / FILE_OF["hf"]:
            convert(source, folder / FILE_OF["hf"], to="hf", dtype="bf16")
    if not (folder / "ids.json").exists():
        ids = _ids(name, source or _source(name, folder))
        (folder / "ids.json").write_text(json.dumps(ids))
    if "hf" not in formats and name != "smollm2":
        # The published V2-Lite shape is 31 GB in bf16, which nobody reads once it is converted.
        shutil.rmtree(folder / FILE_OF["hf"], ignore_errors=True)
    return folder


def _source(name: str, folder: Path) -> Path:
    if name == "smollm2":
        return resolve_model(name)
    directory = folder / FILE_OF["hf"]
    if not directory.exists():
        write_random(name, directory)
    return directory


def _ids(name: str, source: Path) -> list[int]:
    """Worked problems for a trained model; for random weights any ids are text."""
    weights = open_weights(source)
    tokenizer = weights.tokenizer() if name == "smollm2" else None
    return text_ids(tokenizer, weights.config.vocab_size, _TEXT_TOKENS).tolist()


def write_random(name: str, directory: Path) -> None:
    """A Hugging Face directory with random weights in bf16 and a small tokenizer."""
    config = random_config(name)
    weights = RandomWeights(config)
    tokenizer = train_tokenizer(["a text to have some merges"] * 4, vocab_size=300)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = config.model_copy(update=ends)
    unfinished = directory.with_name(directory.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    to_hf = dense_config_to_hf if isinstance(config, DenseConfig) else model_config_to_hf
    write_json(unfinished / "config.json", to_hf(config, dtype="bfloat16"))
    write_json(unfinished / "generation_config.json", ends)
    tokenizer.save(unfinished)
    write_shards(unfinished, [_stored(weights, tensor) for tensor in weights.names()])
    unfinished.rename(directory)


def _stored(weights: RandomWeights, name: str) -> TensorSource:
    """One tensor; the selection bias stays fp32, as published."""
    is_bias = name.endswith(".e_score_correction_bias")

    def read() -> memoryview:
        values = np.ascontiguousarray(weights.read(name))
        raw = values if is_bias else bf16_bits(values)
        return raw.reshape(-1).view(np.uint8).data

    return TensorSource(name, "F32" if is_bias else "BF16", weights.shape(name), read)
