"""What generates, behind one interface: our engine beside us, or a server with OpenAI's API."""

from rorqual.server.backends.base import (
    Backend,
    BackendState,
    BackendStats,
    ChatInput,
    Chunk,
    GenerationRequest,
    ModelInfo,
    OnChunks,
    Prepared,
    TextInput,
    TokenLogprob,
)
from rorqual.server.backends.engine_backend import EngineBackend
from rorqual.server.backends.engine_link import EngineLink, ThreadLink
from rorqual.server.backends.process_link import ProcessLink
from rorqual.server.backends.upstream import UpstreamBackend

__all__ = [
    "Backend",
    "BackendState",
    "BackendStats",
    "ChatInput",
    "Chunk",
    "EngineBackend",
    "EngineLink",
    "GenerationRequest",
    "ModelInfo",
    "OnChunks",
    "Prepared",
    "ProcessLink",
    "TextInput",
    "ThreadLink",
    "TokenLogprob",
    "UpstreamBackend",
]
