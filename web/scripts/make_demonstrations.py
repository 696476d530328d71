"""Writes web/src/examples/demonstrations.json: the demonstrations and a worked program for each.

They are taken from the animation task, so that the examples are what our models are taught.
Run it as `python web/scripts/make_demonstrations.py` when that task changes; a test compares.
"""

import json
import random
from pathlib import Path

from rorqual.tasks.animation import Animation, Request, demonstrations
from rorqual.tasks.code_blocks import last_code_block

OUTPUT = Path(__file__).parents[1] / "src" / "examples" / "demonstrations.json"


def demonstrations_json() -> str:
    """One object a demonstration: language, program, ball, prompt, code."""
    task = Animation()
    examples: list[dict[str, str | int]] = []
    for problem in demonstrations():
        request = Request.from_data(problem.data)
        block = last_code_block(task.solve(problem, random.Random(0)).content)
        assert block is not None, "a worked answer ends in a code block"
        examples.append(
            {
                "language": problem.language,
                "program": block.tag,
                "ball": request.ball,
                "sides": request.sides,
                "prompt": problem.prompt,
                "code": block.code,
            }
        )
    return json.dumps(examples, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(demonstrations_json(), encoding="utf-8")
