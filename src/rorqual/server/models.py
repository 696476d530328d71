"""The models that a server offers, by name and alias."""

import time
from collections.abc import Iterator
from pathlib import Path

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
from rorqual.server.backends.base import Thinking
from rorqual.server.backends.process_link import engine_settings
from rorqual.tokenizer import Tokenizer


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


def open_models(config: ServerConfig) -> Models:
    """The configured models; files are looked at, nothing is loaded or connected yet."""
    backends: dict[str, Backend] = {}
    aliases: dict[str, str] = {}
    trusted = known_keys([read_public_key(Path(file)) for file in config.trusted_keys])
    for model in config.models:
        if model.path is None:
            backends[model.name] = UpstreamBackend(model, config.watch)
        else:
            trust = _examined(model, Path(model.path), trusted, config)
            backends[model.name] = _engine_backend(model, config.engine, config.watch, trust)
        aliases |= dict.fromkeys(model.aliases, model.name)
    return Models(backends, aliases)


def _examined(model: ServedModel, path: Path, trusted: TrustedKeys, config: ServerConfig) -> Trust:
    """The model's files against its signature; CheckpointError where that is asked for and fails.

    NOTE: a file that is exchanged between this look and the engine's is not noticed.
    """
    trust = examine(resolve_directory(path), trusted)
    if config.mode == "platform" and config.unsigned_models == "refused" and not trust.holds:
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
