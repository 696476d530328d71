"""Python functions: write a small function that hidden inputs will try out in the sandbox.

The inputs are drawn with the problem; what they should give is worked out in this process by a
reference and compared here, so neither expected values nor tests are where the model's code runs.
"""

import random
from typing import Any, ClassVar

from rorqual.tasks.answers import split_reasoning
from rorqual.tasks.base import (
    RIGHT,
    Language,
    Problem,
    Score,
    Solution,
    check_level,
    draw_language,
    wrong,
)
from rorqual.tasks.code_blocks import fenced, last_code_block
from rorqual.tasks.function_families import FAMILIES, FunctionFamily
from rorqual.tasks.sandboxed import SandboxedTask, failed_run

_NUM_INPUTS = 8
_MOST_DRAWS = 50
_TAGS = ("python", "py", "python3", "")
_OPENINGS = {
    "en": (
        "Write a Python function {call} that {what}.",
        "Python: define {call}, which {what}.",
        "Define a Python function {call}. It {what}.",
    ),
    "zh": (
        "写一个Python函数{call}，{what}。",
        "用Python定义函数{call}，{what}。",
        "请实现Python函数{call}，{what}。",
    ),
}


class PythonFunction(SandboxedTask):
    """Levels: 1 one expression on numbers, 2 lists and strings, 3 loops and cases."""

    name: ClassVar[str] = "python_function"
    num_levels: ClassVar[int] = max(family.level for family in FAMILIES)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        index = rng.choice([i for i, family in enumerate(FAMILIES) if family.level == level])
        family = FAMILIES[index]
        function, arguments = rng.choice(family.names), rng.choice(family.arguments).split()
        parameter = rng.choice(family.parameters)
        inputs = _draw_inputs(family, parameter, rng)
        spoken = draw_language(rng, language)
        what = _fill(family.en if spoken == "en" else family.zh, arguments, parameter)
        call = f"{function}({', '.join(arguments)})"
        opening = rng.choice(_OPENINGS[spoken])
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=opening.format(call=call, what=what).replace("，：", "："),
            answer="",
            key=f"{family.names[0]} {call} {parameter}",
            data={
                "family": index,
                "function": function,
                "arguments": arguments,
                "parameter": parameter,
                "inputs": inputs,
            },
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        del rng
        family, data = FAMILIES[problem.data["family"]], problem.data
        plan = family.plan_en if problem.language == "en" else family.plan_zh
        body = _fill(family.body, data["arguments"], data["parameter"])
        lines = "".join(f"    {line}\n" for line in body.split("\n"))
        code = f"def {data['function']}({', '.join(data['arguments'])}):\n{lines}"
        return Solution(_fill(plan, data["arguments"], data["parameter"]), fenced("python", code))

    def score(self, problem: Problem, completion: str) -> Score:
        _, content = split_reasoning(completion)
        if content is None:
            return wrong("thinking never ends")
        block = last_code_block(content)
        if block is None:
            return wrong("no program")
        if block.tag not in _TAGS:
            return wrong("wrong programming language")
        family, data = FAMILIES[problem.data["family"]], problem.data
        results = self.sandbox.call_python(
            block.code, data["function"], data["inputs"], limits=self.limits
        )
        for values, result in zip(data["inputs"], results, strict=True):
            if result.status != "ok":
                return failed_run(result.status)
            if not is_same_value(result.value, family.reference(data["parameter"], *values)):
                return wrong("wrong result")
        return RIGHT


def is_same_value(got: Any, wanted: Any) -> bool:
    """Equal, lists item by item; True and 1 differ, 2 and 2.0 do not."""
    if isinstance(wanted, list):
        return (
            isinstance(got, list)
            and len(got) == len(wanted)
            and all(is_same_value(a, b) for a, b in zip(got, wanted, strict=True))
        )
    if isinstance(wanted, bool) or isinstance(got, bool):
        return got is wanted
    if isinstance(wanted, int):
        return isinstance(got, int | float) and got == wanted
    return isinstance(got, str) and got == wanted


def _draw_inputs(family: FunctionFamily, parameter: Any, rng: random.Random) -> list[list[Any]]:
    """Inputs that give more than one result: no constant passes."""
    for _ in range(_MOST_DRAWS):
        inputs = [family.draw(rng, parameter) for _ in range(_NUM_INPUTS)]
        results = [family.reference(parameter, *values) for values in inputs]
        if any(result != results[0] for result in results):
            return inputs
    raise AssertionError(f"{family.names[0]}: {_MOST_DRAWS} draws of inputs gave one result each")


def _fill(text: str, arguments: list[str], parameter: Any) -> str:
    """The template with this problem's names and parameter."""
    return text.format(**dict(zip("abc", arguments, strict=False)), k=parameter)
