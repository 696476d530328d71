"""Where bytes become text and text becomes bytes: the only two places that can meet bad input.

The tokenizer is lossless on every valid UTF-8 string. Bytes that are not UTF-8 are refused where
data enters; a lone surrogate (a `str` that has no UTF-8 form, as JSON escapes can make) is
refused where text enters.
"""

from rorqual.errors import DataError, RequestError


def decode_utf8(data: bytes, source: str) -> str:
    """Bytes of `source` (a file name, for the message) as text; DataError names the bad byte."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source}: byte 0x{data[error.start]:02x} at offset {error.start} is not UTF-8 "
            f"({error.reason}); expected UTF-8 text, convert the file or leave it out"
        ) from error


def surrogate_position(text: str) -> int | None:
    """Index of the first lone surrogate in `text`, None if it has a UTF-8 form."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def require_utf8(text: str) -> None:
    """RequestError if `text` holds a lone surrogate and so cannot be encoded."""
    position = surrogate_position(text)
    if position is not None:
        raise RequestError(
            f"text holds the lone surrogate U+{ord(text[position]):04X} at character {position}; "
            "expected Unicode text that UTF-8 can hold, drop or replace that character",
            code="invalid_text",
        )
