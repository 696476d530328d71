"""`rorqual verify`: whether a model is what its signature and its logs say. Without torch."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from rorqual.checkpoint import model_directory
from rorqual.checkpoint.weights import open_weights
from rorqual.cli.options import say
from rorqual.errors import ConfigError, RorqualError
from rorqual.eval import EvalFolder, rescore
from rorqual.eval.folder import ABOUT_MODEL, CONFIG, ITEMS, SUMMARY
from rorqual.packages import file_sha256
from rorqual.release import (
    Trust,
    TrustedKeys,
    examine,
    follow_rotations,
    known_keys,
    read_public_key,
)
from rorqual.tasks import list_tasks

_MOST_DIFFERENCES = 10
_CONFIG_FILE, _TOKENIZER_FILE = "config.json", "tokenizer.json"


@dataclass
class Finding:
    """What was found in one place. problems: each names the file or item that is not right."""

    trust: Trust
    num_items: int = 0
    logs: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])


def verify(
    place: Annotated[
        Path, typer.Argument(help="A model directory or file, a run, an evaluation's folder.")
    ],
    key: Annotated[
        list[Path] | None,
        typer.Option(help="A public key (PEM) to trust instead of the package's; repeatable."),
    ] = None,
    rotations: Annotated[
        Path | None,
        typer.Option(help="A folder of keys: those that a trusted key vouches for are trusted."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Check a model's signature, the form of its weights, and the logs of its evaluations.

    Names every file that was changed, added or is missing, and every logged answer whose score is
    not what scoring it again gives. Exits 0 if all is right, 1 if not (unsigned too), 2 if there is
    nothing to check.
    """
    where = model_directory(place)
    if not where.exists():
        raise ConfigError(f"{place}: no such directory or file; name a model directory")
    trusted = _trusted(key or [], rotations)
    say(f"checking {where}")
    found = Finding(examine(where, trusted))
    is_evaluation = _is_evaluation(where)
    if not (is_evaluation and found.trust.state == "unsigned"):
        found.problems += _words(found.trust)
    if where.is_file() or (where / _TOKENIZER_FILE).exists():
        found.problems += _form(where)
    for folder in _evaluations(where):
        _check_log(where, folder, found)
    if as_json:
        typer.echo(json.dumps(_as_json(where, found), indent=2, ensure_ascii=False))
    else:
        _print(where, found)
    if found.problems:
        raise typer.Exit(1)


def _trusted(keys: list[Path], rotations: Path | None) -> TrustedKeys:
    own = TrustedKeys.of(*(read_public_key(path) for path in keys))
    trusted = own if keys else known_keys()
    return trusted if rotations is None else follow_rotations(trusted, rotations)


def _words(trust: Trust) -> list[str]:
    """What is wrong with a signature."""
    if trust.holds:
        return []
    if trust.state == "unsigned":
        return ["unsigned: nothing says who made this, or whether it was changed"]
    if trust.state == "unknown_key":
        return [f"signed by an unknown key ({trust.fingerprint}); give it with --key to trust it"]
    return list(trust.problems)


def _form(model: Path) -> list[str]:
    """Whether every tensor of the architecture is there in its shape, and a tokenizer."""
    try:
        open_weights(model).tokenizer()
    except RorqualError as error:
        return [str(error)]
    return []


def _is_evaluation(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (CONFIG, ITEMS, SUMMARY))


def _evaluations(where: Path) -> list[Path]:
    if not where.is_dir():
        return []
    folders = {log.parent for log in where.rglob(ITEMS)}
    return sorted(folder for folder in folders if _is_evaluation(folder))


def _check_log(where: Path, path: Path, found: Finding) -> None:
    """Score a log again, and see that it is of the model in whose directory it lies.

    NOTE: a task may be a Python file, which scoring would run: only tasks that ship are scored.
    """
    name = path.relative_to(where).as_posix() if path != where else path.name
    try:
        found.problems += _of_other_model(where, path, name)
        foreign = {share.name for share in EvalFolder(path).config().tasks} - set(list_tasks())
        if foreign:
            found.problems.append(
                f"{name}: not scored again, since task {min(foreign)} is code from elsewhere; if "
                f"you trust it: rorqual eval --rescore {path}"
            )
            return
        result = rescore(EvalFolder(path))
    except RorqualError as error:
        found.problems.append(str(error))
        return
    found.logs.append(name)
    found.num_items += result.num_items
    told = [f"{name}/{ITEMS}: {text}" for text in result.differences[:_MOST_DIFFERENCES]]
    if len(result.differences) > _MOST_DIFFERENCES:
        told.append(f"{name}/{ITEMS}: and {len(result.differences) - _MOST_DIFFERENCES} more")
    found.problems += told


def _of_other_model(where: Path, path: Path, name: str) -> list[str]:
    """The model's files that are not those which the log says were asked."""
    if path == where or not (where / _CONFIG_FILE).is_file():
        return []
    recorded: Any = EvalFolder(path).about().get(ABOUT_MODEL)
    if not (isinstance(recorded, dict) and recorded):
        return [f"{name}/{CONFIG}: does not say of which model it is"]
    return [
        f"{name} is an evaluation of another {file}"
        for file, digest in recorded.items()
        if not (where / file).is_file() or file_sha256(where / file) != digest
    ]


def _as_json(where: Path, found: Finding) -> dict[str, Any]:
    return {
        "path": str(where),
        "verified": not found.problems,
        "signature": found.trust.to_json(),
        "logs": found.logs,
        "items_scored_again": found.num_items,
        "problems": found.problems,
    }


def _print(where: Path, found: Finding) -> None:
    trust = found.trust
    if trust.holds:
        typer.echo(f"{where}: {trust.label}")
        typer.echo(f"digest       {trust.digest}")
        typer.echo(f"fingerprint  {trust.fingerprint}")
    for name in found.logs:
        typer.echo(f"log          {name}")
    if found.logs:
        typer.echo(f"{found.num_items} logged answers scored again")
    for problem in found.problems:
        shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in problem)
        typer.echo(f"PROBLEM      {shown}")
    typer.echo("verified" if not found.problems else "NOT verified")
