"""Keys: one vouches for the next; this machine has its own; those that ship are in order."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rorqual.errors import CheckpointError, ConfigError
from rorqual.release import (
    ROTATION_SUFFIX,
    PrivateKey,
    TrustedKeys,
    examine,
    follow_rotations,
    fresh_key,
    known_keys,
    machine_key,
    pinned_keys,
    public_half,
    read_public_key,
    rotate,
    sign_here,
    sign_model,
)
from rorqual.release.machine import machine_key_path

ROOT = Path(__file__).resolve().parents[2]


def vouch(old: PrivateKey, new: PrivateKey, name: str, folder: Path) -> None:
    (folder / f"{name}{ROTATION_SUFFIX}").write_text(rotate(old, public_half(new, name)))


def test_a_chain_of_keys_leads_from_a_trusted_one_to_the_newest(
    model: Path, tmp_path: Path
) -> None:
    first, second, third = fresh_key(), fresh_key(), fresh_key()
    # The names put the chain in an order in which the files are not read.
    vouch(second, third, "a-third", tmp_path)
    vouch(first, second, "b-second", tmp_path)
    sign_model(model, third)
    trusted = TrustedKeys.of(public_half(first, "first"))
    assert examine(model, trusted).state == "unknown_key"
    trust = examine(model, follow_rotations(trusted, tmp_path))
    assert (trust.state, trust.signer) == ("signed", "a-third")
    (tmp_path / f"b-second{ROTATION_SUFFIX}").unlink()
    assert examine(model, follow_rotations(trusted, tmp_path)).state == "unknown_key"


def test_nobody_else_can_name_a_successor(model: Path, tmp_path: Path) -> None:
    ours, thief = fresh_key(), fresh_key()
    trusted = TrustedKeys.of(public_half(ours, "ours"))
    vouch(thief, thief, "stolen", tmp_path)
    sign_model(model, thief)
    assert examine(model, follow_rotations(trusted, tmp_path)).state == "unknown_key"


def test_a_forged_statement_of_a_trusted_key_is_an_error(tmp_path: Path) -> None:
    """The thief signs, and names our key as the one that did."""
    ours, thief = fresh_key(), fresh_key()
    vouch(ours, fresh_key(), "next", tmp_path)
    path = tmp_path / f"next{ROTATION_SUFFIX}"
    honest = json.loads(path.read_text())
    vouch(thief, thief, "next", tmp_path)
    by_thief = json.loads(path.read_text())
    statement = json.loads(base64.b64decode(honest["payload"]))
    statement["key"] = public_half(thief, "next").pem
    other_key = base64.b64encode(json.dumps(statement).encode()).decode()
    for forged in (
        honest | {"signatures": by_thief["signatures"]},
        honest | {"payload": other_key},
        honest | {"payload": other_key, "signatures": by_thief["signatures"]},
    ):
        path.write_text(json.dumps(forged))
        with pytest.raises(CheckpointError, match="not signed by ours"):
            follow_rotations(TrustedKeys.of(public_half(ours, "ours")), tmp_path)


def test_a_folder_without_statements_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a folder of keys"):
        follow_rotations(TrustedKeys({}), tmp_path)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def test_what_is_saved_here_is_told_from_the_rest(model: Path, own_home: Path) -> None:
    assert machine_key() is None and not own_home.exists()
    sign_here(model, "whale")
    assert machine_key_path().stat().st_mode & 0o777 == 0o600
    trust = examine(model, known_keys())
    assert (trust.state, trust.label) == ("local", "trained on this machine")
    signature = (model / "model.sig").read_bytes()
    sign_here(model, "whale")
    assert (model / "model.sig").read_bytes() == signature, "the key is made once"


def test_another_machines_saves_are_by_a_stranger(
    model: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_here(model, "whale")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    assert examine(model, known_keys()).state == "unknown_key"


def test_processes_that_save_first_at_once_agree_on_a_key(own_home: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rorqual.release import sign_here, machine_key\n"
        "sys.stdin.read(1); sign_here(Path(sys.argv[1]), 'm'); print(machine_key().fingerprint)"
    )
    places = [tmp_path / str(number) for number in range(4)]
    for place in places:
        place.mkdir()
        (place / "file").touch()
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in places
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("x")
        child.stdin.flush()
    assert len({child.communicate(timeout=60)[0] for child in children}) == 1
    assert all(examine(place, known_keys()).state == "local" for place in places)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_a_warning(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "closed"))
    _is_a_warning(model)


def test_a_home_that_is_no_folder_is_a_warning(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    _is_a_warning(model)


def _is_a_warning(model: Path) -> None:
    with pytest.warns(UserWarning, match="what is saved stays unsigned"):
        sign_here(model, "whale")
    assert examine(model, known_keys()).state == "unsigned"


def test_a_private_key_is_not_a_public_one(tmp_path: Path) -> None:
    (tmp_path / "k.pem").write_text(
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    )
    with pytest.raises(ConfigError, match="not a public key"):
        read_public_key(tmp_path / "k.pem")


def test_no_private_key_is_in_the_repository() -> None:
    listed = subprocess.run(
        ["git", "grep", "-lI", "-e", "BEGIN [A-Z ]*PRIVATE KEY", "--", "keys", "models", "docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert listed.returncode in (1, 128) and not listed.stdout  # 128: not a git checkout
    for path in (ROOT / "keys").iterdir():
        assert "PRIVATE" not in path.read_text()


def test_the_keys_that_ship_are_the_folders_and_each_statement_holds() -> None:
    folder = ROOT / "keys"
    keys = pinned_keys()
    assert {key.name for key in keys} == {path.stem for path in folder.glob("*.pem")}
    for path in folder.glob(f"*{ROTATION_SUFFIX}"):
        name = path.name.removesuffix(ROTATION_SUFFIX)
        rest = TrustedKeys.of(*(key for key in keys if key.name != name))
        assert {key.name for key in follow_rotations(rest, folder)} == {key.name for key in keys}


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/")), ids=lambda path: path.name)
def test_a_model_that_ships_is_as_it_was_signed(path: Path) -> None:
    """After a change: `rorqual release sign models/NAME --once NAME-VERSION`."""
    trust = examine(path, pinned_keys())
    assert trust.state == "signed", trust.label
    assert trust.digest is not None and trust.fingerprint is not None
    said = (ROOT / "docs" / "genuine.md").read_text(encoding="utf-8")
    assert trust.digest in said and trust.fingerprint in said
