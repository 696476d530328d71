"""A whole plan: every figure in reading order, each beside what was published for it."""

import difflib
from dataclasses import replace

from rorqual.config import ModelConfig
from rorqual.config.plan import PlanConfig
from rorqual.errors import ConfigError
from rorqual.planner.figures import Figure
from rorqual.planner.model_figures import cache_figures, compute_figures, parameter_figures
from rorqual.planner.parameters import count_parameters
from rorqual.planner.run_figures import (
    CONDITIONAL_KEYS,
    bill_figures,
    cpu_figures,
    memory_figures,
    throughput_figures,
)


def make_plan(config: ModelConfig, plan: PlanConfig) -> tuple[Figure, ...]:
    """All figures for `config` under the assumptions of `plan`.

    The published side comes from the plan's own table; a key there that names no figure of this
    plan is a ConfigError, so that a comparison cannot silently disappear.
    """
    counts = count_parameters(config)
    figures = [
        *parameter_figures(config, counts),
        *compute_figures(config, counts, plan),
        *cache_figures(config, plan),
        *throughput_figures(config, counts, plan),
        *bill_figures(config, counts, plan),
        *memory_figures(config, counts, plan),
        *cpu_figures(config, counts, plan),
    ]
    keys = [figure.key for figure in figures]
    for key in plan.published:
        if key not in keys and key not in CONDITIONAL_KEYS:
            nearest = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(keys)}"
            raise ConfigError(f"plan.published.{key}: this plan has no such quantity; {hint}")
    return tuple(
        replace(figure, published=plan.published.get(figure.key, figure.published))
        for figure in figures
    )
