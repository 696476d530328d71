"""How the engine runs: its limits, its cache and its pace."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class EngineConfig(BaseModel):
    """What `rorqual.LLM` and `rorqual serve` take beside the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["auto", "fp32", "bf16", "int8", "int4"] = Field(
        "auto", description="of the weights in memory; auto: bf16, fp32 on the torch path"
    )
    device: str = Field("cpu", description="cpu, or a torch device (runs on the torch path)")
    num_threads: int | None = Field(
        None, gt=0, description="threads of the native runtime; None: one per physical core"
    )
    max_model_len: int | None = Field(
        None, gt=0, description="longest context in tokens; None: the model's own"
    )
    max_num_seqs: int = Field(64, gt=0, description="sequences that are computed together")
    max_batch_tokens: int = Field(2048, gt=0, description="most tokens that one step feeds")
    max_waiting_requests: int = Field(
        4096, gt=0, description="queued requests above which another one is refused"
    )
    max_cache_bytes: int | None = Field(
        None, gt=0, description="bytes of the paged cache; None: cache_share of free memory"
    )
    packed_cache: Literal["on", "off"] = Field(
        "on",
        description="keep packed weights in the user's cache (XDG_CACHE_HOME), where the next "
        "start maps them; off: every start packs them anew",
    )
    packed_cache_bytes: int = Field(
        16_000_000_000, gt=0, description="most bytes of all packed weights kept; the oldest go"
    )
    cache_share: float = Field(
        0.5, gt=0, le=0.95, description="share of the memory left beside the weights for the cache"
    )
    target_step_seconds: float = Field(
        0.1, gt=0, description="a prompt is read in pieces so small that a step takes no longer"
    )
    reserved_growth: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of what running requests may still come to need that admission keeps "
        "free; 1: nothing is ever pre-empted for lack of room",
    )
    num_speculative_tokens: Annotated[int, Field(ge=1, le=8)] | Literal["auto", "off"] = Field(
        "off",
        description="tokens that the model's own MTP module drafts, for the next step to verify; "
        "the output is the same, only sooner or later. auto: one, where steps timed with and "
        "without say that it pays; a number: always so many. For models whose step takes long: "
        "on the small ones that ship it does not pay",
    )
    prefix_caching: bool = Field(True, description="keep and share the blocks of equal beginnings")
    check_invariants: bool = Field(False, description="check the block tables after every step")
    seed: int | None = Field(
        None, ge=0, description="where requests without a seed take theirs; None: at random"
    )
