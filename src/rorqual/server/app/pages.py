"""The web app's files, and the shell in which code written by a model runs.

Two policies that never mix: the app's own pages run nothing but our files; /preview runs anything,
but in a sandbox without origin, cookies, storage or network.
"""

import hashlib
import mimetypes
import re
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

import rorqual.server as package
from rorqual.errors import RequestError
from rorqual.platform import NotFound
from rorqual.server.endpoints import Endpoint
from rorqual.server.services import Services

APP_POLICY: Final = (
    "default-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; frame-src 'self'; img-src 'self' data: blob:; form-action 'self'; "
    "require-trusted-types-for 'script'; trusted-types rorqual dompurify"
)
# NOTE: in a sandbox without origin 'self' means nothing, so the server's address is spelt out.
PREVIEW_POLICY: Final = (
    "sandbox allow-scripts; default-src 'none'; "
    "script-src 'unsafe-inline' 'wasm-unsafe-eval' blob: {origin}/pyodide/; "
    "style-src 'unsafe-inline'; img-src data: blob:; connect-src {origin}/pyodide/; "
    "worker-src blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]+")
_HEADERS: Final = {
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_TYPES: Final = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
_YEAR: Final = "public, max-age=31536000, immutable"


class Pages:
    """Files from a folder, read once; a path is looked up in a table, so none can lead outside."""

    def __init__(self, services: Services) -> None:
        self._services = services
        folder = services.config.http.web_folder
        self._files = _files(Path(folder) if folder is not None else _built())

    def endpoints(self) -> list[Endpoint]:
        """The preview's shell and, last of all routes, every other path."""
        return [
            Endpoint("GET", "/preview", self.preview, "Runs code in a sandbox.",
                     answer="text/html", needs_key=False),
            Endpoint("GET", "/pyodide/{path:path}", self.runtime, "The Python runtime.",
                     answer="application/octet-stream", needs_key=False),
            Endpoint("GET", "/{path:path}", self.page, "The web app.", answer="text/html",
                     needs_key=False),
        ]  # fmt: skip

    async def preview(self, request: Request) -> Response:
        """The shell; it is of no use but in the app's frame."""
        scheme = "https" if request.scope["rorqual.secure"] else "http"
        host = request.headers.get("host", "")
        if not _HOST.fullmatch(host):  # it becomes part of a policy
            raise RequestError(
                f"Host {host[:100]!r} is no name with a port", code="misdirected_request"
            )
        origin = f"{scheme}://{host}"
        reply = self._file(request, "preview.html")
        reply.headers["content-security-policy"] = PREVIEW_POLICY.format(origin=origin)
        return reply

    async def runtime(self, request: Request) -> Response:
        """Pyodide, for a frame without origin."""
        reply = self._file(request, f"pyodide/{request.path_params['path']}")
        reply.headers["access-control-allow-origin"] = "*"
        reply.headers["cross-origin-resource-policy"] = "cross-origin"
        return reply

    async def page(self, request: Request) -> Response:
        """A file of the app; a path without a file type is a view of the app itself."""
        path = request.path_params["path"]
        if path.startswith(("api/", "v1/", "anthropic/", "beta/")):
            raise NotFound("there is no such path; see /openapi.json")
        is_view = "." not in path.rpartition("/")[2]
        reply = self._file(request, "index.html" if is_view else path)
        reply.headers["content-security-policy"] = APP_POLICY
        reply.headers.update(_HEADERS)
        return reply

    def _file(self, request: Request, name: str) -> Response:
        file = self._files.get(name)
        if file is None or (name == "preview.html" and request.url.path != "/preview"):
            raise NotFound(f"{name[:100]} is not part of this installation")
        data = file.read_bytes()
        mark = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
        kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0]
        headers = {"etag": mark, "cache-control": "no-cache"}
        if name.startswith("assets/"):  # their names hold a hash of their contents
            headers["cache-control"] = _YEAR
        if request.headers.get("if-none-match") == mark:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=kind or "application/octet-stream")


def _built() -> Path | None:
    """The app in the package, or in the source tree it runs from; None without either."""
    # The source tree first: there it can be newer than what was installed with it.
    in_source = Path(__file__).parents[4] / "web" / "dist"
    # NOTE: a development install has two places of one package.
    folders = [in_source, *(Path(place) / "web" for place in package.__path__)]
    return next((folder for folder in folders if (folder / "index.html").is_file()), None)


def _files(folder: Path | None) -> dict[str, Path]:
    if folder is None:
        return {}
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
