"""Prometheus figures, in a registry of their own."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rorqual.platform import TokenCounts

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


_TOKEN_KINDS = ("cache_hit", "input", "output", "reasoning")


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """What is counted for each request of one model."""

    queue_seconds: Histogram
    first_token_seconds: Histogram
    tokens: dict[str, Counter]

    def bill(self, counts: TokenCounts) -> None:
        """Tokens that were charged."""
        tokens = self.tokens
        tokens["cache_hit"].inc(counts.cache_hit_tokens)
        tokens["input"].inc(counts.input_tokens)
        tokens["output"].inc(counts.output_tokens)
        tokens["reasoning"].inc(counts.reasoning_tokens)


class Metrics:
    """What the server counts about itself; engine figures are set when they are asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rorqual_requests", "Requests.", ("route", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "rorqual_request_seconds",
            "From the first byte to the last.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._first_token_seconds = Histogram(
            "rorqual_first_token_seconds",
            "From admission to the first token.",
            ("model",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._queue_seconds = Histogram(
            "rorqual_queue_seconds",
            "Waiting for admission.",
            ("model",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "rorqual_tokens", "Tokens billed.", ("model", "kind"), registry=self.registry
        )
        self.refused = Counter(
            "rorqual_refused", "Requests turned away.", ("code",), registry=self.registry
        )
        self.engine = Gauge(
            "rorqual_engine", "An engine's figures.", ("model", "figure"), registry=self.registry
        )
        self.admission = Gauge(
            "rorqual_admission", "The queue's figures.", ("figure",), registry=self.registry
        )
        self.loop_lag_seconds = Gauge(
            "rorqual_loop_lag_seconds", "How late the event loop is.", registry=self.registry
        )

        self._models: dict[str, ModelMetrics] = {}

    def of_model(self, model: str) -> "ModelMetrics":
        """A model's own figures; looked up once, which costs more than counting."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = ModelMetrics(
                self._queue_seconds.labels(model),
                self._first_token_seconds.labels(model),
                {kind: self._tokens.labels(model, kind) for kind in _TOKEN_KINDS},
            )
        return found

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
