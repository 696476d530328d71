"""Random identifiers and secrets as text, and the API key's own format.

A key is `sk-rorqual-`, 43 characters of base 62 (256 random bits) and 6 characters of checksum
(CRC-32 of what stands before). The prefix lets secret scanners find a leaked key by one pattern;
the checksum lets them, and us, refuse a mistyped one without asking a database.
"""

import hashlib
import secrets
import string
import zlib
from typing import Final

KEY_PREFIX: Final = "sk-rorqual-"
KEY_PATTERN: Final = r"sk-rorqual-[0-9A-Za-z]{49}"  # for secret scanners
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_BYTES: Final = 32
_SECRET_CHARACTERS: Final = 43  # 62**43 > 2**256
_CHECKSUM_CHARACTERS: Final = 6  # 62**6 > 2**32


def new_id(kind: str) -> str:
    """'conv' -> 'conv_7Kq...': 128 random bits, so that an id can be guessed by nobody."""
    return f"{kind}_{_base62(int.from_bytes(secrets.token_bytes(16), 'big'), 22)}"


def new_secret() -> str:
    """256 random bits."""
    value = int.from_bytes(secrets.token_bytes(_SECRET_BYTES), "big")
    return _base62(value, _SECRET_CHARACTERS)


def hash_secret(secret: str) -> str:
    """What is stored of a 256-bit secret; it has too much entropy to need a slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> str:
    """A fresh API key, prefix and checksum included."""
    body = KEY_PREFIX + new_secret()
    return body + _checksum(body)


def looks_like_key(text: str) -> bool:
    """Whether prefix, length, alphabet and checksum are those of an API key."""
    length = len(KEY_PREFIX) + _SECRET_CHARACTERS + _CHECKSUM_CHARACTERS
    if len(text) != length or not text.startswith(KEY_PREFIX):
        return False
    body, checksum = text[:-_CHECKSUM_CHARACTERS], text[-_CHECKSUM_CHARACTERS:]
    return body.isascii() and checksum == _checksum(body)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_CHARACTERS)


def _base62(value: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        value, digit = divmod(value, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
