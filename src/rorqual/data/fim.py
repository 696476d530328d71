"""Fill in the middle, document level, prefix-suffix-middle order (DeepSeek-V3, section 2.1).

A chosen document is cut at two characters and stored as
`<fim_begin> prefix <fim_hole> suffix <fim_end> middle`, so that the model learns to write a
middle from both sides. Choice and cuts depend on the document's name alone: building twice gives
the same tokens. NOTE: it happens before packing, so a document longer than a row sees its own
cuts only where they fall into one row, as in the paper.
"""

from typing import NamedTuple

from rorqual.data.documents import name_hash

FIM_BEGIN = "<｜fim▁begin｜>"
FIM_HOLE = "<｜fim▁hole｜>"
FIM_END = "<｜fim▁end｜>"


class FimPieces(NamedTuple):
    """A document in three; `prefix + middle + suffix` is the text again."""

    prefix: str
    suffix: str
    middle: str


def cut_for_fim(document_id: str, text: str, rate: float) -> FimPieces | None:
    """The pieces of a document that is to be rewritten; None for the others."""
    if name_hash(document_id, "fim") >= rate * 2**64:
        return None
    cuts = sorted(name_hash(document_id, salt) % (len(text) + 1) for salt in ("fim-a", "fim-b"))
    start, end = cuts
    return FimPieces(text[:start], text[end:], text[start:end])
