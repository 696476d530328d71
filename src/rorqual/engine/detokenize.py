"""Text out of a sequence's ids as they arrive, in pieces that add up to decoding all at once."""

from collections.abc import Iterable

from rorqual.tokenizer import Tokenizer


class Detokenizer:
    """Incremental text of one sequence; no piece holds half a UTF-8 character.

    `skip_special` drops what the tokenizer flags as special (begin, end, pad), as servers do;
    role, tool and reasoning markers stay text, for the parsers that look for them.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True):
        self._decoder = tokenizer.stream_decoder(skip_special=skip_special)

    def feed(self, token_ids: Iterable[int]) -> str:
        """The characters that these ids complete."""
        return "".join(map(self._decoder.push, token_ids))

    def finish(self) -> str:
        """U+FFFD if the ids ended inside a character, else nothing; then a new text may begin."""
        return self._decoder.flush()
