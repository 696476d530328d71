"""A phone beside this machine: links that work once, TLS of our own, codes that can be read."""

import ssl
import stat
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from rorqual.errors import ConfigError
from rorqual.server import Pairing, certificate, create_app, qr_code, terminal_text
from tests.server.conftest import ServerFactory


def read_back(code: list[list[bool]]) -> bytes:
    """What a code says, by the standard's own steps backwards: format, mask, zigzag, blocks."""
    size = len(code)
    version = (size - 17) // 4
    places = [(row, 8) for row in (0, 1, 2, 3, 4, 5, 7, 8)]
    places += [(8, column) for column in (7, 5, 4, 3, 2, 1, 0)]
    found = sum(code[r][c] << at for at, (r, c) in enumerate(places)) ^ 0x5412
    mask, level = found >> 10 & 7, found >> 13
    assert level == 1
    turns = [
        lambda r, c: (r + c) % 2 == 0, lambda r, c: r % 2 == 0, lambda r, c: c % 3 == 0,
        lambda r, c: (r + c) % 3 == 0, lambda r, c: (r // 2 + c // 3) % 2 == 0,
        lambda r, c: (r * c) % 2 + (r * c) % 3 == 0,
        lambda r, c: ((r * c) % 2 + (r * c) % 3) % 2 == 0,
        lambda r, c: ((r + c) % 2 + (r * c) % 3) % 2 == 0,
    ][mask]  # fmt: skip

    def is_pattern(r: int, c: int) -> bool:
        corner = (r < 9 and c < 9) or (r < 9 and c >= size - 8) or (r >= size - 8 and c < 9)
        middle = 4 * version + 10
        aligned = version > 1 and abs(r - middle) <= 2 and abs(c - middle) <= 2
        return corner or aligned or r == 6 or c == 6

    bits, column, row, step = list[bool](), size - 1, size - 1, -1
    while column > 0:
        column -= column == 6
        for c in (column, column - 1):
            if not is_pattern(row, c):
                bits.append(code[row][c] ^ turns(row, c))
        row += step
        if not 0 <= row < size:
            row, step, column = row - step, -step, column - 2
    data = bytes(
        sum(bit << 7 - at for at, bit in enumerate(bits[start : start + 8]))
        for start in range(0, len(bits) - 7, 8)
    )
    num_blocks = 2 if version == 6 else 1
    size_of = {1: 19, 2: 34, 3: 55, 4: 80, 5: 108, 6: 68}[version]
    message = b"".join(data[at : num_blocks * size_of : num_blocks] for at in range(num_blocks))
    assert message[0] >> 4 == 4
    value = int.from_bytes(message)
    length = value >> 8 * len(message) - 12 & 255
    return (value >> 8 * len(message) - 12 - 8 * length & (1 << 8 * length) - 1).to_bytes(length)


@pytest.mark.parametrize("length", [1, 17, 32, 53, 78, 106, 134])
def test_a_code_says_what_was_put_into_it(length: int) -> None:
    text = ("https://192.168.1.23:8000/pair/Az09-_" * 5)[:length]
    code = qr_code(text)
    assert read_back(code) == text.encode()
    assert len(terminal_text(code).splitlines()) == (len(code) + 7) // 2


def test_a_longer_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 134"):
        qr_code("x" * 135)


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
