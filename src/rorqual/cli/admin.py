"""`rorqual admin`: users, keys, money and backups, beside a running server or without one."""

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from rorqual.cli.serve import load_server_config
from rorqual.config.server import PriceConfig, ServerConfig
from rorqual.errors import ConfigError, DataError
from rorqual.platform import Platform, User
from rorqual.units import format_nano, parse_nano

app = typer.Typer(no_args_is_help=True, help="Users, keys, balances, prices, backups.")
users = typer.Typer(no_args_is_help=True, help="Accounts.")
keys = typer.Typer(no_args_is_help=True, help="API keys.")
balance = typer.Typer(no_args_is_help=True, help="Money.")
prices = typer.Typer(no_args_is_help=True, help="What tokens cost.")
for _name, _part in (("users", users), ("keys", keys), ("balance", balance), ("prices", prices)):
    app.add_typer(_part, name=_name)

Config = Annotated[Path | None, typer.Option(help="The server's TOML file.")]
Name = Annotated[str, typer.Argument(help="The user's name.")]
_SQLITE_MARK = b"SQLite format 3\0"


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[Platform]:
    platform = Platform.open(load_server_config(path))
    try:
        yield platform
    finally:
        platform.close()


@users.command("list")
def list_users(config: Config = None) -> None:
    """Every account, one JSON object a line."""
    with _opened(config) as platform:
        offset = 0
        while page := platform.accounts.page(offset=offset):
            offset += len(page)
            for user in page:
                typer.echo(json.dumps(_shown(user)))


@users.command("add")
def add_user(
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="With the role admin.")] = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="For keys only, without a login.")
    ] = False,
    config: Config = None,
) -> None:
    """Make an account; the password is asked for, or read from standard input."""
    password = None if no_password else _password()
    with _opened(config) as platform:
        user = platform.accounts.create(name, password, "admin" if admin else "user")
    typer.echo(json.dumps(_shown(user)))


@users.command("password")
def set_password(name: Name, config: Config = None) -> None:
    """Set a new password; every session of the user ends."""
    password = _password()
    with _opened(config) as platform:
        platform.accounts.set_password(platform.accounts.by_name(name).id, password)


@users.command("lock")
def lock_user(name: Name, config: Config = None) -> None:
    """Lock a user out, sessions and keys included."""
    with _opened(config) as platform:
        platform.accounts.set_locked(platform.accounts.by_name(name).id, True)


@users.command("unlock")
def unlock_user(name: Name, config: Config = None) -> None:
    """Let a user in again."""
    with _opened(config) as platform:
        platform.accounts.set_locked(platform.accounts.by_name(name).id, False)


@users.command("role")
def set_role(
    name: Name,
    admin: Annotated[bool, typer.Option("--admin/--user")] = False,
    config: Config = None,
) -> None:
    """Make a user an administrator, or not one."""
    with _opened(config) as platform:
        user = platform.accounts.by_name(name)
        platform.accounts.set_role(user.id, "admin" if admin else "user")


@keys.command("add")
def add_key(
    name: Name,
    label: Annotated[str, typer.Option(help="What the key is for.")] = "command line",
    model: Annotated[list[str] | None, typer.Option(help="Only this model; repeatable.")] = None,
    cap: Annotated[str | None, typer.Option(help="Most it may ever spend, as in 2.50.")] = None,
    expires: Annotated[datetime | None, typer.Option(help="In UTC.")] = None,
    config: Config = None,
) -> None:
    """Make a key and print it, this once."""
    with _opened(config) as platform:
        made = platform.keys.create(
            platform.accounts.by_name(name).id,
            label,
            models=model or None,
            cap_nano=None if cap is None else _nano(cap, "--cap"),
            expires_seconds=None if expires is None else expires.replace(tzinfo=UTC).timestamp(),
        )
    typer.echo(made.secret)


@keys.command("list")
def list_keys(name: Name, config: Config = None) -> None:
    """A user's keys, one JSON object a line."""
    with _opened(config) as platform:
        for key in platform.keys.of_user(platform.accounts.by_name(name).id):
            shown = {
                "id": key.id,
                "name": key.name,
                "last4": key.hint,
                "models": key.models,
                "spent": format_nano(key.spent_nano),
                "cap": None if key.cap_nano is None else format_nano(key.cap_nano),
                "revoked": key.revoked_seconds is not None,
            }
            typer.echo(json.dumps(shown))


@keys.command("revoke")
def revoke_key(
    name: Name,
    key_id: Annotated[str, typer.Argument(help="As `keys list` shows it.")],
    config: Config = None,
) -> None:
    """End a key from the next request on."""
    with _opened(config) as platform:
        platform.keys.revoke(platform.accounts.by_name(name).id, key_id)


@balance.command("show")
def show_balance(name: Name, config: Config = None) -> None:
    """What an account has, and what its open requests hold."""
    with _opened(config) as platform:
        found = platform.ledger.balance(platform.accounts.by_name(name).id)
    shown = {
        "balance": format_nano(found.available_nano),
        "reserved": format_nano(found.reserved_nano),
        "currency": found.currency,
    }
    typer.echo(json.dumps(shown))


@balance.command("topup")
def top_up(
    name: Name,
    amount: Annotated[str, typer.Argument(help="As in 10 or 2.50.")],
    reference: Annotated[
        str | None, typer.Option(help="The payment's id: the same again adds nothing.")
    ] = None,
    config: Config = None,
) -> None:
    """Add money to an account."""
    used = reference or f"topup-{secrets.token_hex(12)}"
    with _opened(config) as platform:
        user = platform.accounts.by_name(name)
        left = platform.ledger.top_up(user.id, _nano(amount, "AMOUNT"), used, note="command line")
    typer.echo(json.dumps({"balance": format_nano(left), "reference": used}))


@balance.command("audit")
def audit(config: Config = None) -> None:
    """Check that the books add up; fails if they do not."""
    with _opened(config) as platform:
        problems = platform.usage.audit()
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(1)


@prices.command("list")
def list_prices(config: Config = None) -> None:
    """Every price, past ones included, per million tokens."""
    with _opened(config) as platform:
        for price in platform.prices.history():
            shown = {
                "model": price.model,
                "from": datetime.fromtimestamp(price.effective_seconds, UTC).isoformat(),
                "cache_hit": format_nano(price.cache_hit_nano),
                "input": format_nano(price.input_nano),
                "output": format_nano(price.output_nano),
                "reasoning": format_nano(price.reasoning_nano),
            }
            typer.echo(json.dumps(shown))


@prices.command("add")
def add_price(
    model: Annotated[str, typer.Argument(help="The name that requests use.")],
    cache_hit: Annotated[str, typer.Option(help="Per million tokens.")],
    input_price: Annotated[str, typer.Option("--input", help="Per million tokens.")],
    output: Annotated[str, typer.Option(help="Per million tokens.")],
    effective: Annotated[datetime | None, typer.Option(help="In UTC; now if left out.")] = None,
    config: Config = None,
) -> None:
    """Add a price from a date on; past prices are never edited."""
    moment = datetime.now(UTC) if effective is None else effective.replace(tzinfo=UTC)
    try:
        price = PriceConfig(
            model=model,
            effective=moment,
            cache_hit=Decimal(cache_hit),
            input=Decimal(input_price),
            output=Decimal(output),
            reasoning=None,
        )
    except (ArithmeticError, ValueError) as error:
        raise ConfigError(f"price of {model}: expected amounts such as 0.27 ({error})") from None
    with _opened(config) as platform:
        platform.prices.add(price)


@app.command("backup")
def backup(
    target: Annotated[Path, typer.Argument(help="A file that does not exist yet.")],
    config: Config = None,
) -> None:
    """Copy the database while the server runs; the copy is whole and checked."""
    source = _sqlite_file(load_server_config(config))
    if target.exists():
        raise ConfigError(f"{target} exists already; name a new file")
    if not source.is_file():
        raise DataError(f"{source} does not exist; there is nothing to back up")
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as read,
        contextlib.closing(sqlite3.connect(target)) as write,
    ):
        read.backup(write)
        _check_whole(write, target)
    target.chmod(0o600)
    typer.echo(str(target))


@app.command("restore")
def restore(
    source: Annotated[Path, typer.Argument(help="A backup.")],
    config: Config = None,
) -> None:
    """Put a backup in the place of the database; no server may run, and none may be there."""
    target = _sqlite_file(load_server_config(config))
    if not _is_sqlite(source):
        raise DataError(f"{source} is not a backup; name a file that `admin backup` wrote")
    if target.exists():
        raise ConfigError(f"{target} exists; stop the server and move it away first")
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as read,
        contextlib.closing(sqlite3.connect(target)) as write,
    ):
        _check_whole(read, source)
        read.backup(write)
    target.chmod(0o600)
    typer.echo(str(target))


def _is_sqlite(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE_MARK)) == _SQLITE_MARK


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    if answer != "ok":
        raise DataError(f"{path} is damaged ({answer}); use another backup")


def _sqlite_file(config: ServerConfig) -> Path:
    url = config.database.url
    if not url.startswith("sqlite:///"):
        raise ConfigError("backup and restore are for SQLite; use pg_dump and pg_restore here")
    return Path(url.removeprefix("sqlite:///"))


def _password() -> str:
    return typer.prompt("Password", hide_input=True, confirmation_prompt=True)


def _nano(text: str, name: str) -> int:
    try:
        return parse_nano(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _shown(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "locked": user.locked,
        "balance": format_nano(user.balance_nano),
    }
