"""/.well-known/release.json: what this server serves, and whose signatures it checked.

A server says this of itself. What it proves and what not stands in docs/genuine.md.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from rorqual import __version__
from rorqual.release import pinned_keys
from rorqual.server.endpoints import Endpoint
from rorqual.server.replies import json_reply
from rorqual.server.services import Services

PATH: Final = "/.well-known/release.json"


class ReleaseApi:
    """The version, the models' signatures, the package's keys."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._keys = [
            {"name": key.name, "fingerprint": key.fingerprint, "pem": key.pem}
            for key in pinned_keys()
        ]

    def endpoints(self) -> list[Endpoint]:
        """One route."""
        summary = "The release that is served here."
        return [Endpoint("GET", PATH, self.release, summary, needs_key=False)]

    async def release(self, request: Request) -> Response:
        """For everyone."""
        models = [
            {"id": backend.info.name, "signature": backend.info.trust.to_json()}
            for backend in self._services.models
        ]
        return json_reply(
            {
                "project": "rorqual",
                "version": __version__,
                "models": models,
                "keys": self._keys,
            }
        )
