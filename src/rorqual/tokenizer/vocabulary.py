"""What each token id stands for: the byte table behind decoding, streaming and bits per byte.

Byte-level BPE writes a token as characters that each stand for one byte (GPT-2's table: bytes
that print stand for themselves, the other 68 are shifted to U+0100 and up). An added token stands
for its own text.
"""

from collections.abc import Iterable, Mapping


def byte_of_character() -> dict[str, int]:
    """GPT-2's map from the characters that tokens are written in to the bytes they stand for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    shifted = (byte for byte in range(256) if byte not in set(printable))
    table.update({chr(0x100 + index): byte for index, byte in enumerate(shifted)})
    return table


def token_bytes(vocab: Mapping[str, int], special_tokens: Mapping[str, int]) -> list[bytes]:
    """Bytes of every id [V]; an id that no token has (a hole in the vocabulary) stands for b''.

    Raises KeyError if an ordinary token is not written in byte-level characters.
    """
    byte_of = byte_of_character()
    size = 1 + max(_all_ids(vocab, special_tokens))
    table = [b""] * size
    for token, token_id in vocab.items():
        if token not in special_tokens:
            table[token_id] = bytes(byte_of[character] for character in token)
    for token, token_id in special_tokens.items():
        table[token_id] = token.encode("utf-8")
    return table


def _all_ids(vocab: Mapping[str, int], special_tokens: Mapping[str, int]) -> Iterable[int]:
    yield from vocab.values()
    yield from special_tokens.values()
