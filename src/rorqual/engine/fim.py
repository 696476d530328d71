"""Fill in the middle: a prompt from the text on both sides of a gap.

Prefix-suffix-middle order, as DeepSeek-V3 is trained (report, section 2.1) and as our corpus
stores it: `<begin> prefix <hole> suffix <end>`, whereupon the model writes the middle. Qwen's coder
models call the same three tokens by other names.
"""

from typing import Final, NamedTuple

from rorqual.errors import CheckpointError, RequestError
from rorqual.tokenizer import Tokenizer
from rorqual.tokenizer.special import FIM_BEGIN, FIM_END, FIM_HOLE

MAX_SUFFIX_CHARACTERS: Final = 262_144


class FimTokens(NamedTuple):
    """Ids of the tokens before the prefix, before the suffix and before the middle."""

    begin: int
    hole: int
    end: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "FimTokens | None":
        """The FIM tokens of a tokenizer, None if it has none."""
        special = tokenizer.special_tokens
        for strings in _FAMILIES:
            if all(string in special for string in strings):
                return cls(*(special[string] for string in strings))
        return None


_FAMILIES: Final = (
    (FIM_BEGIN, FIM_HOLE, FIM_END),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
)


def fim_prompt(
    tokenizer: Tokenizer, prefix: str, suffix: str, *, max_prompt_tokens: int
) -> list[int]:
    """Ids that ask for what stands between `prefix` and `suffix`, either of which may be empty.

    Special strings in them stay plain text. RequestError if the tokenizer has no FIM tokens or the
    prompt would be longer than `max_prompt_tokens`.
    """
    tokens = FimTokens.of(tokenizer)
    if tokens is None:
        raise RequestError(
            "suffix was given, but this model's tokenizer has no fill-in-the-middle tokens; leave "
            "suffix out or use a model trained to fill in",
            code="unsupported_parameter",
            param="suffix",
        )
    if len(suffix) > MAX_SUFFIX_CHARACTERS:
        raise RequestError(
            f"suffix has {len(suffix)} characters; expected at most {MAX_SUFFIX_CHARACTERS}, "
            "send what follows the gap closely",
            param="suffix",
        )
    before, after = tokenizer.encode(prefix), tokenizer.encode(suffix)
    ids = [*_beginning(tokenizer), tokens.begin, *before, tokens.hole, *after, tokens.end]
    if len(ids) > max_prompt_tokens:
        raise RequestError(
            f"prompt and suffix are {len(ids)} tokens ({len(before)} and {len(after)}); expected "
            f"at most {max_prompt_tokens}, shorten the longer one",
            code="context_length_exceeded",
            param="suffix" if len(after) > len(before) else "prompt",
        )
    return ids


def _beginning(tokenizer: Tokenizer) -> list[int]:
    """The id that documents begin with, where the tokenizer has one."""
    try:
        return [tokenizer.bos_token_id]
    except CheckpointError:
        return []
