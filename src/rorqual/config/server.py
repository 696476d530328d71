"""What a server may do: its database, accounts, prices, limits, and how it yields under load.

A file has `mode` and, where the defaults do not fit, `[http]`, one `[[models]]` per model,
`[engine]`, `[watch]`, `[generation]`, `[lab]`, `[database]`, `[accounts]`, `[metering]`,
`[admission]`, `[overload]` and one `[[prices]]` per model and date.
"""

import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rorqual.config.engine import EngineConfig
from rorqual.config.http import (
    GenerationConfig,
    HttpConfig,
    LabConfig,
    ServedModel,
    WatchConfig,
)

# A challenge of 2 ** 24 hashes is half a minute of a browser; more would shut people out.
_MAX_DIFFICULTY_BITS = 24


def _own_database() -> str:
    """A file among the user's data (XDG_DATA_HOME, by default ~/.local/share)."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return f"sqlite:///{Path(base).absolute() / 'rorqual' / 'rorqual.db'}"


class DatabaseConfig(BaseModel):
    """Where accounts, money and conversations are kept: SQLite, or PostgreSQL by another URL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        default_factory=_own_database,
        description="sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME for several hosts; "
        "rorqual/rorqual.db among the user's own data if left out",
    )
    max_connections: int = Field(
        8, gt=0, le=256, description="readers on SQLite, all connections on PostgreSQL"
    )
    lock_timeout_seconds: float = Field(
        30.0, gt=0, description="SQLite: wait for another process's transaction"
    )
    max_commit_operations: int = Field(
        256, gt=0, description="SQLite: operations that one commit may carry"
    )

    @field_validator("url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        if url.startswith(("postgresql://", "postgresql+psycopg://")):
            return url
        if not url.startswith("sqlite:///"):
            raise ValueError("expected sqlite:///FILE or postgresql://...")
        if url.removeprefix("sqlite:///") in ("", ":memory:"):
            raise ValueError("an in-memory database loses money; name a file: sqlite:///FILE")
        return url


class AccountsConfig(BaseModel):
    """Registration, passwords, sessions, and what a flood of either has to pay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    registration: Literal["open", "closed"] = Field(
        "closed", description="closed: only `rorqual admin` makes accounts"
    )
    starting_balance: Decimal = Field(
        Decimal(0), ge=0, description="money that a new account is given, in metering.currency"
    )
    min_password_characters: int = Field(10, ge=8, le=128, description="length, nothing else")
    session_days: float = Field(30.0, gt=0, description="a login lasts this long")
    hash_memory_bytes: int = Field(19 * 2**20, ge=2**20, description="argon2id memory of one hash")
    hash_passes: int = Field(2, ge=1, description="argon2id passes")
    hash_slots: int = Field(2, ge=1, description="hashes under way at once; the rest wait")
    hash_wait_seconds: float = Field(5.0, gt=0, description="for a slot, before a 503")
    attempts_per_minute: float = Field(
        10.0, gt=0, description="logins and registrations from one address, over time"
    )
    attempts_burst: int = Field(20, gt=0, description="of them at once")
    free_failures: int = Field(
        5, ge=0, description="failed logins of one account before its logins need a proof of work"
    )
    failure_window_seconds: float = Field(900.0, gt=0, description="failures are remembered")
    challenge_seconds: float = Field(300.0, gt=0, description="a proof of work is valid for")
    challenge_bits: int = Field(
        16,
        ge=0,
        le=_MAX_DIFFICULTY_BITS,
        description="leading zero bits a proof needs; one more for each overload level",
    )


class MeteringConfig(BaseModel):
    """How tokens become money, and how many may be on their way before they are committed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="of prices and balances")
    unpriced: Literal["free", "refused"] = Field(
        "refused", description="requests for a model that no [[prices]] names"
    )
    flush_tokens: int = Field(
        16, gt=0, description="tokens of one stream committed, then sent, together"
    )
    flush_seconds: float = Field(0.1, gt=0, description="a token waits at most this long for more")
    heartbeat_seconds: float = Field(2.0, gt=0, description="a server says that it lives")
    dead_after_seconds: float = Field(
        20.0,
        gt=0,
        description="silence after which a server's open requests are settled, at the next look",
    )

    @model_validator(mode="after")
    def _beats_before_death(self) -> "MeteringConfig":
        if self.dead_after_seconds < 3 * self.heartbeat_seconds:
            raise ValueError(
                f"dead_after_seconds={self.dead_after_seconds} is less than three heartbeats of "
                f"{self.heartbeat_seconds} s; a slow disk would kill a living server"
            )
        return self


class PriceConfig(BaseModel):
    """What a model costs from a date on, in metering.currency per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, description="the name that requests use")
    effective: datetime = Field(
        datetime(2020, 1, 1, tzinfo=UTC), description="from this moment; with a time zone"
    )
    cache_hit: Decimal = Field(ge=0, description="prompt tokens found in the prefix cache")
    input: Decimal = Field(ge=0, description="other prompt tokens")
    output: Decimal = Field(ge=0, description="tokens of the answer")
    reasoning: Decimal | None = Field(None, ge=0, description="thinking tokens; None: as output")

    @field_validator("effective")
    @classmethod
    def _with_zone(cls, effective: datetime) -> datetime:
        if effective.tzinfo is None:
            raise ValueError("expected a time zone, as in 2026-01-31T16:00:00Z")
        return effective


class AdmissionConfig(BaseModel):
    """One queue for everything. A request's cost is its prompt and the tokens it may generate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_running: int = Field(16, gt=0, description="requests in the engine at once")
    max_running_per_account: int = Field(8, gt=0, description="of them, from one account")
    max_queued: int = Field(256, ge=0, description="requests waiting; more are refused at once")
    max_queued_tokens: int = Field(2_000_000, gt=0, description="cost of all that wait")
    max_per_account: int = Field(
        64, gt=0, description="requests of one account, waiting or running"
    )
    max_wait_seconds: float = Field(
        120.0, gt=0, description="to start; sooner if the client says so"
    )
    deadline_seconds: float = Field(
        600.0,
        gt=0,
        description="from a request's arrival to its last token, waiting included; then it is cut "
        "off. X-Rorqual-Deadline asks for less",
    )
    quantum_tokens: int = Field(
        4096, gt=0, description="tokens an account gets in its turn; shares agree to within this"
    )
    account_tokens_per_second: float = Field(2000.0, gt=0, description="refill of an account")
    account_burst_tokens: int = Field(200_000, gt=0, description="an account may spend at once")
    address_tokens_per_second: float = Field(4000.0, gt=0, description="refill of an address")
    address_burst_tokens: int = Field(400_000, gt=0, description="an address may spend at once")
    request_overhead_tokens: int = Field(32, ge=0, description="what a request costs besides")
    initial_tokens_per_second: float = Field(
        100.0, gt=0, description="the engine's rate, until it is measured"
    )
    max_tracked: int = Field(65_536, gt=0, description="accounts and addresses remembered")


class OverloadConfig(BaseModel):
    """Steps down under load: shorter thinking, smaller model, queue only, no registration.

    Load is the predicted wait of a newcomer over admission.max_wait_seconds, or the fill of the
    queue, whichever is larger.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rise: tuple[float, float, float, float] = Field(
        (0.25, 0.5, 0.75, 0.9), description="load at which each step is taken"
    )
    fall_ratio: float = Field(
        0.6, gt=0, lt=1, description="a step is taken back below this part of its rise"
    )
    dwell_seconds: float = Field(10.0, ge=0, description="of calm, before each step back")
    thinking_scale: float = Field(
        0.5, gt=0, le=1, description="of every thinking budget, from the first step on"
    )
    smaller_models: dict[str, str] = Field(
        default_factory=dict, description="model = smaller model, from the second step on"
    )

    @model_validator(mode="after")
    def _ascending(self) -> "OverloadConfig":
        if list(self.rise) != sorted(set(self.rise)) or self.rise[0] <= 0:
            raise ValueError(f"rise={self.rise} must be positive and ascending")
        return self


class ResponsesConfig(BaseModel):
    """How long answers of /v1/responses are kept for requests that follow them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_days: float = Field(30.0, gt=0, description="then they are deleted")
    max_per_account: int = Field(2000, gt=0, description="the oldest makes room for a new one")


class ServerConfig(BaseModel):
    """A server: its mode, and a section for each concern."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["local", "platform"] = Field(
        "local", description="local: one user, no keys, loopback only; platform: accounts and money"
    )
    http: HttpConfig = Field(HttpConfig.model_validate({}), description="where it listens")
    models: tuple[ServedModel, ...] = Field((), description="what it serves; the first by default")
    unsigned_models: Literal["refused", "served"] = Field(
        "refused", description="in platform mode: models whose signature is absent or wrong"
    )
    trusted_keys: tuple[str, ...] = Field(
        (), description="PEM files of public keys whose signatures count, beside Rorqual's own"
    )
    engine: EngineConfig = Field(EngineConfig.model_validate({}), description="of our own engine")
    watch: WatchConfig = Field(
        WatchConfig.model_validate({}), description="of engines and upstreams"
    )
    generation: GenerationConfig = Field(
        GenerationConfig.model_validate({}), description="defaults"
    )
    lab: LabConfig = Field(LabConfig.model_validate({}), description="the app's Lab page")
    database: DatabaseConfig = Field(DatabaseConfig.model_validate({}), description="storage")
    accounts: AccountsConfig = Field(AccountsConfig.model_validate({}), description="who")
    metering: MeteringConfig = Field(MeteringConfig.model_validate({}), description="how much")
    admission: AdmissionConfig = Field(AdmissionConfig.model_validate({}), description="when")
    overload: OverloadConfig = Field(OverloadConfig.model_validate({}), description="under load")
    responses: ResponsesConfig = Field(
        ResponsesConfig.model_validate({}), description="answers that are kept"
    )
    prices: tuple[PriceConfig, ...] = Field((), description="per model and date")

    @model_validator(mode="after")
    def _one_name_a_model(self) -> "ServerConfig":
        names = [name for model in self.models for name in (model.name, *model.aliases)]
        if len(set(names)) != len(names):
            raise ValueError("two [[models]] share a name or alias")
        return self

    @model_validator(mode="after")
    def _one_price_a_date(self) -> "ServerConfig":
        dates = [(price.model, price.effective) for price in self.prices]
        if len(set(dates)) != len(dates):
            raise ValueError("two [[prices]] name the same model and date")
        return self
