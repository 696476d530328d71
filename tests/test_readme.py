"""Every command of the README runs as written, on the tiny preset and a corpus of our own."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NEEDS_NETWORK = "rorqual data fetch"  # tests/data fetches for real, in `make soak`


def commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.replace("laptop", "tiny") for line in lines if line.startswith("rorqual ")]


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with notes to add, as the README's reader has."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "notes").mkdir()
    for number in range(12):
        lines = [f"The sea is {word} on day {number}." for word in ("calm", "grey", "loud") * 40]
        (folder / "notes" / f"{number}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_readme_commands_run_in_their_order(workplace: Path) -> None:
    listed = commands()
    assert len(listed) == 11
    for command in listed:
        if command.startswith(NEEDS_NETWORK):
            continue
        words = shlex.split(command)
        if "data add" in command:
            words[3:4] = [str(path) for path in sorted(workplace.glob("notes/*.txt"))]
        out = run([sys.executable, "-m", "rorqual.cli.main", *words[1:]], workplace)
        assert out.strip(), command


def test_readme_python_runs(workplace: Path) -> None:
    snippet = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert snippet is not None
    code = snippet[1].replace("runs/laptop", "runs/mine")
    assert "runs/mine" in code
    assert run([sys.executable, "-c", code], workplace).strip()


def test_folder_map_names_every_room() -> None:
    rooms = [p.name for p in (ROOT / "src" / "rorqual").iterdir() if (p / "__init__.py").exists()]
    for room in rooms:
        assert re.search(rf"^\s+{room}/ ", README, flags=re.MULTILINE), room
