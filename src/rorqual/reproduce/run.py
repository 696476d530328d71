"""The runs of a claim: every arm with every seed, in turns, each resumed where it stopped.

Seeds are the outer loop, so that an hour in which the machine is slow hits all arms alike. A
recipe's arms are its stages, so it runs once a seed.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rorqual.config.claim import ClaimConfig, claim_recipe, read_claim
from rorqual.config.recipe import Pipeline, load_recipe
from rorqual.config.run import RunConfig, load_run_config
from rorqual.errors import ConfigError
from rorqual.model import Transformer
from rorqual.parallel import join_processes
from rorqual.recipe import run_recipe
from rorqual.reproduce.grouped_query import (
    GroupedQueryTransformer,
    arm_flops_per_token,
    check_heads,
)
from rorqual.train import RunFolder, run_pretraining
from rorqual.train.run import BuildProgress, MakeModel


def load_claim(name: str) -> ClaimConfig:
    """A shipped claim by name, or a TOML file; ConfigError if an arm asks for what is unknown."""
    claim = read_claim(name)
    seed = claim.claim.seeds[0]
    if claim.claim.recipe is not None:
        stages = {stage.name: stage.head.kind for stage in claim_pipeline(claim, seed).stages}
        for name, arm in claim.arms.items():
            if stages.get(str(arm.stage)) not in ("rl", "distill"):
                raise ConfigError(
                    f"arms.{name}: stage={arm.stage} is no rl or distill stage of the recipe; it "
                    f"has {', '.join(stages)}"
                )
        return claim
    for name, arm in claim.arms.items():
        config = arm_config(claim, name, seed)
        if arm.num_key_value_heads is not None:
            check_heads(config.model, arm.num_key_value_heads)
    return claim


def arm_config(claim: ClaimConfig, arm: str, seed: int) -> RunConfig:
    """What one run trains; its budget is still the base's."""
    said = claim.claim
    overrides = (*said.settings, *claim.arms[arm].settings, f"train.seed={seed}")
    return load_run_config(said.base, overrides)


def arm_flops(claim: ClaimConfig, arm: str, config: RunConfig) -> float:
    """Training FLOPs per token of an arm's run."""
    heads = claim.arms[arm].num_key_value_heads
    return arm_flops_per_token(config.model, config.train.sequence_length, heads)


def claim_pipeline(claim: ClaimConfig, seed: int) -> Pipeline:
    """The recipe of a claim, as one seed runs it."""
    overrides = (*claim.claim.settings, f"recipe.seed={seed}")
    return load_recipe(str(claim_recipe(claim.claim)), overrides)


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """Where one pretraining run lies."""
    return out / f"{arm}-{seed}"


def recipe_folder(out: Path, seed: int) -> Path:
    """Where one run of the recipe lies."""
    return out / f"seed-{seed}"


def budgeted(claim: ClaimConfig, arm: str, seed: int) -> RunConfig:
    """One run's configuration with the budget that all arms share, in tokens or in seconds."""
    config = arm_config(claim, arm, seed)
    budget: dict[str, float | int | None] = {"token_budget": None, "time_budget_seconds": None}
    if claim.claim.flops is not None:
        budget["token_budget"] = round(claim.claim.flops / arm_flops(claim, arm, config))
    else:
        budget["time_budget_seconds"] = claim.claim.seconds
    return config.model_copy(update={"train": config.train.model_copy(update=budget)})


def run_claim(
    claim: ClaimConfig,
    out: Path,
    show_build: BuildProgress,
    say: Callable[[str], None],
    *,
    only_seed: int | None = None,
) -> str | None:
    """Run what has not run yet; the name of the signal that stopped it, None once all is done.

    only_seed: run no other. ConfigError if the claim has no such seed.
    """
    seeds = claim.claim.seeds
    if only_seed is not None:
        if only_seed not in seeds:
            known = ", ".join(map(str, seeds))
            raise ConfigError(f"seed {only_seed} is none of the claim's; it has {known}")
        seeds = (only_seed,)
    if claim.claim.recipe is not None:
        return _run_recipes(claim, seeds, out, say)
    processes = join_processes()
    try:
        runs = [(arm, seed) for seed in seeds for arm in claim.arms]
        for number, (arm, seed) in enumerate(runs, start=1):
            folder = RunFolder(run_folder(out, arm, seed))
            say(f"[{number}/{len(runs)}] {arm}, seed {seed}")
            config = budgeted(claim, arm, seed)
            if folder.exists:
                config = folder.recorded_config(RunConfig, config)
            make = _make_model(claim, arm)
            result = run_pretraining(config, folder, processes, show_build, make)
            if result.stopped_by is not None:
                return result.stopped_by
    finally:
        processes.close()
    return None


def _make_model(claim: ClaimConfig, arm: str) -> MakeModel:
    heads = claim.arms[arm].num_key_value_heads
    if heads is None:
        return Transformer
    return partial(GroupedQueryTransformer, num_key_value_heads=heads)


def _run_recipes(
    claim: ClaimConfig, seeds: tuple[int, ...], out: Path, say: Callable[[str], None]
) -> str | None:
    for number, seed in enumerate(seeds, start=1):
        say(f"[{number}/{len(seeds)}] seed {seed}")
        result = run_recipe(claim_pipeline(claim, seed), recipe_folder(out, seed))
        if result.stopped_by is not None:
            return result.stopped_by
    return None
