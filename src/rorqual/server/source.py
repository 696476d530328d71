"""Where a request comes from: its headers as text, the address behind its proxies."""

from collections.abc import Collection, Iterable, Mapping


def text_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as text; what comes more than once is joined by commas (RFC 9110, section 5.3)."""
    headers: dict[str, str] = {}
    for name_bytes, value_bytes in raw:
        name, value = name_bytes.decode("latin-1"), value_bytes.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def source_of(
    client: str | None, headers: Mapping[str, str], proxies: Collection[str]
) -> tuple[str, bool | None]:
    """The client's address, and whether it came with TLS; behind a trusted proxy what that says.

    client None: a Unix socket. None in place of whether: the connection itself tells.
    """
    address = client or "unix"
    if not proxies or (client is not None and client not in proxies):
        return address, None
    parts = [part.strip() for part in headers.get("x-forwarded-for", "").split(",")]
    known = [part for part in parts if part and part not in proxies]
    return known[-1] if known else address, headers.get("x-forwarded-proto", "") == "https"
