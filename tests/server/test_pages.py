"""The built app in the package that is really installed here, and where a server keeps its data."""

import os
from pathlib import Path

import pytest

from rorqual.config.server import DatabaseConfig
from rorqual.server.app.pages import _built

BUILT = Path(__file__).parents[2] / "web" / "dist" / "index.html"


def test_the_app_is_found_however_the_package_was_installed() -> None:
    if not BUILT.is_file() and not os.environ.get("CI"):
        pytest.skip("web/dist is not built: npm run build in web/")
    folder = _built()
    assert folder is not None
    for name in ("index.html", "preview.html", "assets", "pyodide"):
        assert (folder / name).exists(), name


def test_a_server_keeps_its_data_with_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert DatabaseConfig().url == f"sqlite:///{tmp_path}/rorqual/rorqual.db"  # type: ignore[call-arg]
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = f"sqlite:///{tmp_path}/.local/share/rorqual/rorqual.db"
    assert DatabaseConfig().url == wanted  # type: ignore[call-arg]
