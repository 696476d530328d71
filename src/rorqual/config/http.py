"""What a server listens on, which models it serves, and how far a client may go."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class HttpConfig(BaseModel):
    """Addresses, encryption, and the limits of one connection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on; loopback in local mode")
    port: int = Field(8000, ge=0, le=65535, description="0: any free one")
    admin_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="metrics and operator's switches on loopback; None: off",
    )
    tls_certificate: str | None = Field(None, description="PEM file; with tls_key, HTTPS")
    tls_key: str | None = Field(None, description="PEM file")
    trusted_proxies: tuple[str, ...] = Field(
        (), description="addresses of proxies that end TLS and whose X-Forwarded-For is believed"
    )
    allowed_hosts: tuple[str, ...] = Field(
        (), description="names under which clients reach this server; loopback names always do"
    )
    web_folder: str | None = Field(None, description="the web app's files; None: the package's own")
    max_body_bytes: int = Field(1 << 20, gt=0, description="of a request's body")
    max_header_bytes: int = Field(32 << 10, gt=0, description="of a request's headers")
    header_seconds: float = Field(10.0, gt=0, description="a request's headers take no longer")
    body_seconds: float = Field(60.0, gt=0, description="a request's body takes no longer")
    write_seconds: float = Field(30.0, gt=0, description="a reader that takes nothing is cut off")
    idle_seconds: float = Field(75.0, gt=0, description="a connection without a request is closed")
    max_connections: int = Field(2048, gt=0, description="open at once")
    max_connections_per_address: int = Field(256, gt=0, description="of them from one address")
    keep_alive_seconds: float = Field(
        5.0, gt=0, description="a stream with nothing to say sends a comment this often"
    )
    drain_seconds: float = Field(
        30.0, ge=0, description="after SIGTERM, for requests under way to end"
    )

    @model_validator(mode="after")
    def _certificate_with_key(self) -> "HttpConfig":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key come together; set both or neither")
        return self


class ServedModel(BaseModel):
    """One model under the name that requests use: a path for our engine, or an upstream."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200, description="what requests call it")
    title: str | None = Field(None, description="what people see; None: the name")
    path: str | None = Field(None, description="model directory or .gguf file for our engine")
    upstream: str | None = Field(None, description="base URL of a server with OpenAI's API")
    upstream_model: str | None = Field(None, description="its name there; None: the same")
    upstream_key_file: str | None = Field(None, description="file with the key for the upstream")
    context_tokens: int = Field(32_768, gt=0, description="of an upstream; ours know their own")
    thinking: Literal["never", "choice", "always"] = Field(
        "choice", description="whether an upstream's model thinks; ours know"
    )
    aliases: tuple[str, ...] = Field((), description="other names that requests may use")

    @model_validator(mode="after")
    def _one_source(self) -> "ServedModel":
        if (self.path is None) == (self.upstream is None):
            raise ValueError(f"model {self.name}: give either path or upstream")
        return self


class GenerationConfig(BaseModel):
    """Defaults and bounds of one request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(
        4096, gt=0, description="where a request does not say, context permitting"
    )
    thinking_low: int = Field(512, gt=0, description="thinking tokens at effort low")
    thinking_medium: int = Field(2048, gt=0, description="thinking tokens at effort medium")
    thinking_high: int = Field(8192, gt=0, description="thinking tokens at effort high or max")
    max_samples: int = Field(16, gt=0, le=128, description="answers to one prompt (n)")
    max_prompts: int = Field(64, gt=0, description="prompts in one completion request")
    max_messages: int = Field(2048, gt=0, description="messages in one conversation")


class WatchConfig(BaseModel):
    """How engines and upstreams are watched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start_seconds: float = Field(600.0, gt=0, description="to load a model")
    silence_seconds: float = Field(
        60.0, gt=0, description="an engine that says nothing for so long is restarted"
    )
    restart_seconds: float = Field(1.0, gt=0, description="before the first restart; then doubled")
    health_seconds: float = Field(5.0, gt=0, description="between looks at an upstream")
    attempts: int = Field(3, ge=1, description="tries of an upstream before its first token")


class LabConfig(BaseModel):
    """The web app's Lab."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs_folder: str = Field("runs", description="where run folders are")
    presets: tuple[str, ...] = Field(
        ("tiny", "laptop"), description="recipes that may be started from the app"
    )
