"""Files that cannot be used are one named error: missing, truncated, of another kind."""

import json
from pathlib import Path

import pytest

from rorqual.errors import CheckpointError, RequestError
from rorqual.tokenizer import Tokenizer


@pytest.fixture
def saved(ours: Tokenizer, tmp_path: Path) -> Path:
    ours.save(tmp_path)
    return tmp_path


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_missing_path_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"cannot read .*nowhere: No such file"):
        Tokenizer.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_directory_needs_both_files(saved: Path, name: str):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        Tokenizer.load(saved)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_truncated_json_is_refused(saved: Path, name: str):
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[:40])
    with pytest.raises(CheckpointError, match=rf"{name} is not JSON .* fetch it again"):
        Tokenizer.load(saved)


def test_bytes_that_are_not_utf8_are_refused(saved: Path):
    (saved / "tokenizer.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(CheckpointError, match="not UTF-8 at byte 7"):
        Tokenizer.load(saved)


def test_json_that_is_no_object_is_refused(saved: Path):
    (saved / "tokenizer.json").write_text("[]")
    with pytest.raises(CheckpointError, match="expected an object"):
        Tokenizer.load(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "WordPiece", "vocab": {"a": 0}}},
        {"model": None},
        {"decoder": {"type": "Metaspace"}},
    ],
)
def test_other_kinds_of_tokenizer_are_refused(saved: Path, changes: dict):
    edit(saved / "tokenizer.json", **changes)
    with pytest.raises(CheckpointError, match="expected byte-level BPE"):
        Tokenizer.load(saved)


def test_merges_without_their_tokens_are_refused(saved: Path):
    model = json.loads((saved / "tokenizer.json").read_text())["model"]
    model["merges"].append(["no such", "token"])
    edit(saved / "tokenizer.json", model=model)
    with pytest.raises(CheckpointError, match="not a tokenizer that the tokenizers library reads"):
        Tokenizer.load(saved)


def test_a_token_that_stands_for_no_bytes_is_refused(saved: Path):
    model = json.loads((saved / "tokenizer.json").read_text())["model"]
    model["vocab"]["鲸"] = len(model["vocab"])
    edit(saved / "tokenizer.json", model=model)
    with pytest.raises(CheckpointError, match="character '鲸', which stands for no byte"):
        Tokenizer.load(saved)


def test_added_tokens_without_an_id_are_refused(saved: Path):
    edit(saved / "tokenizer.json", added_tokens=[{"content": "<x>", "special": True}])
    with pytest.raises(CheckpointError, match="added_tokens lacks 'id'"):
        Tokenizer.load(saved)


def test_a_template_that_does_not_compile_is_refused(saved: Path):
    edit(saved / "tokenizer_config.json", chat_template="{% if %}")
    with pytest.raises(CheckpointError, match="does not compile"):
        Tokenizer.load(saved).render([{"role": "user", "content": "hi"}])


def test_an_end_token_that_is_not_in_the_vocabulary_is_refused(saved: Path):
    edit(saved / "tokenizer_config.json", eos_token="<nope>")
    with pytest.raises(CheckpointError, match="has no eos_token"):
        _ = Tokenizer.load(saved).eos_token_id


def test_a_lone_tokenizer_file_encodes_but_has_no_template(saved: Path, ours: Tokenizer):
    (saved / "tokenizer_config.json").unlink()
    alone = Tokenizer.load(saved / "tokenizer.json")
    assert alone.encode("Hello 你好") == ours.encode("Hello 你好")
    with pytest.raises(RequestError, match="came without a chat template"):
        alone.render([{"role": "user", "content": "hi"}])


def test_settings_may_hold_token_objects_and_named_templates(saved: Path):
    edit(
        saved / "tokenizer_config.json",
        eos_token={"content": "<｜end▁of▁sentence｜>", "lstrip": False},
        pad_token=None,
        chat_template=[
            {"name": "tool_use", "template": "no"},
            {"name": "default", "template": "{{ messages[0]['content'] }}{{ eos_token }}"},
        ],
    )
    loaded = Tokenizer.load(saved)
    assert (loaded.eos_token_id, loaded.pad_token_id) == (1, 1)
    assert loaded.render([{"role": "user", "content": "hi"}]) == "hi<｜end▁of▁sentence｜>"


def test_a_template_file_beside_the_settings_counts(saved: Path):
    (saved / "chat_template.jinja").write_text("file: {{ messages[0]['content'] }}")
    assert Tokenizer.load(saved).render([{"role": "user", "content": "hi"}]) == "file: hi"


def test_a_directory_that_cannot_be_written_is_named(ours: Tokenizer, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot save the tokenizer in"):
        ours.save(tmp_path / "file" / "model")
