"""Small Python exercises: the examples in the problem are the tests, run in the sandbox.

An example is a call with literal arguments and what it gives: `f(3) == 9`, `f(3) -> 9`, `f(3)
returns 9`, or a session of the interpreter (`>>> f(3)` and `9` below it). "Verified" means that the
program gives what every example says, nothing more; each is shown with its own verdict.
"""

import ast
import re
from dataclasses import dataclass
from typing import Any, Final

from rorqual.errors import CapacityError
from rorqual.sandbox import JSON, Limits, Sandbox
from rorqual.server.solver.polynomial import NotRead
from rorqual.server.solver.verify import Step, Verdict, VerdictWord

_CALL: Final = re.compile(r"(>>>\s*|\bassert\s+)?\b([A-Za-z_]\w*)\(")
_GIVES: Final = re.compile(
    r"`?\s*(?:==|=>|->|→|=(?!=)|\b(?:returns?|gives?|is|yields|should be|equals)\b|"
    r"返回|等于|得到|应为|应该是|结果是|输出|是)\s*[:：]?\s*`?"
)
_AFTER: Final = re.compile(r"`?\s*(?:$|[,;.)，；。、）`#\n]|\b(?:and|or|but)\b|和|以及|并)")
_FENCED: Final = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_MAX_EXAMPLES: Final = 20
_MAX_LITERAL: Final = 400
_LIMITS: Final = Limits(seconds=2.0)


@dataclass(frozen=True, slots=True)
class Example:
    """A call and its value."""

    text: str
    arguments: tuple[JSON, ...]
    value: JSON


@dataclass(frozen=True, slots=True)
class Exercise:
    """A function to write, by what it gives."""

    function: str
    examples: tuple[Example, ...]


def read_exercise(text: str) -> Exercise | None:
    """The exercise in a problem as typed; None if there is none, or an example is unclear."""
    name, examples = "", list[Example]()
    for match in _CALL.finditer(text):
        try:
            found = _example(text, match)
        except NotRead:
            return None
        if found is None:
            continue
        if examples and match.group(2) != name:
            return None
        name = match.group(2)
        examples.append(found)
    if not 1 <= len(examples) <= _MAX_EXAMPLES:
        return None
    return Exercise(name, tuple(examples))


def program_in(answer: str, function: str) -> str | None:
    """The last block of code that defines the function, or the whole answer if it is a program."""
    for block in reversed(_FENCED.findall(answer)):
        if re.search(rf"\bdef\s+{function}\b|\b{function}\s*=", block):
            return block
    try:
        tree = ast.parse(answer)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return answer if function in names else None


def judge_program(exercise: Exercise, answer: str) -> Verdict:
    """Whether the program in an answer gives what each example says; blocks while it runs."""
    program = program_in(answer, exercise.function)
    if program is None:
        return Verdict("unverified", "program", None)
    examples = exercise.examples
    try:
        with Sandbox(num_workers=1) as sandbox:
            results = sandbox.call_python(
                program, exercise.function, [one.arguments for one in examples], limits=_LIMITS
            )
    except CapacityError:  # this machine has no sandbox that is strong enough
        return Verdict("unverified", "program", None)
    verdicts: list[VerdictWord] = [
        "verified" if got.status == "ok" and _same(got.value, one.value) else "wrong"
        for got, one in zip(results, examples, strict=True)
    ]
    steps = tuple(Step(f"`{one.text}`", said) for one, said in zip(examples, verdicts, strict=True))
    return Verdict("wrong" if "wrong" in verdicts else "verified", "program", None, steps)


def _example(text: str, match: re.Match[str]) -> Example | None:
    """The example that starts here; None for a call that is none, as in `write f(n)`."""
    call, end = _call(text, match.start(2))
    if call is None:
        return None
    is_session = (match.group(1) or "").startswith(">>>")
    gives = re.compile(r"[ \t]*\n[ \t]*").match(text, end) if is_session else None
    gives = gives or _GIVES.match(text, end)
    if gives is None:
        return None
    value, after = _literal(text, gives.end())
    try:
        arguments = tuple(_plain(ast.literal_eval(one)) for one in call.args)
    except (ValueError, SyntaxError, TypeError):
        return None  # f(n) = f(n - 1) + 1 says something of f, but is no example
    if call.keywords:
        raise NotRead
    if after is None:
        raise NotRead
    return Example(
        text[match.start(2) : after].replace("`", "").strip().replace("\n", " → "), arguments, value
    )


def _call(text: str, start: int) -> tuple[ast.Call | None, int]:
    """The call that starts here, and where it ends."""
    stop = text.find("\n", start)
    line = text[start : len(text) if stop < 0 else stop][:_MAX_LITERAL]
    for end in (found.end() for found in re.finditer(r"\)", line)):
        try:
            tree = ast.parse(line[:end], mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return (tree, start + end) if isinstance(tree, ast.Call) else (None, start)
    return None, start


def _literal(text: str, start: int) -> tuple[JSON, int | None]:
    """The shortest literal that starts here and ends at a border, with its end; None: there is
    none, as in `== 6 + 1`."""
    for end in range(start + 1, min(len(text), start + _MAX_LITERAL) + 1):
        if text[end - 1] in "\r\n" or not _AFTER.match(text, end):
            continue
        if text[end : end + 1] == "." and text[end + 1 : end + 2].isdigit():
            continue  # 6.5 is no 6
        try:
            return _plain(ast.literal_eval(text[start:end].strip())), end
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return None, None


def _plain(value: Any) -> JSON:
    """Data as it comes out of the sandbox; a set, bytes or a complex number is not read."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(one) for key, one in value.items()}
    raise NotRead


def _same(got: JSON, wanted: JSON) -> bool:
    """Equal, and True is no 1. Whole floats count as their number; others to 12 digits."""
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    if isinstance(got, float) and isinstance(wanted, int | float):
        return abs(got - wanted) <= 1e-12 * max(1.0, abs(wanted))
    if isinstance(got, list | tuple) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(_same, got, wanted))
    if isinstance(got, dict) and isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(_same(got[key], wanted[key]) for key in wanted)
    return type(got) is type(wanted) and got == wanted
