"""Build the wheel so that anybody who builds it again gets the same bytes; print its SHA-256.

python scripts/build_wheel.py dist      the time in it is the last commit's, or SOURCE_DATE_EPOCH

Needs the `build` extra and the web app built (`make setup`). The bytes depend on the compiler.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """The wheel in the folder that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/build_wheel.py FOLDER")
    out = Path(sys.argv[1])
    environment = os.environ | {"SOURCE_DATE_EPOCH": commit_time()}
    command = [sys.executable, "-m", "pip", "wheel", "-q", ".", "--no-deps"]
    command += ["--no-build-isolation", "--no-cache-dir", "--wheel-dir", str(out.resolve())]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    for wheel in sorted(out.glob("rorqual-*.whl")):
        print(f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel}")


def commit_time() -> str:
    """Seconds since 1970."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return os.environ["SOURCE_DATE_EPOCH"]
    asked = ["git", "log", "-1", "--format=%ct"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit("no git history here: set SOURCE_DATE_EPOCH to the release's time")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
