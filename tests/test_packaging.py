"""What leaves this repository: a source distribution that builds, and nothing that was built."""

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"


def test_source_distribution_holds_what_a_build_needs_and_no_binaries(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    needed = ["pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md", "configs/tiny.toml"]
    needed += ["src/rorqual/__init__.py", "src/rorqual/tokenizer/chat_template.jinja"]
    needed += ["src/rorqual/kernels/native/isa.cpp"]
    assert not set(needed) - names
    assert not {name for name in names if Path(name).suffix in (".so", ".o", ".pyc")}
    assert not {name for name in names if name.startswith(("build/", "data/", "runs/", ".venv/"))}
