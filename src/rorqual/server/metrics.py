"""Prometheus figures, in a registry of their own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


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
        self.first_token_seconds = Histogram(
            "rorqual_first_token_seconds",
            "From admission to the first token.",
            ("model",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queue_seconds = Histogram(
            "rorqual_queue_seconds",
            "Waiting for admission.",
            ("model",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.tokens = Counter(
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

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
