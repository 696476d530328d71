"""`rorqual speedrun`: the whole recipe, from raw text to a small reasoning model and its report."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rorqual.config.recipe import load_recipe
from rorqual.recipe import run_recipe


def speedrun(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes: zero.rl.max_steps=50, recipe.seed=1 and so on."),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="A shipped recipe (tiny, laptop) or a TOML file.")
    ] = "laptop",
    out: Annotated[
        Path | None, typer.Option(help="The recipe's folder; runs/speedrun-NAME if left out.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved stages and stop.")
    ] = False,
) -> None:
    """Pretrain, learn to think, distil, evaluate; prints the path of the report.

    Finished stages are kept and an unfinished one goes on, so the same command continues after
    Ctrl-C, a crash or a power cut.
    """
    pipeline = load_recipe(preset, tuple(overrides or ()))
    out = out or Path("runs") / f"speedrun-{pipeline.source.stem}"
    if dry_run:
        stages = [{"name": stage.name} | stage.values() for stage in pipeline.stages]
        plan = {"recipe": pipeline.recipe.model_dump(mode="json"), "stages": stages}
        typer.echo(json.dumps(plan, indent=2, ensure_ascii=False))
        return
    console = Console(stderr=True)
    again = " ".join(["rorqual speedrun", *(overrides or ()), f"--preset {preset} --out {out}"])
    try:
        result = run_recipe(pipeline, out)
    except KeyboardInterrupt:
        console.print(
            f"interrupted; go on with: {again}", highlight=False, markup=False, soft_wrap=True
        )
        raise typer.Exit(1) from None
    if result.stopped_by is not None:
        console.print(
            f"stopped by {result.stopped_by}, saved; go on with: {again}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(1)
    typer.echo(str(result.report))
