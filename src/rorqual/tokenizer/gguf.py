"""Tokenizers in GGUF metadata: read as a Tokenizer, and written so that llama.cpp needs no patch.

GGUF keeps the vocabulary as a list with a type for each token, the merges, a name for how text is
cut, and the chat template. Only byte-level BPE (`tokenizer.ggml.model` = gpt2) is read, the kind
that this package stands on.

NOTE: llama.cpp parses user-defined tokens even inside plain text, control tokens only where asked.
DeepSeek's role and tool markers are therefore written as control tokens, although their
tokenizer.json does not flag them as special; reading restores the flags.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rorqual.errors import CheckpointError
from rorqual.tokenizer.files import TokenizerFiles, added_tokens, parse_object
from rorqual.tokenizer.pre_tokenizers import pre_tokenizer_named, pre_tokenizer_of
from rorqual.tokenizer.special import MARKER_TOKENS
from rorqual.tokenizer.tokenizer import Tokenizer
from rorqual.tokenizer.vocabulary import byte_of_character

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5
_PREFIX = "tokenizer.ggml."
# Named token: the key in tokenizer_config.json and in GGUF.
_NAMED = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "pad_token": "padding_token_id",
    "unk_token": "unknown_token_id",
}


def tokenizer_from_gguf(metadata: Mapping[str, Any], source: str) -> Tokenizer:
    """The tokenizer in a GGUF file's metadata; `source` names the file in errors."""
    kind = metadata.get(f"{_PREFIX}model")
    if kind != "gpt2":
        raise CheckpointError(
            f"{source}: tokenizer.ggml.model={kind!r}, expected 'gpt2' (byte-level BPE, as "
            "DeepSeek, Qwen, Llama 3 and SmolLM publish); other kinds are not served here"
        )
    tokens = _strings(metadata, "tokens", source)
    types = _types(metadata, tokens, source)
    named = _named_tokens(metadata, tokens, source)
    rule = pre_tokenizer_named(str(metadata.get(f"{_PREFIX}pre", "default")), source)
    added = [
        _added_token(token, token_id, types[token_id] == _CONTROL)
        for token_id, token in enumerate(tokens)
        if types[token_id] in (_CONTROL, _USER_DEFINED)
    ]
    parsed = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if rule.nfc else None,
        "pre_tokenizer": rule.as_json(),
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": rule.whole_words,
            "vocab": _vocabulary(tokens, types),
            "merges": _merges(metadata, source),
        },
    }
    # NOTE: in one line: with an indent json writes in Python, seconds for a large vocabulary.
    text = json.dumps(parsed, ensure_ascii=False) + "\n"
    return Tokenizer(TokenizerFiles(text, _settings(metadata, named), source))


def tokenizer_to_gguf(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """Metadata of a tokenizer; rows of the embedding beyond its ids are unused tokens."""
    files = tokenizer.files
    parsed = parse_object(files.tokenizer_json, files.source)
    model = cast("dict[str, Any]", parsed["model"])
    added = {i: (text, flagged) for text, i, flagged in added_tokens(parsed, files.source)}
    ordinary = {i: token for token, i in cast("dict[str, int]", model["vocab"]).items()}
    if tokenizer.vocab_size > vocab_size:
        raise CheckpointError(
            f"{files.source} has {tokenizer.vocab_size} ids, the model's embedding {vocab_size} "
            "rows; they do not belong together"
        )
    tokens: list[str] = []
    types: list[int] = []
    for token_id in range(vocab_size):
        if token_id in added:
            text, flagged = added[token_id]
            control = flagged or (text.startswith("<｜") and text.endswith("｜>"))
            tokens.append(text)
            types.append(_CONTROL if control else _USER_DEFINED)
        elif token_id in ordinary:
            tokens.append(ordinary[token_id])
            types.append(_NORMAL)
        else:
            tokens.append(f"[PAD{token_id}]")
            types.append(_UNUSED)
    values: dict[str, Any] = {
        "model": "gpt2",
        "pre": pre_tokenizer_of(parsed, files.source).name,
        "tokens": tokens,
        "token_type": types,
        "merges": [_merge_text(merge) for merge in cast("list[Any]", model["merges"])],
        "add_bos_token": bool(files.config.get("add_bos_token", False)),
        "add_eos_token": bool(files.config.get("add_eos_token", False)),
        "add_space_prefix": False,
    }
    for name, key in _NAMED.items():
        token_id = tokenizer.special_tokens.get(files.token_string(name) or "")
        if token_id is not None:
            values[key] = token_id
    found = {f"{_PREFIX}{key}": value for key, value in values.items()}
    if files.chat_template is not None:
        found["tokenizer.chat_template"] = files.chat_template
    return found


def _strings(metadata: Mapping[str, Any], key: str, source: str) -> list[str]:
    value: object = metadata.get(f"{_PREFIX}{key}")
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise CheckpointError(
            f"{source}: tokenizer.ggml.{key} is missing or not a list of strings; the file is "
            "incomplete, convert it again"
        )
    return cast("list[str]", value)


def _types(metadata: Mapping[str, Any], tokens: Sequence[str], source: str) -> list[int]:
    """Each token's type; without the list, only the named tokens are control tokens."""
    given = metadata.get(f"{_PREFIX}token_type")
    if given is None:
        types = [_NORMAL] * len(tokens)
    else:
        types = [int(kind) for kind in given]
    if len(types) != len(tokens):
        raise CheckpointError(
            f"{source}: {len(types)} token types for {len(tokens)} tokens; the file is corrupt, "
            "convert it again"
        )
    if given is None:
        for key in _NAMED.values():
            token_id = metadata.get(f"{_PREFIX}{key}")
            if isinstance(token_id, int) and 0 <= token_id < len(types):
                types[token_id] = _CONTROL
    return types


def _named_tokens(
    metadata: Mapping[str, Any], tokens: Sequence[str], source: str
) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, key in _NAMED.items():
        token_id: object = metadata.get(f"{_PREFIX}{key}")
        if token_id is None:
            continue
        if not isinstance(token_id, int) or not 0 <= token_id < len(tokens):
            raise CheckpointError(
                f"{source}: tokenizer.ggml.{key}={token_id!r} is not an id of {len(tokens)} "
                "tokens; the file is corrupt, convert it again"
            )
        found[name] = tokens[token_id]
    return found


def _added_token(text: str, token_id: int, control: bool) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": control and text not in MARKER_TOKENS,
    }


def _vocabulary(tokens: Sequence[str], types: Sequence[int]) -> dict[str, int]:
    """Ordinary tokens in byte characters; one that is not written so is spelt in its bytes."""
    character_of = {byte: character for character, byte in byte_of_character().items()}
    alphabet = set(character_of.values())
    found: dict[str, int] = {}
    for token_id, token in enumerate(tokens):
        if types[token_id] in (_CONTROL, _USER_DEFINED, _UNUSED):
            continue
        if not alphabet.issuperset(token):
            token = "".join(character_of[byte] for byte in token.encode())
        found.setdefault(token, token_id)
    return found


def _merges(metadata: Mapping[str, Any], source: str) -> list[list[str]]:
    merges = [merge.split(" ") for merge in _strings(metadata, "merges", source)]
    broken = next((merge for merge in merges if len(merge) != 2), None)
    if broken is not None:
        raise CheckpointError(
            f"{source}: the merge {' '.join(broken)!r} is not two tokens; the file is corrupt, "
            "convert it again"
        )
    return merges


def _merge_text(merge: Any) -> str:
    """A merge of a tokenizer.json, where it is a pair or, in older files, one string."""
    return merge if isinstance(merge, str) else " ".join(cast("list[str]", merge))


def _settings(metadata: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    """tokenizer_config.json, as far as GGUF says."""
    settings: dict[str, Any] = {
        "add_bos_token": bool(metadata.get(f"{_PREFIX}add_bos_token", False)),
        "add_eos_token": bool(metadata.get(f"{_PREFIX}add_eos_token", False)),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
    }
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        settings["chat_template"] = template
    return settings
