"""The models that a server offers, by name and alias."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rorqual.checkpoint import resolve_directory
from rorqual.checkpoint.weights import open_weights
from rorqual.config.engine import EngineConfig
from rorqual.config.http import ServedModel, WatchConfig
from rorqual.config.server import ServerConfig
from rorqual.engine.reasoning import ReasoningMarkers
from rorqual.errors import CheckpointError, ConfigError, RequestError
from rorqual.release import Trust, TrustedKeys, examine, known_keys, read_public_key
from rorqual.server.backends import (
    Backend,
    EngineBackend,
    ModelInfo,
    ProcessLink,
    UpstreamBackend,
)
from rorqual.server.backends.base import BackendState, Thinking
from rorqual.server.backends.process_link import engine_settings
from rorqual.tokenizer import Tokenizer

_LOOK_SECONDS: Final = 0.05


class Models:
    """Backends by the names that requests use; the first is the default."""

    def __init__(self, backends: dict[str, Backend], aliases: dict[str, str] | None = None) -> None:
        if not backends:
            raise ConfigError("a server needs a model; name one, as in `rorqual serve MODEL`")
        self._backends = backends
        self._aliases = aliases or {}

    @property
    def default(self) -> str:
        """The model of requests that name none."""
        return next(iter(self._backends))

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._backends.values())

    def name_of(self, asked: str) -> str:
        """The model's own name; RequestError if there is no such model."""
        name = self._aliases.get(asked, asked)
        if name not in self._backends:
            raise RequestError(
                f"model={asked!r} is not served here; one of {', '.join(self._backends)}",
                code="model_not_found",
                param="model",
            )
        return name

    def get(self, name: str) -> Backend:
        """The backend of a model's own name."""
        return self._backends[name]

    def is_served(self, asked: str) -> bool:
        """Whether requests may use this name."""
        return asked in self._backends or asked in self._aliases

    def add(self, backend: Backend) -> None:
        """One model more, under a name that is not served yet."""
        name = backend.info.name
        assert not self.is_served(name), f"{name} is served already"
        # A new table: somebody may be on the way through the old one.
        self._backends = {**self._backends, name: backend}


def open_models(config: ServerConfig) -> Models:
    """The configured models; files are looked at, nothing is loaded or connected yet."""
    backends: dict[str, Backend] = {}
    aliases: dict[str, str] = {}
    trusted = trusted_keys(config)
    for model in config.models:
        backends[model.name] = open_model(model, config, trusted)
        aliases |= dict.fromkeys(model.aliases, model.name)
    return Models(backends, aliases)


def trusted_keys(config: ServerConfig) -> TrustedKeys:
    """The keys whose signatures count on this server."""
    return known_keys([read_public_key(Path(file)) for file in config.trusted_keys])


def open_model(model: ServedModel, config: ServerConfig, trusted: TrustedKeys) -> Backend:
    """One model as `open_models` opens each: its backend, not started yet."""
    if model.path is None:
        return UpstreamBackend(model, config.watch)
    trust = _examined(model, Path(model.path), trusted, config)
    return _engine_backend(model, config.engine, config.watch, trust)


def refuses_unsigned(config: ServerConfig) -> bool:
    """Whether a model without a valid signature may not be served."""
    return config.mode == "platform" and config.unsigned_models == "refused"


def _examined(model: ServedModel, path: Path, trusted: TrustedKeys, config: ServerConfig) -> Trust:
    """The model's files against its signature; CheckpointError where that is asked for and fails.

    NOTE: a file that is exchanged between this look and the engine's is not noticed.
    """
    trust = examine(resolve_directory(path), trusted)
    if refuses_unsigned(config) and not trust.holds:
        raise CheckpointError(
            f"model {model.name}: {trust.label}; expected a signature by a key of this package, "
            "of trusted_keys or of this machine. Sign it (`rorqual release sign`), or serve it all "
            "the same with --allow-unsigned"
        )
    return trust


def _engine_backend(
    model: ServedModel, engine: EngineConfig, watch: WatchConfig, trust: Trust
) -> Backend:
    assert model.path is not None
    weights = open_weights(Path(model.path))
    tokenizer = weights.tokenizer()
    context = weights.config.max_position_embeddings
    info = ModelInfo(
        name=model.name,
        title=model.title or model.name,
        context_tokens=min(engine.max_model_len or context, context),
        thinking=thinking_of(tokenizer),
        created=int(time.time()),
        size_bytes=weights.stored_bytes,
        trust=trust,
    )
    settings = engine_settings(str(weights.path), engine.model_dump(mode="json"))
    return EngineBackend(info, tokenizer, ProcessLink(settings, watch), weights.generation())


def thinking_of(tokenizer: Tokenizer) -> Thinking:
    """Whether a model thinks never, always or by choice: as its template tells."""
    if ReasoningMarkers.of(tokenizer) is None:
        return "never"
    try:
        inputs = tokenizer.chat_template.inputs
    except RequestError:  # it came without a template: it completes text, it does not chat
        return "never"
    return "choice" if inputs & {"thinking", "enable_thinking"} else "always"


async def state_once_loaded(backend: Backend, timeout_seconds: float) -> BackendState:
    """The state of a backend that is not loading any more, or still is after so long."""
    deadline = time.monotonic() + timeout_seconds
    while (state := backend.stats().state) == "loading" and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_SECONDS)
    return state
