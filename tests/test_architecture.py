"""The house keeps its shape: levels, sizes, and no configuration field that nobody reads."""

import ast
import functools
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import rorqual.config

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "rorqual"

LEVELS = {
    0: ("errors", "units", "interrupt"),
    1: ("config", "packages"),
    2: ("release", "tokenizer", "planner", "sandbox"),
    3: ("kernels",),
    4: ("model",),
    5: ("checkpoint", "data", "tasks", "parallel"),
    6: ("train", "engine"),
    7: ("eval",),
    8: ("rl",),
    9: ("distill",),
    10: ("recipe", "platform"),
    11: ("server", "reproduce"),
    12: ("cli",),
}
LEVEL_OF = {room: level for level, rooms in LEVELS.items() for room in rooms}
MAX_FILE_LINES, MAX_NATIVE_FILE_LINES, MAX_FUNCTION_LINES = 500, 800, 80
FORBIDDEN_NAMES = ("utils", "helpers", "misc", "manager")


def config_models() -> list[type[BaseModel]]:
    """Every configuration model that a module of config/ defines."""
    names = [module.name for module in pkgutil.iter_modules(rorqual.config.__path__)]
    modules = [importlib.import_module(f"rorqual.config.{name}") for name in names]
    found = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    kinds = {kind for kind in found if issubclass(kind, BaseModel) and kind is not BaseModel}
    return sorted(kinds, key=lambda kind: kind.__name__)


PYTHON_FILES = sorted(SOURCE.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


@functools.cache
def tree_of(file: Path) -> ast.Module:
    """Parsed once for all tests."""
    return ast.parse(file.read_text(encoding="utf-8"))


def imported_modules(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node, node.module
            if node.module == "rorqual":  # `from rorqual import train` imports the room too
                yield from ((node, f"rorqual.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("file", PYTHON_FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_file_keeps_to_its_level_and_size(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= MAX_FILE_LINES, f"{lines} lines"
    assert file.stem not in FORBIDDEN_NAMES
    tree = tree_of(file)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name}: {length} lines"
    room = room_of(file)
    if room == "__init__":
        return
    for node, module in imported_modules(tree):
        parts = module.split(".")
        if parts[0] != "rorqual" or len(parts) == 1:
            continue
        other = parts[1]
        if module == "rorqual.__version__":
            continue
        allowed = other == room or LEVEL_OF[other] < LEVEL_OF[room]
        assert allowed, f"line {node.lineno}: {room} may not import {other}"


@pytest.mark.parametrize(
    "file",
    sorted((SOURCE / "kernels" / "native").glob("*")),
    ids=lambda f: f.name,
)
def test_native_file_keeps_its_size(file: Path) -> None:
    assert file.read_text(encoding="utf-8").count("\n") <= MAX_NATIVE_FILE_LINES


@pytest.mark.parametrize("file", PYTHON_FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_own_modules_are_imported_at_the_top(file: Path) -> None:
    tree = tree_of(file)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node, module in imported_modules(function):
            assert not module.startswith("rorqual"), f"line {node.lineno}: import inside a function"


@functools.cache
def attribute_names(*files: Path) -> frozenset[str]:
    nodes = (node for file in files for node in ast.walk(tree_of(file)))
    return frozenset(node.attr for node in nodes if isinstance(node, ast.Attribute))


@pytest.mark.parametrize("kind", config_models(), ids=lambda kind: kind.__name__)
def test_every_config_field_is_read_outside_config_and_described(kind: type[BaseModel]) -> None:
    inside = {"softmax_scale", "num_experts", "shared_intermediate_size", "uses_selection_bias"}
    outside = [file for file in PYTHON_FILES if room_of(file) != "config"]
    read = attribute_names(*outside)
    # Read through a property of ModelConfig that is itself read outside.
    assert inside <= read
    through_property = attribute_names(SOURCE / "config" / "model.py")
    for name, field in kind.model_fields.items():
        assert field.description, f"{name} has no description"
        assert name in read or name in through_property, f"{name} is read nowhere"


def test_native_side_and_serving_side_do_not_import_torch() -> None:
    rooms = (
        *("errors", "units", "interrupt", "config", "packages", "tokenizer", "planner"),
        *("sandbox", "release", "data", "tasks", "engine", "platform", "server"),
    )
    # Reached by name alone, where there is no native library or a trainer's model is sampled.
    with_torch = {SOURCE / "engine" / "rollouts.py", *(SOURCE / "engine").glob("torch_*.py")}
    assert len(with_torch) > 1
    for file in PYTHON_FILES:
        if room_of(file) in rooms and file not in with_torch:
            modules = {module for _, module in imported_modules(tree_of(file))}
            assert not any(module.split(".")[0] == "torch" for module in modules), file
