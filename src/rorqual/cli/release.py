"""`rorqual release`: what its makers do so that others can check it. Without torch."""

from pathlib import Path
from typing import Annotated

import typer

from rorqual.checkpoint import model_directory
from rorqual.checkpoint.atomic import atomic_file
from rorqual.cli.options import say
from rorqual.errors import ConfigError
from rorqual.release import (
    ROTATION_SUFFIX,
    PrivateKey,
    PublicKey,
    fresh_key,
    public_half,
    read_private_key,
    rotate,
    sign_model,
    signature_path,
    write_private_key,
)
from rorqual.release.sbom import write_sbom

app = typer.Typer(no_args_is_help=True, help="Sign models, make and rotate keys, list parts.")

Name = Annotated[
    str, typer.Argument(help="Of the new key, as users will read it: rorqual-pocket-1.0.")
]
Keys = Annotated[Path, typer.Option(help="Folder of the public keys.")]
_KEYS = Path("keys")


@app.command("sign")
def sign(
    models: Annotated[list[Path], typer.Argument(help="Model directories, or models in one file.")],
    key: Annotated[
        Path | None, typer.Option(help="The private key to sign with (PEM, P-256 or larger).")
    ] = None,
    once: Annotated[
        str | None,
        typer.Option(
            help="Instead of --key: sign with a fresh key of this name that is never stored; its "
            "public half goes to --keys."
        ),
    ] = None,
    keys: Keys = _KEYS,
) -> None:
    """Sign every file of each model with one key; writes model.sig into it, replacing an older one.

    With --once nobody can ever sign with that key again, nor can it vouch for a successor.
    """
    if (key is None) == (once is None):
        raise ConfigError("give either --key FILE or --once NAME")
    places = [model_directory(model) for model in models]
    missing = next((place for place in places if not place.exists()), None)
    if missing is not None:
        raise ConfigError(f"{missing}: no such directory or file; name a model directory")
    private = fresh_key() if key is None else read_private_key(key)
    name = key.stem if key is not None else once
    assert name is not None
    public = public_half(private, name)
    if once is not None:
        _check_new(once, keys)
    for place in places:
        manifest = sign_model(place, private)
        say(f"{signature_path(place)}: {len(manifest.files)} files")
        typer.echo(f"{manifest.digest}  {place}")
    if once is not None:
        _write_public(public, keys)
    _tell(public)


@app.command("key")
def make_key(
    name: Name,
    private: Annotated[Path, typer.Option(help="New file for the private half; keep it offline.")],
    keys: Keys = _KEYS,
) -> None:
    """Make a key that nobody vouches for: users learn it from the package that carries it."""
    _check_new(name, keys, private)
    _tell(_made(fresh_key(), name, private, keys))


@app.command("rotate")
def rotate_key(
    name: Name,
    private: Annotated[Path, typer.Option(help="New file for the private half; keep it offline.")],
    old_key: Annotated[Path, typer.Option(help="The private key that vouches for the new one.")],
    keys: Keys = _KEYS,
) -> None:
    """Make a key that an older one names as its successor; then the older one can be destroyed."""
    _check_new(name, keys, private)
    old, new = read_private_key(old_key), fresh_key()
    public = _made(new, name, private, keys)
    with atomic_file(keys / f"{name}{ROTATION_SUFFIX}") as file:
        file.write_text(rotate(old, public), encoding="utf-8")
    say(f"vouched for by {public_half(old, '').fingerprint}")
    _tell(public)


@app.command("sbom")
def sbom(
    out: Annotated[Path, typer.Argument(help="File to write.")] = Path("sbom.cdx.json"),
    source: Annotated[Path, typer.Option(help="A checkout: its lock files are read.")] = Path("."),
) -> None:
    """List what a release is made of, as a CycloneDX 1.6 bill of materials."""
    count = write_sbom(source, out)
    typer.echo(f"{out}: {count} parts")


def _check_new(name: str, keys: Path, *others: Path) -> None:
    if Path(name).name != name:
        raise ConfigError(f"{name}: is a path, expected the name of a key")
    for path in (keys / f"{name}.pem", *others):
        if path.exists():
            raise ConfigError(f"{path}: is there already; choose another name")


def _made(key: PrivateKey, name: str, private: Path, keys: Path) -> PublicKey:
    try:
        write_private_key(private, key)
    except OSError as error:
        raise ConfigError(f"{private}: cannot be written ({error}); choose another file") from error
    public = public_half(key, name)
    _write_public(public, keys)
    return public


def _write_public(public: PublicKey, keys: Path) -> None:
    path = keys / f"{public.name}.pem"
    with atomic_file(path) as file:
        file.write_text(public.pem, encoding="ascii")
    say(f"public key in {path}")


def _tell(public: PublicKey) -> None:
    typer.echo(f"fingerprint of {public.name}: {public.fingerprint}")
