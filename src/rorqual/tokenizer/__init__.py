"""Text to token ids: byte-level BPE, chat templates, loss masks. Needs no torch."""

from rorqual.tokenizer.chat import ChatTemplate, deepseek_template
from rorqual.tokenizer.messages import Message, Tools
from rorqual.tokenizer.special import DEEPSEEK_TOKENS
from rorqual.tokenizer.stream import StreamDecoder
from rorqual.tokenizer.text import decode_utf8
from rorqual.tokenizer.tokenizer import Conversation, Tokenizer
from rorqual.tokenizer.trainer import deepseek_pre_tokenizer, train_tokenizer

__all__ = [
    "DEEPSEEK_TOKENS",
    "ChatTemplate",
    "Conversation",
    "Message",
    "StreamDecoder",
    "Tokenizer",
    "Tools",
    "decode_utf8",
    "deepseek_pre_tokenizer",
    "deepseek_template",
    "train_tokenizer",
]
