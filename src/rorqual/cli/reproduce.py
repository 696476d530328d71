"""`rorqual reproduce`: a claim of the papers, tried in small, with seeds and intervals."""

from pathlib import Path
from typing import Annotated

import typer

from rorqual.cli.data import show_progress
from rorqual.cli.options import say
from rorqual.config.claim import list_claims
from rorqual.reproduce import collect, load_claim, run_claim, table_row, write_claim_report


def reproduce(
    claim: Annotated[
        str | None, typer.Argument(help="A claim's name or TOML file; left out: list them.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Its folder; runs/reproduce/NAME if left out.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Only this seed's runs; the rest beside it, then --collect.")
    ] = None,
    only_collect: Annotated[
        bool, typer.Option("--collect", help="Run nothing; read the finished runs again.")
    ] = False,
) -> None:
    """Train every arm with every seed, compare them, print the row for the table of results.

    Ctrl-C saves; the same command goes on.
    """
    if claim is None:
        for name in list_claims():
            typer.echo(f"{name:14} {load_claim(name).claim.statement}")
        return
    config = load_claim(claim)
    name = Path(claim).stem
    folder = out or Path("runs") / "reproduce" / name
    if not only_collect:
        stopped_by = run_claim(config, folder, show_progress, say, only_seed=seed)
        if stopped_by is not None:
            say(f"stopped by {stopped_by}, saved; the same command goes on")
            raise typer.Exit(1)
        if seed is not None:
            say(f"seed {seed} is done; once all are: rorqual reproduce {claim} --collect")
            return
    outcome = collect(config, folder)
    say(f"see {write_claim_report(config, outcome, folder)}")
    typer.echo(table_row(name, config, outcome))
