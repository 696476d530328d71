"""A save is whole or absent: killed at every single file operation, failing, or out of disk."""

import builtins
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rorqual.checkpoint import (
    CheckpointReader,
    atomic_directory,
    load_model,
    resolve_directory,
    save_model,
    writing,
)
from rorqual.errors import CapacityError, CheckpointError
from rorqual.model import Transformer
from rorqual.tokenizer import train_tokenizer

# Save generation after generation, dying (exit, no cleanup) at the n-th file operation of a save,
# for every n until one completes. Prints `n found` after each death.
KILLED_AT_EVERY_STEP = """
import os, sys
from pathlib import Path
from rorqual.checkpoint import atomic_directory, resolve_directory
from rorqual.checkpoint.writing import TensorSource, write_safetensors
from rorqual.checkpoint.reading import CheckpointReader

path = Path(sys.argv[1])
STEPS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.listdir"}

def save(value):
    with atomic_directory(path) as directory:
        for part in ("a", "b"):
            (directory / part).write_text(str(value))
        source = TensorSource("t", "U8", (3,), lambda: memoryview(bytes([value] * 3)))
        write_safetensors(directory / "model.safetensors", [source], {})

def saved_value():
    directory = resolve_directory(path)
    values = {int((directory / part).read_text()) for part in ("a", "b")}
    values |= set(CheckpointReader(path).read_raw("t").tolist())
    (value,) = values
    return value

save(0)
step, status, last = 0, 1, 0
while status:
    step += 1
    child = os.fork()
    if child == 0:
        left = [step]
        def die(event, arguments):
            if event in STEPS:
                left[0] -= 1
                if left[0] == 0:
                    os._exit(1)
        sys.addaudithook(die)
        save(step)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = saved_value()
    assert found in (last, step), (found, last, step)
    assert status or found == step
    last = found
    print(step, found)
print(sorted(entry.name for entry in path.parent.iterdir()))
"""


def test_killed_at_any_file_operation_a_good_directory_remains(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *steps, left = done.stdout.splitlines()
    assert len(steps) > 15
    kept_old = [line for line in steps if line.split()[0] != line.split()[1]]
    assert 8 < len(kept_old) < len(steps)  # deaths before and deaths after the replacement
    assert left == "['c']"


def _names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_an_error_inside_keeps_the_old_and_removes_the_new(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "c") as directory:
        (directory / "x").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_directory(tmp_path / "c") as directory:
        (directory / "x").write_text("new")
        raise KeyboardInterrupt
    assert (tmp_path / "c/x").read_text() == "old"
    assert _names(tmp_path) == ["c"]


def test_a_directory_kept_aside_is_found_and_put_back_by_the_next_save(tmp_path: Path) -> None:
    aside = tmp_path / ".c.previous"
    aside.mkdir()
    (aside / "x").write_text("kept")
    assert resolve_directory(tmp_path / "c") == aside
    with pytest.raises(ValueError, match="stop"), atomic_directory(tmp_path / "c"):
        raise ValueError("stop")
    assert (tmp_path / "c/x").read_text() == "kept"
    assert _names(tmp_path) == ["c"]


def test_the_next_save_clears_what_killed_ones_left(tmp_path: Path) -> None:
    for name in (".c.saving-1", ".c.saving-22", ".c.previous", "c", ".other.saving-3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    with atomic_directory(tmp_path / "c") as directory:
        (directory / "x").write_text("new")
    assert (tmp_path / "c/x").read_text() == "new"
    assert _names(tmp_path) == [".other.saving-3", "c"]


def test_a_link_to_a_directory_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "step-1").mkdir()
    (tmp_path / "latest").symlink_to("step-1")
    with atomic_directory(tmp_path / "latest") as directory:
        (directory / "x").write_text("new")
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "step-1/x").read_text() == "new"


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("mine")
    with pytest.raises(CheckpointError, match="is a file"), atomic_directory(tmp_path / "c"):
        pytest.fail("entered")
    assert (tmp_path / "c").read_text() == "mine"


def test_a_parent_that_cannot_be_made_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CheckpointError, match="cannot be saved"),
        atomic_directory(tmp_path / "file" / "c"),
    ):
        pytest.fail("entered")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always-full device")
@pytest.mark.parametrize("full", ["model-00002", "config.json", "tokenizer.json"])
def test_full_disk_is_a_capacity_error_and_loses_nothing(
    make_model: Callable[..., Transformer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full: str,
) -> None:
    tokenizer = train_tokenizer(["the whale takes in an ocean " * 20], vocab_size=320)
    old = make_model(seed=0)
    save_model(old, tokenizer, tmp_path / "c")

    def open_full(file: Any, *args: Any, **kwargs: Any) -> Any:
        return builtins.open("/dev/full" if full in str(file) else file, *args, **kwargs)

    def write_full(path: Path, text: str, **kwargs: Any) -> int:
        with open_full(path, "w", encoding="utf-8") as file:
            return file.write(text)

    monkeypatch.setattr(writing, "open", open_full, raising=False)
    monkeypatch.setattr(Path, "write_text", write_full)
    with pytest.raises(CapacityError, match=r"the disk is full, nothing was saved.*free space"):
        save_model(make_model(seed=1), tokenizer, tmp_path / "c", max_shard_bytes=60_000)
    assert _names(tmp_path) == ["c"]
    loaded = load_model(tmp_path / "c").state_dict()
    assert all((loaded[name] == tensor).all() for name, tensor in old.state_dict().items())


def test_everything_is_on_disk_before_the_new_directory_takes_its_name(
    make_model: Callable[..., Transformer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(make_model(), None, tmp_path / "c")
    order: list[int | str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(descriptor: int) -> None:
        order.append(os.fstat(descriptor).st_ino)
        real_sync(descriptor)

    def rename(old: Path, new: Path) -> None:
        order.append(new.name)
        real_rename(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    save_model(make_model(), None, tmp_path / "c", max_shard_bytes=60_000)
    saved = {path.stat().st_ino for path in [tmp_path / "c", *(tmp_path / "c").iterdir()]}
    swap = order.index("c")
    assert saved <= set(order[: order.index(".c.previous")])
    assert order[swap + 1] == tmp_path.stat().st_ino  # the renames themselves


def test_a_reader_opened_before_a_save_keeps_reading_the_old(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    save_model(make_model(seed=0), None, tmp_path / "c")
    reader = CheckpointReader(tmp_path / "c")
    before = reader.read("lm_head.weight").copy()
    save_model(make_model(seed=1), None, tmp_path / "c")
    assert (reader.read("lm_head.weight") == before).all()
    assert (CheckpointReader(tmp_path / "c").read("lm_head.weight") != before).any()


def test_saved_directories_have_ordinary_permissions(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "c"):
        pass
    (tmp_path / "plain").mkdir()
    assert os.stat(tmp_path / "c").st_mode == os.stat(tmp_path / "plain").st_mode
