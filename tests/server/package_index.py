"""A package index on loopback with one real wheel, for pip; it can be held in the middle."""

import hashlib
import threading
import zipfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_TAG = "py3-none-any"


def make_wheel(folder: Path, package: str, version: str, files: Mapping[str, bytes]) -> Path:
    """A wheel that pip takes, with these files; stored, so that it is as large as they are."""
    name = f"{package.replace('-', '_')}-{version}"
    info = f"{name}.dist-info"
    wheel = folder / f"{name}-{_TAG}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/LICENSE", "Apache License")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {_TAG}\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


class PackageIndex(ThreadingHTTPServer):
    """Serves one wheel. While `gate` is not set, only its first half leaves."""

    daemon_threads = True

    def __init__(self, wheel: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wheel = wheel
        self.data = wheel.read_bytes()
        self.sha256 = hashlib.sha256(self.data).hexdigest()
        self.gate = threading.Event()
        self.gate.set()
        self.downloads = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/simple"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle is no error."""

    def close(self) -> None:
        self.gate.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: PackageIndex  # pyright: ignore[reportIncompatibleVariableOverride] - who made us

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        index = self.server
        if not self.path.endswith(".whl"):
            link = f'<a href="/{index.wheel.name}#sha256={index.sha256}">{index.wheel.name}</a>'
            self._begin("text/html", len(link))
            self.wfile.write(link.encode())
            return
        index.downloads += 1
        self._begin("application/octet-stream", len(index.data))
        half = len(index.data) // 2
        self.wfile.write(index.data[:half])
        self.wfile.flush()
        index.gate.wait(60)
        self.wfile.write(index.data[half:])

    def _begin(self, kind: str, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()
