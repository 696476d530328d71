"""How published vocabularies cut text before merging, by the names that GGUF files give it.

GGUF stores a name (`tokenizer.ggml.pre`) where tokenizer.json spells the rule out. The table holds
the families that the engine serves: DeepSeek's, those that R1 was distilled into, and SmolLM's.
`tokenizer_json` parts are written as the `tokenizers` library writes them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from rorqual.errors import CheckpointError
from rorqual.tokenizer.trainer import CJK, DIGITS, WORDS

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One rule. aliases: other GGUF names of it; nfc: text is normalised first; whole_words: a
    piece that is a token stays whole, whatever the merges say.
    """

    name: str
    steps: tuple[Json, ...]
    aliases: tuple[str, ...] = ()
    nfc: bool = False
    whole_words: bool = False

    def as_json(self) -> Json:
        """The `pre_tokenizer` part of a tokenizer.json."""
        return {"type": "Sequence", "pretokenizers": list(self.steps)}


def _split(pattern: str) -> Json:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def _bytes(*, words: bool = False) -> Json:
    """The step to byte characters; words: GPT-2's own cut comes with it."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": words,
    }


def _words_and_digits(digits: str) -> str:
    """The cut of Llama 3 and Qwen 2, which differ in how many digits stay together."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
        r"|[^\r\n\p{L}\p{N}]?\p{L}+"
        f"|{digits}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_DIGITS = {"type": "Digits", "individual_digits": True}
# The cased letters that DeepSeek's first tokenizers name one by one (V2's tokenizer.json), escaped
# because normalising this file would merge some of them.
_V2_LETTERS = (
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-"
    "\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-"
    "\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d"
    "\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-"
    "\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f"
    "\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-"
    "\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_V2_SPLITS = (
    "[\r\n]",
    rf"\s?[{_V2_LETTERS}]+",
    "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
    r"\s+$",
    "[一-龥ࠀ-一가-\ud7ff]+",
)

PRE_TOKENIZERS = (
    PreTokenizer(
        "deepseek-v3", (_split(DIGITS["groups_of_three"]), _split(CJK), _split(WORDS), _bytes())
    ),
    PreTokenizer("deepseek-llm", (*(_split(p) for p in _V2_SPLITS), _DIGITS, _bytes())),
    PreTokenizer(
        "llama-bpe",
        (_split(_words_and_digits(r"\p{N}{1,3}")), _bytes()),
        aliases=("llama3", "llama-v3"),
        whole_words=True,
    ),
    PreTokenizer(
        "qwen2",
        (_split(_words_and_digits(r"\p{N}")), _bytes()),
        aliases=("deepseek-r1-qwen",),
        nfc=True,
    ),
    PreTokenizer("smollm", (_DIGITS, _bytes(words=True))),
    PreTokenizer("gpt-2", (_bytes(words=True),), aliases=("gpt2", "default")),
)
_SINGLE_DIGITS = (_split(DIGITS["single"]), _split(CJK), _split(WORDS), _bytes())


def pre_tokenizer_named(name: str, source: str) -> PreTokenizer:
    """The rule that a GGUF file names; CheckpointError lists those that are known."""
    for rule in PRE_TOKENIZERS:
        if name == rule.name or name in rule.aliases:
            return rule
    raise CheckpointError(
        f"{source}: tokenizer.ggml.pre={name!r}, expected one of "
        f"{', '.join(rule.name for rule in PRE_TOKENIZERS)}; serve the model from its Hugging Face "
        "directory, whose tokenizer.json says how it cuts text"
    )


def pre_tokenizer_of(parsed: Mapping[str, Any], source: str) -> PreTokenizer:
    """The rule of a parsed tokenizer.json, so that GGUF can name it.

    NOTE: one digit a piece (an option here) goes by V3's name too. No merge of such a vocabulary
    joins two digits, so groups of three fall apart into the same tokens.
    """
    steps = _essence(_flat(parsed.get("pre_tokenizer")))
    named = {_essence(rule.steps): rule for rule in PRE_TOKENIZERS}
    named[_essence(_SINGLE_DIGITS)] = named[_essence(PRE_TOKENIZERS[0].steps)]
    if steps not in named:
        raise CheckpointError(
            f"{source}: llama.cpp has no name for how this tokenizer cuts text, expected the rule "
            f"of {', '.join(rule.name for rule in PRE_TOKENIZERS)}; keep the Hugging Face format"
        )
    return named[steps]


def _flat(step: Any) -> tuple[Json, ...]:
    if not isinstance(step, Mapping):
        return ()
    found = cast("Json", step)
    if found.get("type") != "Sequence":
        return (found,)
    inner = cast("list[Any]", found.get("pretokenizers") or [])
    return tuple(part for item in inner for part in _flat(item))


def _essence(steps: tuple[Json, ...]) -> str:
    """Steps without what does not change ids (offsets)."""
    return json.dumps(
        [{k: v for k, v in step.items() if k != "trim_offsets"} for step in steps], sort_keys=True
    )
