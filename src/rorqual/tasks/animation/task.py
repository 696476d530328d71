"""Animation: write a whole program that shows a ball bouncing inside a turning polygon.

The program runs in the sandbox for 20 simulated seconds with a recorder in place of a screen; the
judge in this process looks only at what was drawn. Programs draw on a canvas of 400 by 400 pixels
(`canvas` and its 2D context `ctx` are there) or use a part of pygame; recorder.js and recorder.py
name what each of the two may call.
"""

import json
import random
import secrets
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from rorqual.sandbox import Limits
from rorqual.tasks.animation.check import SECONDS, check_animation
from rorqual.tasks.animation.programs import plan_program, write_program
from rorqual.tasks.animation.request import (
    NUM_LEVELS,
    ProgramLanguage,
    Request,
    draw_request,
)
from rorqual.tasks.animation.trace import Trace, read_trace
from rorqual.tasks.animation.wording import think_aloud, word_request
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
from rorqual.tasks.sandboxed import SandboxedTask, failed_run

MAX_LINES = 60
_TAGS: dict[str, ProgramLanguage] = {
    "js": "javascript",
    "javascript": "javascript",
    "py": "python",
    "python": "python",
    "python3": "python",
}
_FOLDER = Path(__file__).parent
_FAILURES = {"syntax": "syntax error", "error": "program fails", "timeout": "out of time"}


class Animation(SandboxedTask):
    """Levels: 1 square or triangle; 2 all shapes, directions, paces; 3 gravity, Python; 4 free."""

    name: ClassVar[str] = "animation"
    num_levels: ClassVar[int] = NUM_LEVELS
    # The recorders stop a program well before; this is for those that will not be stopped.
    limits: ClassVar[Limits] = Limits(seconds=6.0, output_bytes=2 << 20)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        request = draw_request(rng, level)
        spoken = draw_language(rng, language)
        prompt = word_request(request, rng, level, spoken)
        return request_problem(request, prompt, level, spoken)

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        plan = plan_program(Request.from_data(problem.data), rng)
        program = fenced(plan.program, write_program(plan))
        return Solution(think_aloud(plan, problem.language), program)

    def score(self, problem: Problem, completion: str) -> Score:
        _, content = split_reasoning(completion)
        if content is None:
            return wrong("thinking never ends")
        block = last_code_block(content)
        if block is None:
            return wrong("no program")
        if block.num_lines > MAX_LINES:
            return wrong(f"more than {MAX_LINES} lines")
        request = Request.from_data(problem.data)
        language = _TAGS.get(block.tag)
        if language is None or (request.program is not None and language != request.program):
            return wrong("wrong programming language")
        trace = self.film(block.code, language)
        if isinstance(trace, Score):
            return trace
        reason = check_animation(trace, request)
        return RIGHT if reason is None else wrong(reason)

    def film(self, code: str, language: ProgramLanguage) -> Trace | Score:
        """Run a program for its 20 simulated seconds: what it drew, or why it earns nothing."""
        token = secrets.token_hex(16)
        order = json.dumps({"token": token, "code": code, "seconds": SECONDS})
        run = self.sandbox.run_node if language == "javascript" else self.sandbox.run_python
        outcome = run(self._recorders[language], stdin=order, limits=self.limits)
        if outcome.status != "ok" or not outcome.completed:
            return failed_run(outcome.status)
        trace = read_trace(outcome.stdout, token)
        if trace is None:
            return wrong("broken trace")
        return trace if trace.status == "ok" else wrong(_FAILURES.get(trace.status, "broken trace"))

    @cached_property
    def _recorders(self) -> dict[ProgramLanguage, str]:
        """The recorders' source text, as the sandbox gets it."""
        return {
            "javascript": (_FOLDER / "recorder.js").read_text(encoding="utf-8"),
            "python": (_FOLDER / "recorder.py").read_text(encoding="utf-8"),
        }


def request_problem(request: Request, prompt: str, level: int, language: Language) -> Problem:
    """The problem that asks for a request in these words."""
    return Problem(
        task=Animation.name,
        level=level,
        language=language,
        prompt=prompt,
        answer="",
        key=request.key,
        data=request.to_data(),
    )
