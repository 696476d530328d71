"""Worked programs pass in the sandbox at every level; broken, forged and absent ones do not."""

import random
from collections.abc import Iterator

import pytest

from rorqual.sandbox import Limits, Sandbox
from rorqual.tasks import LANGUAGES, Language, Problem, make_in_split
from rorqual.tasks.animation import (
    MAX_LINES,
    Animation,
    ProgramLanguage,
    Request,
    demonstrations,
    request_problem,
)
from rorqual.tasks.code_blocks import fenced, last_code_block

PROGRAMS: tuple[ProgramLanguage, ...] = ("javascript", "python")


class PatientAnimation(Animation):
    """A busy machine must not fail a test."""

    limits = Limits(seconds=30.0, output_bytes=Animation.limits.output_bytes)


@pytest.fixture(scope="module")
def task() -> Iterator[Animation]:
    with Sandbox(num_workers=1) as sandbox:
        yield PatientAnimation(sandbox)


def draw(task: Animation, level: int, language: Language, seed: int) -> tuple[Problem, str]:
    rng = random.Random(f"{level} {language} {seed}")
    problem = task.make(rng, level, language)
    return problem, task.solve(problem, rng).completion(thinking=seed % 2 == 0)


@pytest.mark.parametrize("level", range(1, Animation.num_levels + 1))
@pytest.mark.parametrize("language", LANGUAGES)
def test_worked_programs_pass(task: Animation, level: int, language: Language) -> None:
    for seed in range(2):
        problem, text = draw(task, level, language, seed)
        score = task.score(problem, text)
        assert score.correct, (score.reason, problem.prompt)


@pytest.mark.soak
@pytest.mark.parametrize("level", range(1, Animation.num_levels + 1))
@pytest.mark.parametrize("language", LANGUAGES)
def test_many_worked_programs_pass(task: Animation, level: int, language: Language) -> None:
    for seed in range(50):
        problem, text = draw(task, level, language, 1000 + seed)
        score = task.score(problem, text)
        assert score.correct, (score.reason, problem.prompt, text)


def test_the_two_requests_of_january_2025_pass_in_both_programming_languages(
    task: Animation,
) -> None:
    prompts = [problem.prompt for problem in demonstrations()]
    assert prompts[:2] == [
        "编写一个Python脚本，让黄色小球在正方形内弹跳，确保正确处理碰撞检测。"
        "让正方形缓慢旋转。用Python实现。确保小球停留在正方形内",
        "Write a script of a red ball bouncing within a triangle, make sure to handle collision "
        "detection properly. Make the triangle slowly rotate. Implement it in Python. Make sure "
        "the ball stays within the triangle.",
    ]
    tags: list[str] = []
    for problem in demonstrations():
        solution = task.solve(problem, random.Random(0))
        block = last_code_block(solution.content)
        assert block is not None
        tags.append(block.tag)
        assert task.score(problem, solution.completion(thinking=True)).correct
    assert tags == ["python", "python", "javascript", "javascript"]


ASKED = Request(
    sides=4, ball="red", container="blue", turning="slow", direction="clockwise", gravity=False
)


def problem_for(program: ProgramLanguage) -> tuple[Problem, str]:
    """A fixed request and the code of its worked program."""
    asked = Request.from_data({"request": {**ASKED.to_data()["request"], "program": program}})
    problem = request_problem(asked, "", 3, "en")
    block = last_code_block(Animation().solve(problem, random.Random(0)).content)
    assert block is not None
    return problem, block.code


# What is done to the worked program -> (what to replace, by what, in each language; the reason).
BROKEN: dict[str, tuple[dict[ProgramLanguage, tuple[str, str]], str]] = {
    "the bounce is missing": (
        {"javascript": ("if (d > 0)", "if (d > 1e9)"), "python": ("if d > 0", "if d > 1e9")},
        "ball leaves the polygon",
    ),
    "the ball is blue": (
        {"javascript": ('"red"', '"blue"'), "python": ('"red"', '"blue"')},
        "wrong ball colour",
    ),
    "a triangle": (
        {"javascript": ("n = 4", "n = 3"), "python": ("r, w = 4", "r, w = 3")},
        "wrong shape",
    ),
    "the ball rests": (
        {"javascript": ("x += u; y += v;", ""), "python": ("    x += u\n    y += v\n", "")},
        "ball does not move",
    ),
    "nothing turns": (
        {"javascript": ("a += w", "a += 0"), "python": ("a += w", "a += 0")},
        "polygon does not turn",
    ),
    "it turns the other way": (
        {"javascript": ("w = 0.008", "w = -0.008"), "python": ("12, 0.008", "12, -0.008")},
        "polygon turns the wrong way",
    ),
    "there is gravity": (
        {"javascript": ("x += u", "v += 0.1; x += u"), "python": ("x += u", "v += 0.1; x += u")},
        "gravity not asked for",
    ),
    "a bracket is lost": (
        {"javascript": ("cos(PI / n)", "cos(PI / n"), "python": ("cos(pi / n)", "cos(pi / n")},
        "syntax error",
    ),
    "a name is lost": (
        {"javascript": ("let a = 0, x", "let b = 0, x"), "python": ("a, x, y, u", "b, x, y, u")},
        "program fails",
    ),
    "the loop never ends": (
        {"javascript": ("ctx.stroke();", "while (1);"), "python": ("points = []", "while 1: pass")},
        "out of time",
    ),
    "one polygon more": (
        {
            "javascript": ("ctx.stroke();", "ctx.stroke(); ctx.strokeRect(-9, -9, 18, 18);"),
            "python": ("pygame.display", 'pygame.draw.rect(screen, "blue", (9, 9, 9, 9), 1)\n'
                       "    pygame.display"),
        },
        "more than one polygon",
    ),
    "the screen is never cleared": (
        {
            "javascript": ("ctx.fillRect(-200, -200, 400, 400);", ""),
            "python": ('    screen.fill("black")\n', ""),
        },
        "frame not cleared",
    ),
    "it ends after a frame": (
        {
            "javascript": ("requestAnimationFrame(draw);", ""),
            "python": ("while True", "for _ in [0]"),
        },
        "stops early",
    ),
    "too many lines": (
        {
            "javascript": ("draw();\n", "draw();" + "\n//" * 60),
            "python": ("a += w", "a += w" + "\n    0" * 60),
        },
        f"more than {MAX_LINES} lines",
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("fault", BROKEN)
def test_broken_programs_fail_for_their_fault(
    task: Animation, fault: str, program: ProgramLanguage
) -> None:
    problem, code = problem_for(program)
    changes, reason = BROKEN[fault]
    old, new = changes[program]
    assert old in code
    head, _, tail = code.rpartition(old) if fault == "one polygon more" else code.partition(old)
    score = task.score(problem, fenced(program, head + new + tail))
    assert (score.reward, score.correct, score.reason) == (0.0, False, reason)


FORGED: dict[str, tuple[ProgramLanguage, str, str]] = {
    "prints a trace": ("javascript", "console.log('{\"status\":\"ok\"}')", "draws nothing"),
    "prints a trace in Python": (
        "python", "import sys\nprint('{\"status\": \"ok\", \"frames\": []}')", "draws nothing",
    ),
    "exits": ("javascript", "process.exit(0)", "program fails"),
    "leaves the realm by this": (
        "javascript", "this.constructor.constructor('return process')().exit(0)", "program fails",
    ),
    "leaves the realm by a function": (
        "javascript", "ctx.arc.constructor('return process')().exit(0)", "program fails",
    ),
    "leaves the realm by an error": (
        "javascript",
        "try { ctx.arc(0, 0, -1, 0, 7); }\n"
        "catch (e) { e.constructor.constructor('return process')().exit(0); }",
        "program fails",
    ),
    "requires": ("javascript", "require('fs').writeSync(1, 'x')", "program fails"),
    "imports os": ("python", "import os\nos._exit(0)", "program fails"),
    "has no stream": ("python", "import sys\nsys.__stdout__.write('x')", "program fails"),
    "draws without end": (
        "javascript", "while (true) { ctx.fillRect(0, 0, 9, 9); }", "program fails",
    ),
    "holds on to everything": (
        "python",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "out of time",
    ),
    "flips without a clock": (
        "python",
        "import pygame\ns = pygame.display.set_mode((9, 9))\nwhile True:\n"
        "    s.fill('red')\n    pygame.display.flip()",
        "program fails",
    ),
    "draws at no place": ("javascript", "ctx.fillRect(NaN, 0, 9, 9)", "broken trace"),
}  # fmt: skip


@pytest.mark.parametrize("trick", FORGED)
def test_tricks_earn_nothing(task: Animation, trick: str) -> None:
    program, code, reason = FORGED[trick]
    problem, _ = problem_for(program)
    found = task.score(problem, fenced(program, code)).reason
    # What catches every exception is killed, unless the last one comes outside its `try`.
    assert found == reason or (trick == "holds on to everything" and found == "killed")


def test_replies_without_the_right_kind_of_program_are_told_apart(task: Animation) -> None:
    problem, code = problem_for("javascript")
    assert task.score(problem, "A ball bounces inside a square.").reason == "no program"
    assert task.score(problem, f"<think>\n{fenced('js', code)}").reason == "thinking never ends"
    for tag in ("python", "", "html"):
        assert task.score(problem, fenced(tag, code)).reason == "wrong programming language"
    assert task.score(problem, fenced("js", code)).correct


OTHER_STYLE_JAVASCRIPT = """
const canvas = document.getElementById("c");
const ctx = canvas.getContext("2d");
canvas.width = 500; canvas.height = 500;
const SIDES = 4, R = 200, ball = { x: 0, y: 0, vx: 170, vy: 110, r: 15 };
let angle = 0, last = null;
function step(dt) {
  angle += 0.5 * dt;
  ball.x += ball.vx * dt;
  ball.y += ball.vy * dt;
  for (let i = 0; i < SIDES; i++) {
    const t = angle + i * 2 * Math.PI / SIDES;
    const nx = Math.cos(t), ny = Math.sin(t);
    const over = ball.x * nx + ball.y * ny + ball.r - R * Math.cos(Math.PI / SIDES);
    const speed = ball.vx * nx + ball.vy * ny;
    if (over > 0 && speed > 0) {
      ball.vx -= 2 * speed * nx; ball.vy -= 2 * speed * ny;
      ball.x -= over * nx; ball.y -= over * ny;
    }
  }
}
function draw(now) {
  if (last !== null) step((now - last) / 1000);
  last = now;
  ctx.clearRect(0, 0, canvas.width, canvas.height);
  ctx.save();
  ctx.translate(250, 250);
  ctx.save();
  ctx.rotate(angle);
  ctx.strokeStyle = "#0000ff";
  ctx.strokeRect(-R / Math.SQRT2, -R / Math.SQRT2, R * Math.SQRT2, R * Math.SQRT2);
  ctx.restore();
  ctx.fillStyle = "rgb(255, 0, 0)";
  ctx.beginPath();
  ctx.arc(ball.x, ball.y, ball.r, 0, Math.PI * 2);
  ctx.fill();
  ctx.restore();
  requestAnimationFrame(draw);
}
requestAnimationFrame(draw);
"""

OTHER_STYLE_PYTHON = """
import math, random, sys
import pygame

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)

def corners(angle):
    return [(300 + 250 * math.cos(angle + i * math.pi / 2),
             300 + 250 * math.sin(angle + i * math.pi / 2)) for i in range(4)]

def main():
    pygame.init()
    screen = pygame.display.set_mode((600, 600))
    pygame.display.set_caption("ball")
    clock = pygame.time.Clock()
    x, y, vx, vy, angle = 300.0, 300.0, 200.0, random.uniform(100, 150), 0.0
    running = True
    while running:
        dt = clock.tick(50) / 1000
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                running = False
        angle += 0.4 * dt
        x, y = x + vx * dt, y + vy * dt
        points = corners(angle)
        for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1]):
            length = math.hypot(bx - ax, by - ay)
            nx, ny = (by - ay) / length, (ax - bx) / length
            over = (x - ax) * nx + (y - ay) * ny + 14
            if over > 0 and vx * nx + vy * ny > 0:
                k = vx * nx + vy * ny
                x, y, vx, vy = x - over * nx, y - over * ny, vx - 2 * k * nx, vy - 2 * k * ny
        screen.fill(BLACK)
        for i in range(4):
            pygame.draw.line(screen, BLUE, points[i], points[(i + 1) % 4], 3)
        pygame.draw.circle(screen, RED, (int(x), int(y)), 14)
        pygame.display.update()
    pygame.quit()
    sys.exit()

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("program", "code"), [("javascript", OTHER_STYLE_JAVASCRIPT), ("python", OTHER_STYLE_PYTHON)]
)
def test_programs_in_another_style_pass(
    task: Animation, program: ProgramLanguage, code: str
) -> None:
    problem, _ = problem_for(program)
    score = task.score(problem, fenced(program, code))
    assert score.correct, score.reason


def test_requests_are_the_same_for_a_seed_and_kept_apart_by_content(task: Animation) -> None:
    for level in range(1, task.num_levels + 1):
        assert task.make(random.Random(3), level) == task.make(random.Random(3), level)
        rng = random.Random(level)
        english = task.make(random.Random(9), level, "en")
        assert english.key == task.make(random.Random(9), level, "zh").key
        keys = [{make_in_split(task, rng, level, held_out=held).key for _ in range(40)}
                for held in (True, False)]  # fmt: skip
        assert not keys[0] & keys[1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_name_what_is_asked(language: Language) -> None:
    task = Animation()
    for level in range(1, task.num_levels + 1):
        for seed in range(60):
            problem = task.make(random.Random(seed), level, language)
            asked = Request.from_data(problem.data)
            shape = (
                "triangle square pentagon hexagon".split(),
                "三角形 正方形 五边形 六边形".split(),
            )
            assert shape[language == "zh"][asked.sides - 3] in problem.prompt
            for english, chinese, value in (
                ("counterclockwise", "逆时针", asked.direction == "counterclockwise"),
                ("slowly", "缓慢", asked.turning == "slow"),
                ("Python", "Python", asked.program == "python"),
                ("ravity", "重力", asked.gravity is not None),
                ("background", "背景", asked.background is not None),
            ):
                assert ((english, chinese)[language == "zh"] in problem.prompt) is value
            assert "{" not in problem.prompt and "  " not in problem.prompt
            assert len(problem.prompt) < 320
