"""A phone beside this machine: links that work once, TLS of our own."""

import ssl
import stat
from pathlib import Path

from starlette.testclient import TestClient

from rorqual.server import Pairing, certificate, create_app
from tests.server.conftest import ServerFactory


def test_a_link_logs_one_visitor_in_and_no_second(start_server: ServerFactory) -> None:
    server = start_server(mode="platform", metering={"unpriced": "free"})
    pairing = Pairing(server.services)
    app = create_app(server.services, pairing)
    home = "https://192.168.1.23:8000"
    phone = TestClient(app, home, follow_redirects=False)
    thief = TestClient(app, home, follow_redirects=False)
    assert phone.get("/api/me").json()["user"] is None
    path = pairing.path()
    entered = phone.get(path)
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    assert "__Host-rorqual=" in entered.headers["set-cookie"]
    assert phone.get("/api/me").json()["user"]["name"] == "local"
    assert thief.get(path).status_code == 404
    assert thief.get("/pair/nonsense").status_code == 404
    assert thief.get("/api/me").json()["user"] is None


def test_the_certificate_is_kept_and_its_key_private(tmp_path: Path) -> None:
    cert, key, fingerprint = certificate(tmp_path / "phone", "192.168.1.23")
    assert certificate(tmp_path / "phone", "192.168.1.23") == (cert, key, fingerprint)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(fingerprint) == 95
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    _, _, other = certificate(tmp_path / "phone", "192.168.1.24")
    assert other != fingerprint
