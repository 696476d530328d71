"""Where a model named on the command line lives: a path, a shipped preset, or a repository one.

A wheel carries the presets as `rorqual/configs/*.toml`; a checkout has them in `configs/` beside
`src/`. A name is looked up in that order, after paths, so a file always wins over a preset.
"""

import difflib
from pathlib import Path

from rorqual.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
_PRESET_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parents[1] / "configs")


def list_presets() -> tuple[str, ...]:
    """Names of every preset that `find_preset` knows, sorted."""
    return tuple(
        sorted({file.stem for folder in _PRESET_FOLDERS for file in folder.glob("*.toml")})
    )


def find_preset(name: str) -> Path:
    """The file or model directory that `name` means.

    An existing file, or a directory with a `config.json`, is taken as it is; a bare folder that
    happens to be called like a preset is not. Unknown names raise ConfigError.
    """
    path = Path(name).expanduser()
    if path.is_file() or (path / "config.json").is_file():
        return path
    for folder in _PRESET_FOLDERS:
        preset = folder / f"{name}.toml"
        if preset.is_file():
            return preset
    known = list_presets()
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ConfigError(
        f"{name}: neither a TOML or config.json file, nor a model directory, nor a preset; "
        f"{hint}known presets: {', '.join(known) or 'none'}"
    )
