"""Text to ids and back, for tokenizers trained here and for published ones.

The `tokenizers` library runs the byte-level BPE, but without its added tokens: special strings
are found by `SpecialMarkers` alone. So `encode` cannot produce a special id whatever the text
says, and trusted text goes through `encode_with_special`. Decoding is a table of bytes per id.

NOTE: files trained here and DeepSeek's are lossless. Another published file may normalise first
(Qwen: NFC), or lack a rare byte; what it changes or drops there is changed or dropped here too.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import tokenizers

from rorqual.errors import CheckpointError, RequestError
from rorqual.tokenizer.chat import ChatTemplate
from rorqual.tokenizer.files import (
    TokenizerFiles,
    added_tokens,
    parse_object,
    read_files,
    require_byte_level,
    write_files,
)
from rorqual.tokenizer.markers import Disguise, Piece, SpecialMarkers
from rorqual.tokenizer.masks import assistant_characters
from rorqual.tokenizer.messages import Message, Tools, check_messages, check_tools
from rorqual.tokenizer.stream import StreamDecoder
from rorqual.tokenizer.text import require_utf8
from rorqual.tokenizer.vocabulary import token_bytes


class Conversation(NamedTuple):
    """A conversation as ids, and for each id whether the assistant wrote it."""

    ids: list[int]
    loss_mask: list[bool]


class _Rendered(NamedTuple):
    """A conversation as text with its content still disguised, and its cut at special tokens."""

    text: str
    pieces: list[Piece]
    disguise: Disguise

    def plain_texts(self) -> list[str]:
        """What stands between the special tokens, as its author wrote it."""
        return [self.disguise.reveal(piece.text) for piece in self.pieces if piece.token_id is None]


class Tokenizer:
    """A byte-level BPE tokenizer with its special tokens and chat template."""

    def __init__(self, files: TokenizerFiles):
        self._files = files
        parsed = parse_object(files.tokenizer_json, files.source)
        require_byte_level(parsed, files.source)
        added = added_tokens(parsed, files.source)
        self.special_tokens: dict[str, int] = {text: token_id for text, token_id, _ in added}
        self._skipped_ids = frozenset(token_id for _, token_id, flagged in added if flagged)
        self._plain = _plain_tokenizer(parsed, self.special_tokens, files.source)
        try:
            self._token_bytes = token_bytes(
                self._plain.get_vocab(with_added_tokens=False), self.special_tokens
            )
        except KeyError as error:
            raise CheckpointError(
                f"{files.source} has a token with the character {error}, which stands for no "
                "byte; expected a byte-level vocabulary, fetch the file again"
            ) from error
        self._markers = SpecialMarkers(self.special_tokens)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Load a model directory or a tokenizer.json (settings beside it are read if present)."""
        return cls(read_files(Path(path)))

    def save(self, directory: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json as transformers reads them."""
        write_files(self._files, Path(directory))

    @property
    def files(self) -> TokenizerFiles:
        """What the tokenizer was made from, for writing it in another format."""
        return self._files

    @property
    def vocab_size(self) -> int:
        """One more than the highest id; a model's embedding may be padded beyond it."""
        return len(self._token_bytes)

    @property
    def bos_token_id(self) -> int:
        """The id that begins a document; CheckpointError if the tokenizer names none (Qwen)."""
        return self._named_id("bos_token")

    @property
    def eos_token_id(self) -> int:
        """The id that ends a document or an assistant turn."""
        return self._named_id("eos_token")

    @property
    def pad_token_id(self) -> int:
        """The id that fills batches; the end token where the settings name no pad."""
        return self._named_id("pad_token" if self._files.token_string("pad_token") else "eos_token")

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: nothing added, and special strings in it stay ordinary text."""
        require_utf8(text)
        return self._plain.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in parallel."""
        for text in texts:
            require_utf8(text)
        encodings = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_with_special(self, text: str) -> list[int]:
        """Ids of trusted text (a rendered template): special strings become their ids."""
        require_utf8(text)
        ids: list[int] = []
        for piece in self._markers.split(text):
            ids += self.encode(piece.text) if piece.token_id is None else [piece.token_id]
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text of ids; bytes that form no character become U+FFFD.

        `skip_special` drops what the file flags as special (begin, end, pad); role, tool and
        reasoning markers stay, as in transformers. Ids outside the vocabulary (padded rows of a
        model's embedding, a loss's ignore index) stand for nothing.
        """
        skipped = self._skipped_ids if skip_special else frozenset[int]()
        table, size = self._token_bytes, len(self._token_bytes)
        data = b"".join(table[i] for i in ids if 0 <= i < size and i not in skipped)
        return data.decode("utf-8", "replace")

    @property
    def token_bytes(self) -> list[bytes]:
        """What each id stands for, special tokens by their names; not to be changed. [V]"""
        return self._token_bytes

    def token_num_bytes(self) -> npt.NDArray[np.int32]:
        """UTF-8 bytes that each id stands for, 0 for special tokens. [V] int32"""
        sizes = np.array([len(data) for data in self._token_bytes], dtype=np.int32)  # [V]
        sizes[list(self.special_tokens.values())] = 0
        return sizes

    def stream_decoder(self, *, skip_special: bool = False) -> StreamDecoder:
        """A decoder for one sequence of ids that arrive one by one."""
        return StreamDecoder(self._token_bytes, self._skipped_ids if skip_special else frozenset())

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The compiled chat template; RequestError if the tokenizer came without one."""
        template = self._files.chat_template
        if template is None:
            raise RequestError(
                f"{self._files.source} came without a chat template; add chat_template to "
                "tokenizer_config.json beside it, or send plain prompts",
                code="unsupported_template",
            )
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        named = {name: self._files.token_string(name) for name in names}
        strings = {name: string for name, string in named.items() if string is not None}
        return ChatTemplate(template, strings, self._files.source)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Tools | None = None,
        add_generation_prompt: bool = False,
        thinking: bool | None = None,
    ) -> str:
        """The conversation as text, for people to read and to compare.

        NOTE: content is printed as it is. To encode a conversation use `encode_messages` or
        `encode_conversation`, which keep special strings in content plain text.
        """
        return self.chat_template.render(
            check_messages(messages), check_tools(tools), add_generation_prompt, thinking
        )

    def encode_messages(
        self,
        messages: Sequence[Message],
        *,
        tools: Tools | None = None,
        add_generation_prompt: bool = False,
        thinking: bool | None = None,
    ) -> list[int]:
        """Ids of a conversation, to be answered: what serving and rollouts feed the model.

        Only the template prints special tokens; special strings inside content are plain text.
        In an assistant message without `reasoning_content`, a leading `<think>` and the last
        `</think>` are its reasoning; with it (an empty one too), all of the content is answer.
        """
        rendered = self._render(messages, tools, add_generation_prompt, thinking)
        encoded = (self.encode(text) for text in rendered.plain_texts())
        ids: list[int] = []
        for piece in rendered.pieces:
            ids += next(encoded) if piece.token_id is None else [piece.token_id]
        return ids

    def encode_conversation(
        self,
        messages: Sequence[Message],
        *,
        tools: Tools | None = None,
        add_generation_prompt: bool = False,
        thinking: bool | None = None,
    ) -> Conversation:
        """Ids as `encode_messages`, with the mask of what the assistant wrote: what SFT trains on.

        The mask covers reasoning, text, tool calls and the end-of-turn token of every assistant
        turn; opening markers and the generation prompt are not in it.
        """
        rendered = self._render(messages, tools, add_generation_prompt, thinking)
        return self._encode_with_masks([rendered])[0]

    def encode_conversations(
        self, conversations: Sequence[Sequence[Message]]
    ) -> list[Conversation]:
        """`encode_conversation` of each, with their texts encoded in parallel: for corpora."""
        rendered = [self._render(messages, None, False, None) for messages in conversations]
        return self._encode_with_masks(rendered)

    def _render(
        self,
        messages: Sequence[Message],
        tools: Tools | None,
        add_generation_prompt: bool,
        thinking: bool | None,
    ) -> _Rendered:
        template = self.chat_template
        disguise = self._markers.disguise(
            check_messages(messages), check_tools(tools), template.text
        )
        text = template.render(disguise.messages, disguise.tools, add_generation_prompt, thinking)
        require_utf8(text)
        return _Rendered(text, list(self._markers.split(text)), disguise)

    def _encode_with_masks(self, conversations: Sequence[_Rendered]) -> list[Conversation]:
        texts = [text for rendered in conversations for text in rendered.plain_texts()]
        encoded = zip(texts, self.encode_batch(texts), strict=True)
        done: list[Conversation] = []
        for rendered in conversations:
            written = assistant_characters(
                rendered.text,
                rendered.disguise.messages,
                self.special_tokens,
                self.chat_template.text,
            )
            ids: list[int] = []
            mask: list[bool] = []
            for piece in rendered.pieces:
                if piece.token_id is not None:
                    ids.append(piece.token_id)
                    mask.append(bool(written[piece.start]))
                    continue
                text, found = next(encoded)
                ids += found
                mask += self._mask_of(text, written[piece.start : piece.start + len(text)], found)
            done.append(Conversation(ids, mask))
        return done

    def _mask_of(self, text: str, written: bytearray, ids: list[int]) -> list[bool]:
        """The mask of a plain piece's ids; offsets are only worked out where it changes inside."""
        num_written = sum(written)
        if num_written in (0, len(written)):
            return [num_written > 0] * len(ids)
        offsets = self._plain.encode(text, add_special_tokens=False).offsets
        return [bool(written[start]) for start, _ in offsets]

    def _named_id(self, name: str) -> int:
        string = self._files.token_string(name)
        token_id = self.special_tokens.get(string) if string is not None else None
        if token_id is None:
            raise CheckpointError(
                f"{self._files.source} has no {name} (its settings say {string!r}); expected one "
                "of its special tokens, name it in tokenizer_config.json beside it"
            )
        return token_id


def _plain_tokenizer(
    parsed: Mapping[str, Any], special_tokens: Mapping[str, int], source: str
) -> tokenizers.Tokenizer:
    """The BPE of a tokenizer.json without its special tokens."""
    model = dict(cast("Mapping[str, Any]", parsed["model"]))
    vocab = cast("Mapping[str, int]", model.get("vocab") or {})
    model["vocab"] = {token: i for token, i in vocab.items() if token not in special_tokens}
    unused: dict[str, Any] = {
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }
    try:
        return tokenizers.Tokenizer.from_str(json.dumps({**parsed, **unused, "model": model}))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(
            f"{source} is not a tokenizer that the tokenizers library reads: {error}; the file is "
            "corrupt or of another version, fetch it again"
        ) from error
