"""A phone beside this machine: one user, one-time links instead of a password, TLS of our own.

The certificate is made here and signed by nobody, so a phone warns once; the fingerprint that is
printed is what its details must show. Without TLS anyone in the network could read along and take
the session, so there is no such mode.
"""

import datetime
import hashlib
import ipaddress
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rorqual.errors import ConfigError
from rorqual.platform import NotFound
from rorqual.server.endpoints import Endpoint
from rorqual.server.identity import COOKIE, SECURE_COOKIE
from rorqual.server.services import Services

_VALID_SECONDS: Final = 600.0
_CERTIFICATE_DAYS: Final = 365


class Pairing:
    """Links that log their first visitor in as the one user of this machine."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._open: dict[bytes, float] = {}  # hash of a token: until when

    def path(self) -> str:
        """A fresh link, without scheme and host."""
        token = secrets.token_urlsafe(12)
        self._open[_hashed(token)] = time.monotonic() + _VALID_SECONDS
        return f"/pair/{token}"

    def endpoint(self) -> Endpoint:
        """Its route."""
        return Endpoint("GET", "/pair/{token}", self.enter, "Logs a phone in, once.",
                        answer="text/html", needs_key=False)  # fmt: skip

    async def enter(self, request: Request) -> Response:
        """A session for whoever comes first; the second is told to ask for a new link."""
        until = self._open.pop(_hashed(request.path_params["token"]), 0.0)
        if time.monotonic() > until:
            raise NotFound("this link was used, or is older than ten minutes; start anew for one")
        accounts = self._services.platform.accounts
        user = await self._services.call(accounts.local_user)
        login = await self._services.call(accounts.open_session, user.id, label="phone")
        secure = request.scope["rorqual.secure"]
        reply = RedirectResponse("/", 303, headers={"cache-control": "no-store"})
        reply.set_cookie(
            SECURE_COOKIE if secure else COOKIE, login.token, path="/", secure=secure,
            max_age=int(self._services.config.accounts.session_days * 86_400),
            httponly=True, samesite="strict",
        )  # fmt: skip
        return reply


def network_address() -> str:
    """This machine's address in its network; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: only the route is looked up
            found = str(probe.getsockname()[0])
        except OSError:
            found = "127.0.0.1"
    if ipaddress.ip_address(found).is_loopback:
        raise ConfigError("this machine is in no network that a phone could share; join one")
    return found


def certificate(folder: Path, address: str) -> tuple[Path, Path, str]:
    """(certificate, key, fingerprint) for an address; made once, kept in a private folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    cert_path, key_path = folder / f"{address}.crt", folder / f"{address}.key"
    found = _valid(cert_path) if key_path.is_file() else None
    if found is None:
        found = _make(cert_path, key_path, address)
    digest = found.fingerprint(hashes.SHA256()).hex().upper()
    return cert_path, key_path, ":".join(digest[at : at + 2] for at in range(0, 64, 2))


def _valid(path: Path) -> x509.Certificate | None:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None
    left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return found if left > datetime.timedelta(days=1) else None


def _make(cert_path: Path, key_path: Path, address: str) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Rorqual on this network")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("localhost")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key_path.unlink(missing_ok=True)
    with os.fdopen(os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return made


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
