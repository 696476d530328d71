"""Make sure a Node new enough for the web build is there: the machine's own, else PyPI's wheel."""

import re
import shutil
import subprocess
import sys

MINIMUM = (20, 19)


def installed_version() -> tuple[int, int] | None:
    """(major, minor) of the `node` and `npm` on PATH, None if either is missing."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return None
    done = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"v(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else None


def main() -> None:
    version = installed_version()
    if version is not None and version >= MINIMUM:
        return
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "-r", "requirements/node.lock"], check=True)


if __name__ == "__main__":
    main()
