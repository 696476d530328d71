"""Worked programs: one structure for every request, in canvas JavaScript and in Python.

The polygon is given by its sides: side i has the outward normal (c, s) at angle t and lies p from
the centre; its far corner is p along the normal and h along the side, so one loop draws the sides
and bounces the ball off them. d is how far the ball reaches over a side, and k twice its speed
against that side, which itself moves at w * (x * s - y * c) there; taking k away from the velocity
along the normal is the elastic reflection seen from the moving wall.
"""

import random
from dataclasses import dataclass

from rorqual.tasks.animation.colours import can_tell_apart
from rorqual.tasks.animation.request import ProgramLanguage, Request

# Per frame of 1/60 s: turning in radians, velocities in pixels, gravity in pixels per frame.
_TURNING = {"slow": "0.008", "fast": "0.02", None: "0.01"}
_VELOCITIES = {
    "slow": ((1, 1.5), (1.5, 1), (2, 1)),
    "fast": ((5, 3), (4, 5), (6, 2)),
    None: ((3, 2), (2, 3), (3, 1)),
}
GRAVITY = "0.1"
_CONTAINERS = ("blue", "green", "white", "red")

_JAVASCRIPT = """\
const { PI, cos, sin, max } = Math;
const n = NUM_SIDES, R = 180, r = 12, w = TURNING;
const p = R * cos(PI / n), h = R * sin(PI / n);
let a = 0, x = 0, y = 0, u = SPEED_X, v = SPEED_Y;
ctx.translate(200, 200);
ctx.lineWidth = 3;
ctx.strokeStyle = "CONTAINER";
function draw() {
  a += w;FALL x += u; y += v;
  ctx.fillStyle = "BACKGROUND";
  ctx.fillRect(-200, -200, 400, 400);
  ctx.beginPath();
  for (let i = 0; i < n; i++) {
    const t = a + 2 * PI * i / n, c = cos(t), s = sin(t);
    ctx.lineTo(p * c - h * s, p * s + h * c);
    const d = x * c + y * s + r - p;
    const k = 2 * max(0, u * c + v * s - w * (x * s - y * c));
    if (d > 0) { x -= d * c; y -= d * s; u -= k * c; v -= k * s; }
  }
  ctx.closePath();
  ctx.stroke();
  ctx.fillStyle = "BALL";
  ctx.beginPath();
  ctx.arc(x, y, r, 0, 2 * PI);
  ctx.fill();
  requestAnimationFrame(draw);
}
draw();
"""

_PYTHON = """\
import pygame
from math import pi, cos, sin
pygame.init()
screen = pygame.display.set_mode((400, 400))
clock = pygame.time.Clock()
n, R, r, w = NUM_SIDES, 180, 12, TURNING
p, h = R * cos(pi / n), R * sin(pi / n)
a, x, y, u, v = 0, 0, 0, SPEED_X, SPEED_Y
while True:
    for event in pygame.event.get():
        if event.type == pygame.QUIT:
            raise SystemExit
    a += wFALL
    x += u
    y += v
    points = []
    for i in range(n):
        t = a + 2 * pi * i / n
        c, s = cos(t), sin(t)
        points.append((200 + p * c - h * s, 200 + p * s + h * c))
        d = x * c + y * s + r - p
        k = 2 * max(0, u * c + v * s - w * (x * s - y * c))
        if d > 0:
            x, y = x - d * c, y - d * s
            u, v = u - k * c, v - k * s
    screen.fill("BACKGROUND")
    pygame.draw.polygon(screen, "CONTAINER", points, 3)
    pygame.draw.circle(screen, "BALL", (200 + x, 200 + y), r)
    pygame.display.flip()
    clock.tick(60)
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """The choices that turn a request into a program."""

    program: ProgramLanguage
    sides: int
    turning: str
    velocity: tuple[float, float]
    gravity: bool
    ball: str
    container: str
    background: str


def plan_program(request: Request, rng: random.Random) -> Plan:
    """Settle what the request leaves open; canvas JavaScript where the language is open."""
    pace = _TURNING[request.turning]
    container = request.container
    if container is None:
        others = (request.ball, request.shown_background)
        container = next(
            name for name in _CONTAINERS if all(can_tell_apart(name, other) for other in others)
        )
    return Plan(
        program=request.program or "javascript",
        sides=request.sides,
        turning=f"-{pace}" if request.direction == "counterclockwise" else pace,
        velocity=rng.choice(_VELOCITIES[request.ball_speed]),
        gravity=bool(request.gravity),
        ball=request.ball,
        container=container,
        background=request.shown_background,
    )


def write_program(plan: Plan) -> str:
    """The whole program, about 30 lines."""
    template = _JAVASCRIPT if plan.program == "javascript" else _PYTHON
    fall = f" v += {GRAVITY};" if plan.program == "javascript" else f"\n    v += {GRAVITY}"
    slots = {
        "NUM_SIDES": str(plan.sides),
        "TURNING": plan.turning,
        "SPEED_X": f"{plan.velocity[0]:g}",
        "SPEED_Y": f"{plan.velocity[1]:g}",
        "FALL": fall if plan.gravity else "",
        "CONTAINER": plan.container,
        "BACKGROUND": plan.background,
        "BALL": plan.ball,
    }
    for slot, text in slots.items():
        template = template.replace(slot, text)
    return template
