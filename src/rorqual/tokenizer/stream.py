"""Text out of ids as they arrive, never half a character.

A token may end in the middle of a UTF-8 character (bytes of one emoji in three tokens), so text
is held back until its bytes are complete. Bytes that can no longer become a character turn into
U+FFFD, exactly where decoding the whole sequence at once would put it.
"""

import codecs
from collections.abc import Sequence, Set


class StreamDecoder:
    """Incremental decoder of one sequence: push ids, print what comes back, flush at the end."""

    def __init__(self, token_bytes: Sequence[bytes], skipped_ids: Set[int]):
        self._token_bytes = token_bytes
        self._skipped_ids = skipped_ids
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The characters that this id completes (often one word, sometimes none)."""
        if token_id in self._skipped_ids or not 0 <= token_id < len(self._token_bytes):
            return ""
        return self._decoder.decode(self._token_bytes[token_id])

    def flush(self) -> str:
        """What is left when the sequence ends: U+FFFD for an unfinished character, else nothing."""
        return self._decoder.decode(b"", final=True)
