"""Every file of a model with its SHA-256, as OpenSSF's model-signing specification 1.0 lists them.

A model is a directory, or one file, whose only entry is called `.`. Left out are the signature
itself and what belongs to git; nothing else, so that an added file is seen. Symbolic links are
never followed: what they point to is not part of the model.
"""

import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from rorqual.errors import CheckpointError
from rorqual.packages import file_sha256

SIGNATURE_FILE = "model.sig"
WHOLE_FILE = "."
IGNORED = frozenset({SIGNATURE_FILE, ".git", ".gitattributes", ".github", ".gitignore"})
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


@dataclass(frozen=True, slots=True)
class Manifest:
    """SHA-256, hexadecimal, of every file by its name inside the model, in the specified order."""

    files: dict[str, str]

    @property
    def digest(self) -> str:
        """One SHA-256 for all: of the files' digests in order.

        NOTE: it does not cover the names; the signature does.
        """
        return sha256(b"".join(map(bytes.fromhex, self.files.values()))).hexdigest()


def signature_path(model: Path) -> Path:
    """Where the signature of a model directory, or of a model in one file, is kept."""
    if model.is_dir():
        return model / SIGNATURE_FILE
    return model.with_name(f"{model.name}.sig")


def list_files(model: Path) -> tuple[dict[str, Path], list[str]]:
    """The files to be signed by name, in order, and the names of links and other special files."""
    if not model.is_dir():
        if _SHARD.search(model.name):
            raise CheckpointError(
                f"{model}: one of several files of a model; sign or verify their directory"
            )
        return ({WHOLE_FILE: model}, []) if model.is_file() else ({}, [WHOLE_FILE])
    files: dict[str, Path] = {}
    special: list[str] = []
    for folder, directories, names in os.walk(model):
        top = Path(folder) == model
        directories[:] = [name for name in directories if not (top and name in IGNORED)]
        for name in [*directories, *names]:
            path = Path(folder) / name
            if top and name in IGNORED:
                continue
            inside = path.relative_to(model).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                special.append(inside)
            elif path.is_file():
                files[inside] = path
    # By folder and name, not by text: `a/b` comes before `a.b`.
    return {name: files[name] for name in sorted(files, key=PurePosixPath)}, sorted(special)


def read_manifest(model: Path) -> Manifest:
    """Hash every file; CheckpointError where something is no file or cannot be read."""
    files, special = list_files(model)
    if special:
        raise CheckpointError(
            f"{model}: {special[0]} is a link or a special file, expected plain files; replace it "
            "by what it stands for"
        )
    if not files:
        raise CheckpointError(f"{model}: holds no file; name a model directory")
    return Manifest({name: file_digest(path) for name, path in files.items()})


def file_digest(path: Path) -> str:
    """`file_sha256`, with an error that names the file."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); check its permissions") from error
