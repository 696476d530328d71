"""Whether the process lives, whether it can serve, and its figures."""

from starlette.requests import Request
from starlette.responses import Response

from rorqual.server.endpoints import Endpoint
from rorqual.server.replies import json_reply
from rorqual.server.services import Services


class Health:
    """Whether the process lives, and whether it can serve."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        """/health and /ready."""
        metrics = Endpoint(
            "GET", "/metrics", self.metrics, "Prometheus.", answer="text/plain", needs_key=False
        )
        return [
            # In platform mode only on the operator's port.
            *([metrics] if self._services.is_local else []),
            Endpoint("GET", "/health", self.health, "The process lives.", needs_key=False),
            Endpoint("GET", "/ready", self.ready, "It takes requests.", needs_key=False),
        ]

    async def health(self, request: Request) -> Response:
        """The process answers."""
        return json_reply({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """The figures, for who runs this machine."""
        return metrics_reply(self._services)

    async def ready(self, request: Request) -> Response:
        """200 when at least one model can be asked and the database works; else 503."""
        services = self._services
        states = {backend.info.name: backend.stats().state for backend in services.models}
        works = services.platform.last_failure is None
        ready = not services.draining and works and "ready" in states.values()
        body = {
            "status": "ready" if ready else "draining" if services.draining else "not ready",
            "models": states,
            "database": "ok" if works else "failing",
        }
        return json_reply(body, 200 if ready else 503)


def metrics_reply(services: Services) -> Response:
    """The exposition format, with the engines' and the queue's figures of this moment."""
    metrics = services.metrics
    for backend in services.models:
        stats = backend.stats()
        figures = {
            "ready": float(stats.state == "ready"),
            "running": stats.num_running,
            "waiting": stats.num_waiting,
            "prompt_tokens": stats.prompt_tokens,
            "cached_tokens": stats.cached_tokens,
            "completion_tokens": stats.completion_tokens,
            "restarts": stats.num_restarts,
            "drafted_tokens": stats.drafted_tokens,
            "accepted_tokens": stats.accepted_tokens,
        }
        if stats.speculation_gain is not None:
            figures["speculation_gain"] = stats.speculation_gain
        for name, value in figures.items():
            metrics.engine.labels(backend.info.name, name).set(value)
    admission = services.platform.admission.stats()
    for name, value in {
        "running": admission.num_running,
        "queued": admission.num_queued,
        "queued_tokens": admission.queued_tokens,
        "tokens_per_second": admission.tokens_per_second,
        "wait_seconds": admission.wait_seconds,
        "load": admission.load,
        "level": int(admission.level),
    }.items():
        metrics.admission.labels(name).set(value)
    return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
