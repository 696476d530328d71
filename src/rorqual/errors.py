"""The exception tree. User input raises these; `assert` is for our own bugs.

    RorqualError
    +-- ConfigError       a run, preset or option that does not hold together
    +-- CheckpointError   a file or tensor that is missing, extra, truncated or wrongly shaped
    +-- DataError         a corpus, shard or manifest that is missing, empty or corrupt
    +-- RequestError      a request that cannot be served as asked (code, param)
    +-- CapacityError     out of memory, disk, or room in a queue

A message names the thing, what was got, what was expected, and the fix.
"""


class RorqualError(Exception):
    """Base of every error that a user can cause; the CLI prints it on one line and exits 1."""

    exit_code = 1


class ConfigError(RorqualError):
    """A configuration that does not hold together; exits 2, as usage errors do."""

    exit_code = 2


class CheckpointError(RorqualError):
    """A checkpoint file or tensor that cannot be used as it is."""


class DataError(RorqualError):
    """A corpus, shard or manifest that is missing, empty or corrupt."""


class RequestError(RorqualError):
    """A request that cannot be served as asked.

    `code` is a stable machine-readable word, `param` the offending field (None if there is none).
    """

    def __init__(self, message: str, code: str = "invalid_request", param: str | None = None):
        super().__init__(message)
        self.code = code
        self.param = param


class CapacityError(RorqualError):
    """Out of memory, disk, or room in a queue."""


class EngineError(RorqualError):
    """The engine's own failure: a step crashed, or the engine was closed under a request."""
