"""What was trained here stays known as such in another format; any other signature ends."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rorqual.checkpoint.convert import convert
from rorqual.release import examine, fresh_key, known_keys, sign_here, sign_model
from rorqual.tokenizer import train_tokenizer
from tests.checkpoint.tiny_models import write_tiny


@pytest.mark.parametrize(
    ("sign", "state"),
    [
        (lambda model: sign_here(model, model.name), "local"),
        (lambda model: sign_model(model, fresh_key()), "unsigned"),
        (lambda model: None, "unsigned"),
    ],
    ids=["here", "elsewhere", "nowhere"],
)
def test_conversion_signs_only_what_was_trained_here(
    sign: Callable[[Path], object], state: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    write_tiny("qwen2", source, train_tokenizer(["a few words"] * 9, vocab_size=280))
    sign(source)
    convert(source, target, to="hf", dtype="bf16")
    assert examine(target, known_keys()).state == state


def test_a_changed_model_of_ours_is_not_signed_again(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    write_tiny("qwen2", source, train_tokenizer(["a few words"] * 9, vocab_size=280))
    sign_here(source, "source")
    (source / "generation_config.json").write_text('{"temperature": 2.0}')
    convert(source, target, to="hf", dtype="bf16")
    assert examine(target, known_keys()).state == "unsigned"
