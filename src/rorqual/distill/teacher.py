"""A checkpoint of ours as teacher: frozen, of the student's vocabulary where logits are compared.

Two tokenizers agree if every id stands for the same bytes and is special in the same way. Traces
pass as text, so there the teacher may have a tokenizer of its own.
"""

from pathlib import Path

import torch
from torch import Tensor

from rorqual.checkpoint import load_model
from rorqual.config import ModelConfig
from rorqual.distill.divergence import Direction, divergence
from rorqual.errors import ConfigError
from rorqual.kernels.ops import Ops
from rorqual.model import Transformer
from rorqual.rl.costs import Tokens
from rorqual.rl.packing import PackedSequences
from rorqual.tokenizer.files import added_tokens, parse_object, read_files


def load_teacher(directory: Path, ops: Ops) -> Transformer:
    """The model of a directory, without gradients and without MTP modules."""
    model = load_model(directory, dtype=torch.float32, ops=ops, with_mtp=False).eval()
    return model.requires_grad_(False)


def check_same_vocabulary(teacher: Path, student: Path) -> None:
    """ConfigError unless both model directories give every id the same meaning."""
    if _vocabulary(teacher) != _vocabulary(student):
        raise ConfigError(
            f"the teacher's vocabulary ({teacher}) is not the student's ({student}): their logits "
            "cannot be compared; train the student with the teacher's tokenizer, or use method "
            "traces"
        )


def check_comparable(teacher: ModelConfig, student: ModelConfig) -> None:
    """ConfigError unless the logits of both models are over the same ids."""
    for name in ("vocab_size", "bos_token_id", "eos_token_id"):
        ours, theirs = getattr(student, name), getattr(teacher, name)
        if ours != theirs:
            raise ConfigError(
                f"the student's {name}={ours} is not the teacher's {theirs}; set it in [model], or "
                "use another student"
            )


def _vocabulary(directory: Path) -> tuple[object, object]:
    """Every token with its id, and every added token with its id and whether it is special."""
    files = read_files(directory)
    parsed = parse_object(files.tokenizer_json, files.source)
    return parsed["model"]["vocab"], sorted(added_tokens(parsed, files.source))


def compare(
    teacher: Transformer,
    student: Transformer,
    hidden: Tensor,
    batch: PackedSequences,
    kind: Direction,
    dtype: torch.dtype,
) -> tuple[Tensor, Tokens]:
    """The summed divergence of a micro-batch, and what the teacher's forward cost.

    hidden [M, H]: the student's, before each completion token.
    """
    with torch.no_grad():
        theirs = batch.select(batch.run(teacher, dtype).hidden)  # [M, H of the teacher]
    loss = divergence(hidden, student.lm_head.weight, theirs, teacher.lm_head.weight, kind)
    return loss, Tokens(teacher_scoring=batch.num_fed)
