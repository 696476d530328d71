"""The two demonstrations run, and their balls stay inside: seen in the pixels."""

import io
import math
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.web.conftest import PagesIn, ask, finished
from tests.web.fake_server import FakeServer
from tests.web.recorded import DEMONSTRATIONS

Image = pytest.importorskip("PIL.Image")
np = pytest.importorskip("numpy")
WEB = Path(__file__).parents[2] / "web"
BALLS = {"yellow": (255, 255, 0), "red": (255, 0, 0)}
EDGE = (0, 0, 255)


def centre_and_corners(frame: Any, ball: str) -> tuple[Any, Any]:
    """The ball's centre and the pixels of the edge, both about the middle of the picture."""
    box = frame.bounding_box()
    pixels = np.asarray(Image.open(io.BytesIO(frame.screenshot())).convert("RGB")).astype(int)
    side = min(pixels.shape[:2])
    middle = np.array(pixels.shape[1::-1]) / 2
    scale = 400 / min(side, box["width"])

    def where(colour: tuple[int, int, int]) -> Any:
        ys, xs = np.nonzero((np.abs(pixels - colour) < 70).all(axis=2))
        return (np.stack([xs, ys], axis=1) - middle) * scale

    found = where(BALLS[ball])
    return (found.mean(axis=0) if len(found) > 50 else None), where(EDGE)


def turn_of(edge: Any, sides: int) -> float:
    """The polygon's angle: its corners are farthest out. Modulo its symmetry."""
    radii = np.hypot(*edge.T)
    far = edge[radii > radii.max() - 4]
    angles = np.arctan2(far[:, 1], far[:, 0]) * sides
    return math.atan2(np.sin(angles).mean(), np.cos(angles).mean()) / sides


def is_inside(centre: Any, edge: Any, sides: int) -> bool:
    """Within the polygon that has these corners; one pixel of a 400 may be lost to drawing."""
    apothem = 180 * math.cos(math.pi / sides)
    first = turn_of(edge, sides) + math.pi / sides
    normals = [first + 2 * math.pi * k / sides for k in range(sides)]
    return all(
        centre[0] * math.cos(n) + centre[1] * math.sin(n) <= apothem - 12 + 3 for n in normals
    )


def watch(page: Any, one: dict[str, Any], seconds: float) -> tuple[list[Any], list[float]]:
    """The ball's centres and the polygon's angles over a time; it is inside in every picture."""
    frame = page.locator(".preview-frame")
    centres, turns = [], []
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(centres) < 20:
        page.wait_for_timeout(120)
        centre, edge = centre_and_corners(frame, one["ball"])
        if centre is None:
            continue
        assert is_inside(centre, edge, one["sides"]), (centre, turn_of(edge, one["sides"]))
        centres.append(centre)
        turns.append(turn_of(edge, one["sides"]))
    return centres, turns


def name_of(one: dict[str, Any]) -> str:
    return f"{one['ball']}-{one['program']}-{one['language']}"


@pytest.mark.parametrize("one", DEMONSTRATIONS, ids=name_of)
def test_the_ball_moves_and_stays_inside_a_turning_polygon(
    page: Any, fake: FakeServer, one: dict[str, Any]
) -> None:
    page.goto(fake.url)
    ask(page, one["prompt"])
    finished(page)
    page.click(".code-action.run")
    page.wait_for_selector("[data-phase=running]", timeout=90_000)
    centres, turns = watch(page, one, 3)
    assert len({(round(x), round(y)) for x, y in centres}) > 12
    assert len({round(turn, 2) for turn in turns}) > 8


@pytest.mark.soak
@pytest.mark.parametrize("chinese", [False, True], ids=["en", "zh"])
@pytest.mark.parametrize("one", DEMONSTRATIONS, ids=name_of)
def test_every_example_runs_for_20_seconds_with_its_ball_inside(
    open_page: PagesIn, base_url: str, one: dict[str, Any], chinese: bool
) -> None:
    """From the page of examples, in both languages of the page."""
    page = open_page(chinese=chinese, phone=chinese, dark=chinese)
    page.goto(f"{base_url}/#/examples")
    card = page.locator(".example").filter(has_text=one["prompt"])
    card.locator(".button.primary").click()
    page.wait_for_selector("[data-phase=running]", timeout=90_000)
    centres, turns = watch(page, one, 20)
    assert len(centres) > 40
    xs, ys = zip(*centres, strict=True)
    assert max(xs) - min(xs) > 60 and max(ys) - min(ys) > 60  # it crosses the polygon
    # 0.008 a frame: in 20 s at 60 frames a second over nine radians; a fifth of that is certain.
    turned = sum(abs(part) for part in np.diff(np.unwrap(turns, period=2 * math.pi / one["sides"])))
    assert turned > 2


def test_python_prints_and_says_its_errors(page: Any, fake: FakeServer) -> None:
    page.goto(fake.url)
    program = "import pygame\nprint(pygame.Rect(10, 20, 30, 40).center)\nimport sys\n1 / 0\n"
    ask(page, f"CODE:python\n{program}")
    finished(page)
    page.click(".code-action.run")
    assert page.wait_for_selector(".preview-output", timeout=90_000).inner_text() == "(25, 40)"
    error = page.wait_for_selector(".preview-error pre").inner_text()
    assert "line 4" in error
    assert error.endswith("ZeroDivisionError: division by zero")


def load(path: Path) -> ModuleType:
    """A Python file of web/ as a module."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_demonstrations_are_those_of_the_animation_task() -> None:
    script = load(WEB / "scripts" / "make_demonstrations.py")
    assert script.OUTPUT.read_text("utf-8") == script.demonstrations_json()


def test_rectangles_vectors_and_colours_are_pygames() -> None:
    geometry = load(WEB / "src" / "preview" / "pygame_geometry.py")
    rect = geometry.Rect((10, 20), (30, 40))
    assert (rect.right, rect.bottom, rect.center, rect.midleft) == (40, 60, (25, 40), (10, 40))
    rect.center = (100, 100)
    assert tuple(rect) == (85, 80, 30, 40)
    rect.right = 50
    assert (rect.x, rect.w) == (20, 30)
    assert rect.colliderect((49, 90, 5, 5)) and not rect.colliderect((50, 90, 5, 5))
    assert rect.collidepoint(20, 80) and not rect.collidepoint(50, 80)
    vector = geometry.Vector2(3, 4)
    assert (vector.length(), vector * (1, 2), tuple(vector * 2)) == (5, 11, (6, 8))
    assert tuple(geometry.Vector2(1, -1).reflect((0, 1))) == pytest.approx((1, 1))
    assert tuple(geometry.Vector2(1, 0).rotate(90)) == pytest.approx((0, 1))
    assert geometry.Color("#ff8000") == (255, 128, 0, 255)
    assert geometry.css((1, 2, 3)) == "rgba(1,2,3,1.0000)"
    with pytest.raises(ValueError, match="invalid color"):
        geometry.css((1, 2, 300))
