"""What the press of January 2025 printed about DeepSeek's cost, recomputed.

Every constant names its document; `docs/claims.md` tells what each figure includes and leaves out.
Where no document could be found, the source says "not found" and the verdict follows from
arithmetic alone, or is `cannot be checked`.
"""

from dataclasses import dataclass
from typing import Literal

from rorqual.config import ModelConfig
from rorqual.config.plan import PlanConfig
from rorqual.errors import ConfigError
from rorqual.planner.budget import HOURS_PER_DAY
from rorqual.planner.flops import train_flops_per_token
from rorqual.planner.parameters import count_parameters
from rorqual.planner.run_figures import published_gpu_hours

Verdict = Literal["holds", "holds with a caveat", "does not hold", "cannot be checked"]

R1_INPUT_USD, R1_OUTPUT_USD = 0.55, 2.19  # per 1M tokens, cache miss; DeepSeek price list
R1_CACHED_USD = 0.14
O1_INPUT_USD, O1_OUTPUT_USD, O1_CACHED_USD = 15.0, 60.0, 7.5  # OpenAI's list price of the time
LLAMA31_GPU_HOURS = {"8B": 1.46e6, "70B": 7.0e6, "405B": 30.84e6}  # Meta's model card, H100
LLAMA31_405B_PARAMETERS, LLAMA31_TRAIN_TOKENS = 405e9, 15.6e12  # Llama 3 report, section 3
GPT4O_REPORTED_USD = 100e6  # Qianjiang Evening News, 2025-01-28; OpenAI has published none
SERVER_CAPEX_USD, OPERATION_USD = 1.6e9, 944e6  # SemiAnalysis, 2025-01-31, an estimate
TOTAL_COST_USD = 2.573e9  # the two, four years, as quoted second-hand from SemiAnalysis
FLEET_GPUS = 50_000  # SemiAnalysis: Hopper GPUs of all kinds, shared with High-Flyer
R1_GPU_HOURS = 147_000  # Nature 645:633, supplement


@dataclass(frozen=True)
class Claim:
    """One printed figure: what was said, what the sources give, and whether it holds."""

    key: str
    printed: str
    recomputed: str
    verdict: Verdict
    source: str


def press_claims(config: ModelConfig, plan: PlanConfig) -> tuple[Claim, ...]:
    """The claims against the bill in `plan`; ConfigError for a model without a published bill."""
    total_hours = published_gpu_hours(plan)
    if total_hours is None or not plan.stages[0].phases:
        raise ConfigError(
            "--claims: this plan has no published GPU-hours to check them against; "
            "run `rorqual plan v3 --claims`"
        )
    return (
        *_money_claims(plan, total_hours),
        *_price_claims(),
        _gpt4o_claim(total_hours * plan.gpu_hour_usd),
        _llama_claim(config, plan, total_hours),
        _server_claim(plan, total_hours),
    )


def _money_claims(plan: PlanConfig, total_hours: float) -> tuple[Claim, ...]:
    """5.576, 5.573 and 5.5 million dollars, and "under 6 million"."""
    usd = total_hours * plan.gpu_hour_usd
    parts = " + ".join(f"{(stage.gpu_hours or 0) / 1e3:,.0f}K" for stage in plan.stages)
    with_r1 = usd + R1_GPU_HOURS * plan.gpu_hour_usd
    report = "V3 report, table 1"

    def error(printed_usd: float) -> str:
        return f"${usd:,.0f}; printed is {100 * (printed_usd / usd - 1):+.2f} %"

    return (
        Claim(
            "usd_5576k",
            "V3 cost $5.576 million",
            f"({parts}) GPU-h x ${plan.gpu_hour_usd:g} = ${usd:,.0f}; the last run only",
            "holds with a caveat",
            report,
        ),
        Claim(
            "usd_5573k",
            "V3 cost $5.573 million",
            f"{error(5.573e6)}; no sum of the bill's rows gives it",
            "does not hold",
            f"{report}; origin of the figure: not found",
        ),
        Claim(
            "usd_5500k",
            "V3 cost $5.5 million",
            f"{error(5.5e6)}; to one decimal it is 5.6",
            "holds with a caveat",
            report,
        ),
        Claim(
            "usd_under_6m",
            "under $6 million",
            f"${usd:,.0f}; with R1's {R1_GPU_HOURS / 1e3:.0f}K GPU-h ${with_r1:,.0f}",
            "holds with a caveat",
            f"{report}; Nature 645:633",
        ),
    )


def _price_claims() -> tuple[Claim, ...]:
    """4 % and 1/30 of o1's price."""
    shares = (R1_INPUT_USD / O1_INPUT_USD, R1_OUTPUT_USD / O1_OUTPUT_USD)
    cached = R1_CACHED_USD / O1_CACHED_USD
    percent = f"input {100 * shares[0]:.2f} %, output {100 * shares[1]:.2f} %"
    factor = f"input 1/{1 / shares[0]:.1f}, output 1/{1 / shares[1]:.1f}"
    source = "price lists of January 2025: R1 $0.55/$2.19, o1 $15/$60 per 1M tokens"
    return (
        Claim("o1_4_percent", "4 % of o1's price", f"{percent}, rounded 4 %", "holds", source),
        Claim(
            "o1_one_thirtieth",
            "1/30 of o1's price",
            f"{factor}; cached input 1/{1 / cached:.1f}",
            "holds with a caveat",
            source,
        ),
    )


def _gpt4o_claim(usd: float) -> Claim:
    ratio = GPT4O_REPORTED_USD / usd
    return Claim(
        "gpt4o_one_tenth",
        "a tenth of GPT-4o's training",
        f"would need ${10 * usd / 1e6:.1f}M; the press figure of $100M would make it 1/{ratio:.1f}",
        "cannot be checked",
        "OpenAI has published no cost: not found",
    )


def _llama_claim(config: ModelConfig, plan: PlanConfig, total_hours: float) -> Claim:
    """Llama 3's compute as 15 trainings of V3, in GPU-hours and in FLOPs."""
    phase = plan.stages[0].phases[0]
    per_token = train_flops_per_token(
        config, count_parameters(config), phase.sequence_tokens, causal=True
    )
    family, largest = sum(LLAMA31_GPU_HOURS.values()), LLAMA31_GPU_HOURS["405B"]
    pretraining = plan.stages[0].gpu_hours or total_hours
    llama_flops = 6 * LLAMA31_405B_PARAMETERS * LLAMA31_TRAIN_TOKENS
    flops_ratio = llama_flops / (phase.train_tokens * per_token)
    return Claim(
        "llama3_15_trainings",
        "Llama 3's compute would train V3 15 times",
        f"GPU-h, all of Llama 3.1: {family / pretraining:.2f} pretrainings, "
        f"{family / total_hours:.2f} full trainings; 405B alone: {largest / total_hours:.2f}; "
        f"FLOPs of 405B: {flops_ratio:.1f}",
        "holds with a caveat",
        "Llama 3.1 model card (39.3M H100 h); Llama 3 report (15.6T tokens)",
    )


def _server_claim(plan: PlanConfig, total_hours: float) -> Claim:
    """2.6 billion dollars of servers: an estimate of everything, over four years."""
    estimate = SERVER_CAPEX_USD + OPERATION_USD
    share = 100 * plan.num_gpus / FLEET_GPUS
    run_days = total_hours / plan.num_gpus / HOURS_PER_DAY
    return Claim(
        "servers_2600m",
        "$2.6 billion of servers",
        f"servers ${SERVER_CAPEX_USD / 1e9:.1f}B + operation ${OPERATION_USD / 1e9:.3f}B = "
        f"${estimate / 1e9:.3f}B (quoted unrounded as ${TOTAL_COST_USD / 1e9:.3f}B); V3's run took "
        f"{share:.1f} % of those GPUs for {run_days:.0f} days",
        "does not hold",
        "SemiAnalysis, 2025-01-31: an outside estimate, four years, whole fleet",
    )
