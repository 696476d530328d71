"""The program in a reply: the last fenced block, found in one pass and never run here."""

from dataclasses import dataclass

_FENCE = "```"
MAX_CODE_CHARACTERS = 8000


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """tag is the word after the opening fence in lower case, "" if there is none."""

    tag: str
    code: str

    @property
    def num_lines(self) -> int:
        """Lines of code, blank ones between them included."""
        return len(self.code.strip().splitlines())


def last_code_block(content: str) -> CodeBlock | None:
    """The last block that is opened and closed; None without one or if it is too long to run."""
    parts = content.split(_FENCE)
    if len(parts) < 3:
        return None
    last = (len(parts) - 1) // 2 * 2 - 1  # odd parts lie inside fences
    tag, newline, code = parts[last].partition("\n")
    if not newline or not code.strip() or len(code) > MAX_CODE_CHARACTERS:
        return None
    return CodeBlock(tag.strip().lower(), code)


def fenced(tag: str, code: str) -> str:
    """A block as a reply writes it."""
    return f"{_FENCE}{tag}\n{code.rstrip()}\n{_FENCE}"
