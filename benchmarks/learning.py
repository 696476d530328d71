"""What a run learnt, against n-grams on the tokens it saw and a Llama trained as long on the same.

    python benchmarks/learning.py runs/laptop            # Kneser-Ney 2, 3 and 5
    python benchmarks/learning.py runs/laptop --llama    # and transformers' Llama, equal wall time

Bits per byte on the same held-out rows for all. The Llama has the run's active weights (matrix
products per token, head included), AdamW, the run's schedule over the run's training time, and the
faster of fp32 and bf16 for this machine.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from rorqual.checkpoint import load_model
from rorqual.config.run import RunConfig
from rorqual.data import Batch, PackedLoader, build_shards, load_index, validation_batches
from rorqual.eval import KneserNey
from rorqual.model import IGNORED, PackedTokens
from rorqual.parallel import join_processes, threads_per_process
from rorqual.planner import count_parameters
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder, bits_per_byte, choose_dtype
from rorqual.train.rows import packed
from rorqual.train.schedule import learning_rate

Score = Callable[[Iterable[Batch]], float]
HELD_OUT_TOKENS = 131072


def rows_of(config: RunConfig, index: Path, batch_rows: int) -> PackedLoader:
    train = config.train
    return PackedLoader(
        index,
        sequence_length=train.sequence_length,
        sequences_per_batch=batch_rows,
        seed=train.seed,
    )


def pieces_of(batch: Batch) -> Iterator[np.ndarray]:
    """The documents of each row, one array each."""
    for tokens, numbers in zip(batch.tokens, batch.document_idx, strict=True):
        borders = np.flatnonzero(np.diff(numbers)) + 1
        for piece, number in zip(
            np.split(tokens, borders), np.split(numbers, borders), strict=True
        ):
            if number[0] >= 0:
                yield piece


def held_out(config: RunConfig, index: Path, language: str) -> list[Batch]:
    return list(
        validation_batches(
            index,
            language,
            sequence_length=config.train.sequence_length,
            sequences_per_batch=8,
            max_tokens=HELD_OUT_TOKENS,
        )
    )


def ngram_score(model: KneserNey, num_bytes: np.ndarray) -> Score:
    def score(batches: Iterable[Batch]) -> float:
        bits, size = 0.0, 0
        for batch in batches:
            for piece in pieces_of(batch):
                bits -= float(model.log2_probabilities(piece).sum())
                size += int(num_bytes[piece[1:]].sum())
        return bits / size

    return score


def seen_documents(config: RunConfig, index: Path, tokens_seen: int) -> list[np.ndarray]:
    """The pieces of documents in the rows that the run was trained on."""
    loader = rows_of(config, index, 1)
    documents: list[np.ndarray] = []
    for _ in range(tokens_seen // config.train.sequence_length):
        documents.extend(pieces_of(loader.next_batch()))
    return documents


def llama_of(config: RunConfig) -> LlamaForCausalLM:
    """As many layers as the run's model, as wide as its active weights allow."""
    model, wanted = config.model, count_parameters(config.model).active_matmul
    layers, width = model.num_hidden_layers, 32

    def weights(hidden: int) -> int:
        return layers * (4 * hidden * hidden + 3 * hidden * 8 * hidden // 3) + hidden * (
            model.vocab_size
        )

    while weights(width + 32) <= wanted:
        width += 32
    torch.manual_seed(config.train.seed)
    print(f"Llama: {layers} layers, width {width}, {weights(width):,} active of {wanted:,}")
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=model.vocab_size,
            hidden_size=width,
            intermediate_size=8 * width // 3,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            max_position_embeddings=config.train.sequence_length,
            initializer_range=model.initializer_range,
            use_cache=False,
            attn_implementation="sdpa",
        )
    )


def llama_loss(llama: LlamaForCausalLM, rows: PackedTokens) -> tuple[Tensor, Tensor]:
    """Summed nats over the targets, and the targets [B, T]."""
    targets = rows.targets()
    logits = llama(input_ids=rows.tokens[:, :-1]).logits.float()
    summed = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    return summed, targets


def train_llama(config: RunConfig, index: Path, seconds: float) -> tuple[LlamaForCausalLM, int]:
    """Train for `seconds` of training time; the model and the tokens it saw."""
    llama, train = llama_of(config).train(), config.train
    matrices = [p for p in llama.parameters() if p.ndim > 1]
    norms = [p for p in llama.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": norms, "weight_decay": 0.0}],
        betas=(train.beta1, train.beta2),
        weight_decay=train.weight_decay,
        fused=True,
    )
    loader, started, tokens = rows_of(config, index, train.sequences_per_step), time.monotonic(), 0
    while (elapsed := time.monotonic() - started) < seconds:
        rows = packed(loader.next_batch(), torch.device("cpu"))
        summed, targets = llama_loss(llama, rows)
        (summed / (targets != IGNORED).sum()).backward()
        torch.nn.utils.clip_grad_norm_(llama.parameters(), train.clip_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(train, elapsed / seconds)
        optimizer.step()
        optimizer.zero_grad()
        tokens += targets.numel()
    return llama.eval(), tokens


def llama_score(llama: LlamaForCausalLM, num_bytes: np.ndarray) -> Score:
    sizes = torch.from_numpy(num_bytes.astype(np.int64))

    @torch.no_grad()
    def score(batches: Iterable[Batch]) -> float:
        nats, size = 0.0, 0
        for batch in batches:
            summed, targets = llama_loss(llama, packed(batch, torch.device("cpu")))
            nats += float(summed)
            size += int(sizes[targets[targets != IGNORED]].sum())
        return nats / math.log(2) / size

    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--llama", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(threads_per_process())
    folder = RunFolder(arguments.run)
    config = folder.read_config(RunConfig)
    last = [record for record in folder.read_log() if record["kind"] == "step"][-1]
    index = build_shards(config.data)
    checkpoint = folder.checkpoint_path(folder.checkpoint_steps()[-1])
    num_bytes = Tokenizer.load(checkpoint).token_num_bytes()
    processes = join_processes()
    dtype = choose_dtype(config.train, processes.device)
    model = load_model(checkpoint)

    def model_score(batches: Iterable[Batch]) -> float:
        rows = (packed(batch, processes.device) for batch in batches)
        return bits_per_byte(
            model, rows, num_bytes, processes, document_mask=config.train.document_mask, dtype=dtype
        )

    scores: dict[str, Score] = {f"Rorqual, {last['tokens_seen']:,} tokens": model_score}
    documents = seen_documents(config, index, last["tokens_seen"])
    for order in (2, 3, 5):
        scores[f"Kneser-Ney {order}-gram"] = ngram_score(
            KneserNey(documents, config.model.vocab_size, order), num_bytes
        )
    if arguments.llama:
        llama, tokens = train_llama(config, index, last["elapsed_seconds"])
        scores[f"Llama (transformers), {tokens:,} tokens"] = llama_score(llama, num_bytes)
    splits = load_index(index).splits
    languages = [name for name in ("en", "zh", "code") if f"validation-{name}" in splits]
    print(f"bits per byte after {last['elapsed_seconds']:.0f} s of training")
    print(f"{'':40}" + "".join(f"{language:>8}" for language in languages))
    table: dict[str, dict[str, float]] = {}
    for name, score in scores.items():
        table[name] = {language: score(held_out(config, index, language)) for language in languages}
        print(f"{name:40}" + "".join(f"{value:8.3f}" for value in table[name].values()))
    (folder.path / "learning.json").write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
