"""The tutor: problems from the task families, hints step by step, an exact check of homework."""

import asyncio
import random
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from rorqual.errors import RequestError
from rorqual.platform import NotFound
from rorqual.platform.errors import Busy
from rorqual.server.app.bodies import AnswerBody, HintBody, ProblemBody, VerifyBody
from rorqual.server.endpoints import Endpoint
from rorqual.server.identity import app_asker
from rorqual.server.replies import json_reply
from rorqual.server.services import Services
from rorqual.server.solver import Verdict, judge_program, read_exercise, verify
from rorqual.server.wire.fields import FieldTable, read_json
from rorqual.tasks import Problem, Task, load_task

_PROBLEMS: Final = FieldTable(ProblemBody)
_HINTS: Final = FieldTable(HintBody)
_ANSWERS: Final = FieldTable(AnswerBody)
_VERIFY: Final = FieldTable(VerifyBody)
_MAX_KEPT: Final = 10_000
_MAX_WAITING: Final = 8  # programs; each may take two seconds
_TELLINGS: Final = 24

# Family: its title, and the school grade of each of its levels.
FAMILIES: Final[dict[str, tuple[str, str, tuple[int, ...]]]] = {
    "arithmetic": ("Column arithmetic", "竖式计算", (2, 3, 4, 5)),
    "chain_sum": ("Adding up", "连加连减", (1, 2, 2, 3)),
    "word_problems": ("Word problems", "应用题", (2, 3, 4, 5)),
    "countdown": ("Make the number", "凑数游戏", (2, 4, 5, 6)),
    "gcd_lcm": ("Divisors and multiples", "公约数与公倍数", (5, 5, 6, 6)),
    "equations": ("Equations", "解方程", (6, 7, 7, 8)),
    "base_conversion": ("Number systems", "进制转换", (7, 7, 8, 9)),
    "sorting": ("Sorting", "排序", (1, 2, 2, 3)),
    "letter_counting": ("Counting letters", "数字母", (1, 2, 3, 3)),
    "dates": ("Calendar", "日期推算", (3, 4, 5, 6)),
    "logic": ("Logic", "逻辑推理", (4, 5, 6, 7)),
    "running_state": ("Following steps", "逐步推演", (1, 2, 2, 3)),
}
_SAID: Final = {
    "en": {True: "Correct.", False: "Not yet. Look again, or ask for a hint.", None: "No answer."},
    "zh": {True: "正确。", False: "还不对，再想想，或者要一个提示。", None: "没有看到答案。"},
}


@dataclass(frozen=True, slots=True)
class _Kept:
    """A problem that somebody works on."""

    user_id: str
    task: Task
    problem: Problem
    pieces: tuple[str, ...]


class TutorApi:
    """Handlers of /api/tutor. Problems are kept in memory, the oldest forgotten first."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks = {name: load_task(name) for name in FAMILIES}
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._one_program = asyncio.Semaphore(1)
        self._num_waiting = 0

    def endpoints(self) -> list[Endpoint]:
        """Their routes."""
        one = "/api/tutor/problems/{id}"
        return [
            Endpoint("GET", "/api/tutor/families", self.families, "What can be practised."),
            Endpoint("POST", "/api/tutor/problems", self.problem, "A problem.", ProblemBody),
            Endpoint("POST", f"{one}/hint", self.hint, "The next step.", HintBody),
            Endpoint("POST", f"{one}/check", self.check, "Is it right?", AnswerBody),
            Endpoint("POST", "/api/tutor/verify", self.verify, "Checks homework.", VerifyBody),
        ]

    async def families(self, request: Request) -> Response:
        """The families with their levels."""
        await app_asker(self._services, request)
        listed = [
            {
                "name": name,
                "title": {"en": english, "zh": chinese},
                "levels": [
                    {"level": level, "grade": grade} for level, grade in enumerate(grades, 1)
                ],
            }
            for name, (english, chinese, grades) in FAMILIES.items()
        ]
        return json_reply({"families": listed})

    async def problem(self, request: Request) -> Response:
        """A fresh problem; its answer stays here."""
        asker = await app_asker(self._services, request)
        body, _ = _PROBLEMS.read(read_json(await request.body()))
        task = self._tasks.get(body.family)
        if task is None:
            raise RequestError(
                f"family={body.family!r}; one of {', '.join(self._tasks)}", param="family"
            )
        if body.level > task.num_levels:
            raise RequestError(
                f"level={body.level}; {body.family} has 1 to {task.num_levels}", param="level"
            )
        rng = random.Random(secrets.randbits(64))
        problem = task.make(rng, body.level, body.language)
        name = f"problem_{secrets.token_hex(12)}"
        self._kept[name] = _Kept(asker.user.id, task, problem, _pieces(task, problem))
        while len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        return json_reply({"problem_id": name, "prompt": problem.prompt})

    async def hint(self, request: Request) -> Response:
        """Step n of the way, the solution last."""
        kept = await self._find(request)
        body, _ = _HINTS.read(read_json(await request.body()))
        place = min(body.step, len(kept.pieces) - 1)
        return json_reply({"text": kept.pieces[place], "last": place == len(kept.pieces) - 1})

    async def check(self, request: Request) -> Response:
        """Whether an answer is right; null if there is none."""
        kept = await self._find(request)
        body, _ = _ANSWERS.read(read_json(await request.body()))
        answer = body.answer.strip()
        correct: bool | None = None
        if answer:
            boxed = answer if "\\boxed{" in answer else f"\\boxed{{{answer}}}"
            correct = kept.task.score(kept.problem, boxed).correct
        return json_reply({"correct": correct, "message": _SAID[kept.problem.language][correct]})

    async def verify(self, request: Request) -> Response:
        """Whether homework is right, by exact arithmetic, a program by the problem's examples; what
        is not understood is unverified."""
        await app_asker(self._services, request)
        body, _ = _VERIFY.read(read_json(await request.body()))
        found = await self._verdict(body)
        return json_reply(
            {
                "verdict": found.verdict,
                "kind": found.kind,
                "expected": found.expected,
                "steps": [{"text": step.text, "verdict": step.verdict} for step in found.steps],
            }
        )

    async def _verdict(self, body: VerifyBody) -> Verdict:
        exercise = read_exercise(body.text)
        if exercise is None:
            return await self._services.call(verify, body.text, body.answer)
        if self._num_waiting >= _MAX_WAITING:
            raise Busy("too many programs are being checked; try again in a moment", 5.0)
        self._num_waiting += 1
        try:
            async with self._one_program:
                # Not among the platform's own threads: a slow program must not hold up its books.
                return await asyncio.to_thread(judge_program, exercise, body.answer)
        finally:
            self._num_waiting -= 1

    async def _find(self, request: Request) -> _Kept:
        asker = await app_asker(self._services, request)
        kept = self._kept.get(request.path_params["id"])
        if kept is None or kept.user_id != asker.user.id:
            raise NotFound("this problem does not exist (any more); ask for another")
        return kept


def _pieces(task: Task, problem: Problem) -> tuple[str, ...]:
    """The worked way line by line, the solution last: of several tellings the shortest, since some
    show a slip and its correction, which a learner should not meet in a hint."""
    told: list[Any] = [task.solve(problem, random.Random(seed)) for seed in range(_TELLINGS)]
    plainest = min(told, key=lambda solution: len(solution.thinking))
    lines = [line for line in plainest.thinking.splitlines() if line.strip()]
    return (*lines, plainest.content)
