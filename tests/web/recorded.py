"""Recorded streams: what the fake server's model answers, and how fast."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EXAMPLES = Path(__file__).parents[2] / "web" / "src" / "examples" / "demonstrations.json"
DEMONSTRATIONS: list[dict[str, Any]] = json.loads(_EXAMPLES.read_text("utf-8"))

SYSTEM_THINKING = """\
We have two equations. Adding them removes $y$: $2x = 16$, so $x = 8$.

Then $y = 12 - 8 = 4$. Let me check: $8 + 4 = 12$ and $8 - 4 = 4$. Both hold.

A price such as $5 and another of $10 is no mathematics, and `\\(x\\)` in code stays code.
"""
SYSTEM_ANSWER = """\
Add the two equations, so that \\(y\\) disappears:

\\[ (x + y) + (x - y) = 12 + 4 \\quad\\Longrightarrow\\quad 2x = 16 \\]

1. **Divide by two:** \\(x = 8\\).
2. **Put it back:** $8 + y = 12$, so $y = 4$.

| check | left | right |
|:--|--:|--:|
| \\(x + y\\) | 8 + 4 | 12 |
| \\(x - y\\) | 8 - 4 | 4 |

The same in Python:

```python
import numpy as np

solution = np.linalg.solve([[1, 1], [1, -1]], [12, 4])
print(solution)  # x = 8, y = 4
```

$$\\boxed{x = 8,\\; y = 4}$$
"""
CHINESE_THINKING = """\
两个方程相加可以消去 $y$：$2x = 16$，所以 $x = 8$。

代回得 $y = 4$。检验：$8 + 4 = 12$，$8 - 4 = 4$，都成立。
"""
CHINESE_ANSWER = """\
把两个方程**相加**，消去 \\(y\\)：

\\[ (x + y) + (x - y) = 12 + 4 \\quad\\Longrightarrow\\quad 2x = 16 \\]

1. 两边除以 2：\\(x = 8\\)。
2. 代回第一个方程：\\(8 + y = 12\\)，得 \\(y = 4\\)。

> 检验：\\(8 - 4 = 4\\)，成立。

$$\\boxed{x = 8,\\; y = 4}$$
"""
XSS = (Path(__file__).parent / "xss.md").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Recording:
    """Pieces of thinking and answer, tokens a second, and what comes before."""

    reasoning: str
    content: str
    tokens_per_second: float = 150.0
    queue: tuple[tuple[int, float], ...] = ()

    def deltas(self) -> list[dict[str, str]]:
        """Pieces of about four characters, as a tokenizer would cut them."""
        cut = [{"reasoning": part} for part in _pieces(self.reasoning)]
        return cut + [{"content": part} for part in _pieces(self.content)]


def _pieces(text: str) -> list[str]:
    return [text[at : at + 4] for at in range(0, len(text), 4)]


def long_thinking(num_tokens: int) -> str:
    """Prose with formulas, lists and code, as a long chain of thought has them."""
    parts: list[str] = []
    size = 0
    while size < 4 * num_tokens:
        n = len(parts)
        parts.append(
            f"Step {n}: suppose $a_{{{n}}} = {n}^2$. Wait, let me check **that** once more with "
            f"\\(b = {n} + 1\\), since `f({n})` is what we want.\n\n"
            + (f"- first {n}\n- second {n}\n\n" if n % 5 == 0 else "")
            + (f"```python\nprint({n})\n```\n\n" if n % 17 == 0 else "")
        )
        size += len(parts[-1])
    return "".join(parts)


def recording_for(prompt: str, thinking: bool, attacker_port: int) -> Recording:
    """The stream that belongs to a prompt."""
    chinese = any("\u4e00" <= letter <= "\u9fff" for letter in prompt)
    for one in DEMONSTRATIONS:
        if one["prompt"] == prompt:
            fence = f"```{one['program']}\n{one['code']}```\n"
            plan = f"n = {one['sides']}, ball {one['ball']}." if thinking else ""
            return Recording(plan, fence, 400.0)
    if "XSS" in prompt:
        text = XSS.replace("{port}", str(attacker_port))
        return Recording(text, text, 3000.0)
    if "QUEUE" in prompt:
        return Recording("Done waiting.", "Here it is.", 60.0, ((3, 4.0), (2, 2.5), (1, 1.0)))
    if "SLOW" in prompt:
        return Recording(SYSTEM_THINKING * 6, SYSTEM_ANSWER, 180.0)
    if "LONG" in prompt:
        return Recording(long_thinking(30_000), "Done.", 100.0)
    if "CODE:" in prompt:
        language, _, code = prompt.partition("CODE:")[2].partition("\n")
        return Recording("", f"```{language.strip()}\n{code}\n```\n", 3000.0)
    if "failed with this error" in prompt:
        program = "```javascript\nctx.fillRect(0, 0, 9, 9);\n```\n"
        return Recording("", f"Here is the repaired program:\n\n{program}", 400.0)
    if chinese:
        return Recording(CHINESE_THINKING if thinking else "", CHINESE_ANSWER)
    return Recording(SYSTEM_THINKING if thinking else "", SYSTEM_ANSWER)
