"""The wheel: the same bytes wherever it is built, and the keys are in it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCE = shutil.ignore_patterns(
    *(".git", ".venv", "build", "dist", "runs", "data", "node_modules"),
    *("*.so", "__pycache__", "*.egg-info", ".*_cache"),
)


@pytest.mark.soak
def test_two_builds_in_two_places_are_the_same_bytes(tmp_path: Path) -> None:
    wheels: list[bytes] = []
    for place in (tmp_path / "here", tmp_path / "another" / "longer place"):
        shutil.copytree(ROOT, place, ignore=NOT_SOURCE)
        if (ROOT / "web" / "dist").is_dir():
            shutil.copytree(ROOT / "web" / "dist", place / "web" / "dist")
        subprocess.run(
            [sys.executable, str(place / "scripts" / "build_wheel.py"), str(place / "dist")],
            env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
            check=True,
            timeout=3600,
        )
        (wheel,) = (place / "dist").glob("*.whl")
        wheels.append(wheel.read_bytes())
    assert wheels[0] == wheels[1]
    with zipfile.ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if name.startswith("rorqual/keys/")}
    assert carried == {f"rorqual/keys/{path.name}" for path in (ROOT / "keys").iterdir()}
