"""`rorqual admin`: accounts, keys, money, prices, backups, from a shell."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rorqual.cli.admin import app
from rorqual.errors import ConfigError, DataError, RequestError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(f"""
mode = "platform"
[database]
url = "sqlite:///{tmp_path / "server.db"}"
[accounts]
hash_memory_bytes = 1048576
hash_passes = 1
""")
    return path


def run(config: Path, *words: str, text: str = "") -> Result:
    return CliRunner().invoke(app, [*words, "--config", str(config)], input=text)


def test_an_account_gets_money_and_a_key(config: Path) -> None:
    made = run(config, "users", "add", "Ahab", "--no-password")
    assert json.loads(made.stdout)["name"] == "ahab"
    for _ in range(2):
        paid = run(config, "balance", "topup", "ahab", "2.50", "--reference", "p1")
        assert json.loads(paid.stdout)["balance"] == "2.50"
    secret = run(config, "keys", "add", "ahab", "--cap", "1").stdout.strip()
    assert secret.startswith("sk-rorqual-")
    key = json.loads(run(config, "keys", "list", "ahab").stdout)
    assert key["last4"] == secret[-4:] and key["cap"] == "1.00" and not key["revoked"]
    assert run(config, "keys", "revoke", "ahab", key["id"]).exit_code == 0
    assert json.loads(run(config, "keys", "list", "ahab").stdout)["revoked"]
    assert json.loads(run(config, "balance", "show", "ahab").stdout)["balance"] == "2.50"
    assert run(config, "balance", "audit").exit_code == 0


def test_a_password_is_asked_for_twice_and_users_are_locked(config: Path) -> None:
    made = run(config, "users", "add", "boss", "--admin", text="a long password\n" * 2)
    assert made.exit_code == 0 and "a long password" not in made.stdout
    assert run(config, "users", "lock", "boss").exit_code == 0
    listed = json.loads(run(config, "users", "list").stdout)
    assert listed["locked"] and listed["role"] == "admin"
    run(config, "users", "unlock", "boss")
    run(config, "users", "role", "boss", "--user")
    listed = json.loads(run(config, "users", "list").stdout)
    assert not listed["locked"] and listed["role"] == "user"
    assert isinstance(run(config, "users", "lock", "nobody").exception, RequestError)


def test_prices_have_dates_and_are_never_edited(config: Path) -> None:
    words = ("prices", "add", "whale", "--cache-hit", "0.07", "--input", "0.27", "--output", "1.1")
    assert run(config, *words, "--effective", "2026-01-01").exit_code == 0
    assert run(config, *words, "--effective", "2026-01-01").exit_code == 0
    changed = (*words[:-1], "2")
    assert isinstance(run(config, *changed, "--effective", "2026-01-01").exception, ConfigError)
    listed = json.loads(run(config, "prices", "list").stdout)
    assert (listed["output"], listed["reasoning"]) == ("1.10", "1.10")
    wrong = ("prices", "add", "whale", "--cache-hit", "x", "--input", "1", "--output", "1")
    assert isinstance(run(config, *wrong).exception, ConfigError)


def test_a_backup_is_restored_where_nothing_is(config: Path, tmp_path: Path) -> None:
    run(config, "users", "add", "kept", "--no-password")
    copy = tmp_path / "backup.db"
    assert run(config, "backup", str(copy)).exit_code == 0
    assert copy.stat().st_mode & 0o077 == 0
    assert isinstance(run(config, "backup", str(copy)).exception, ConfigError)
    assert isinstance(run(config, "restore", str(copy)).exception, ConfigError)
    for file in tmp_path.glob("server.db*"):
        file.unlink()
    assert isinstance(run(config, "restore", str(config)).exception, DataError)
    assert run(config, "restore", str(copy)).exit_code == 0
    assert json.loads(run(config, "users", "list").stdout)["name"] == "kept"
