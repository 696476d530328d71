"""What leaves this repository: a source distribution that builds, and nothing that was built."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
# A developer's checkout may hold gigabytes here; the test puts small files into them instead.
ANYWHERE = {"node_modules", "__pycache__"}
AT_THE_ROOT = {".git", ".venv", "build", "dist", "data", "runs"}
BUILT = ("build/peer/a.py", "data/en/shard.bin", "runs/tiny/config.json", ".venv/bin/python")
BUILT += ("src/rorqual/kernels/_kernels.so", "src/rorqual/__pycache__/errors.cpython-311.pyc")
BUILT += ("web/node_modules/react/index.js", "dist/rorqual.tar.gz")


def test_source_distribution_holds_what_a_build_needs_and_no_binaries(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"

    def left_out(folder: str, names: list[str]) -> set[str]:
        return (ANYWHERE | (AT_THE_ROOT if Path(folder) == ROOT else set())) & set(names)

    shutil.copytree(ROOT, checkout, ignore=left_out, symlinks=True)
    for name in BUILT:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(b"built")
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    needed = ["pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md", "configs/tiny.toml"]
    needed += ["src/rorqual/__init__.py", "src/rorqual/tokenizer/chat_template.jinja"]
    needed += ["src/rorqual/kernels/native/isa.cpp", "src/rorqual/data/__init__.py"]
    assert not set(needed) - names
    assert not set(BUILT) & names
    assert not {name for name in names if Path(name).suffix in (".so", ".o", ".pyc")}
