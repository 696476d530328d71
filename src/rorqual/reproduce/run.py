"""The runs of a claim: every arm with every seed, in turns, each resumed where it stopped.

Seeds are the outer loop, so that an hour in which the machine is slow hits all arms alike.
"""

from collections.abc import Callable
from pathlib import Path

from rorqual.config.claim import ClaimConfig, read_claim
from rorqual.config.run import RunConfig, load_run_config
from rorqual.parallel import join_processes
from rorqual.train import RunFolder, run_pretraining
from rorqual.train.run import BuildProgress
from rorqual.train.run_loop import flops_per_token


def load_claim(name: str) -> ClaimConfig:
    """A shipped claim by name, or a TOML file; ConfigError if an arm asks for what is unknown."""
    claim = read_claim(name)
    for arm in claim.arms:
        arm_config(claim, arm, claim.claim.seeds[0])
    return claim


def arm_config(claim: ClaimConfig, arm: str, seed: int) -> RunConfig:
    """What one run trains; its budget is still the base's."""
    said = claim.claim
    overrides = (*said.settings, *claim.arms[arm].settings, f"train.seed={seed}")
    return load_run_config(said.base, overrides)


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """Where one run lies."""
    return out / f"{arm}-{seed}"


def budgeted(claim: ClaimConfig, arm: str, seed: int) -> RunConfig:
    """One run's configuration with the budget that all arms share, in tokens or in seconds."""
    config = arm_config(claim, arm, seed)
    budget: dict[str, float | int | None] = {"token_budget": None, "time_budget_seconds": None}
    if claim.claim.flops is not None:
        per_token = flops_per_token(config.model, config.train.sequence_length)
        budget["token_budget"] = round(claim.claim.flops / per_token)
    else:
        budget["time_budget_seconds"] = claim.claim.seconds
    return config.model_copy(update={"train": config.train.model_copy(update=budget)})


def run_claim(
    claim: ClaimConfig,
    out: Path,
    show_build: BuildProgress,
    say: Callable[[str], None],
) -> str | None:
    """Run what has not run yet; the name of the signal that stopped it, None once all is done."""
    processes = join_processes()
    try:
        runs = [(arm, seed) for seed in claim.claim.seeds for arm in claim.arms]
        for number, (arm, seed) in enumerate(runs, start=1):
            folder = RunFolder(run_folder(out, arm, seed))
            say(f"[{number}/{len(runs)}] {arm}, seed {seed}")
            config = budgeted(claim, arm, seed)
            if folder.exists:
                config = folder.recorded_config(RunConfig, config)
            result = run_pretraining(config, folder, processes, show_build)
            if result.stopped_by is not None:
                return result.stopped_by
    finally:
        processes.close()
    return None
