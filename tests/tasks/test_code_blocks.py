"""The last fenced block is the program, and nothing else is."""

import pytest

from rorqual.tasks.code_blocks import MAX_CODE_CHARACTERS, CodeBlock, fenced, last_code_block


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("```python\nx = 1\n```", CodeBlock("python", "x = 1\n")),
        ("Here:\n```JS \nlet a;\n```\nDone.", CodeBlock("js", "let a;\n")),
        ("```\nx\n```", CodeBlock("", "x\n")),
        ("```python\nold\n```\nbetter:\n```python\nnew\n```", CodeBlock("python", "new\n")),
        ("```python\nkept\n```\n```python\nnever closed", CodeBlock("python", "kept\n")),
        ("```python\nnever closed", None),
        ("no program at all", None),
        ("``` inline ```", None),
        ("```python\n \n```", None),
        ("```python\n" + "x" * MAX_CODE_CHARACTERS + "\n```", None),
    ],
)
def test_last_closed_block_counts(content: str, expected: CodeBlock | None) -> None:
    assert last_code_block(content) == expected


def test_what_is_fenced_is_found_again() -> None:
    block = last_code_block(fenced("python", "a = 1\n\nb = 2\n"))
    assert block == CodeBlock("python", "a = 1\n\nb = 2\n")
    assert block.num_lines == 3
