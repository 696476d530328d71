"""Tasks by name: those that ship, and a user's own from a Python file."""

import difflib
import importlib.util
from pathlib import Path

from rorqual.errors import ConfigError
from rorqual.tasks.about_itself import AboutItself
from rorqual.tasks.abstain import Abstain
from rorqual.tasks.animation import Animation
from rorqual.tasks.arithmetic import Arithmetic
from rorqual.tasks.base import Task
from rorqual.tasks.base_conversion import BaseConversion
from rorqual.tasks.chain_sum import ChainSum
from rorqual.tasks.countdown import Countdown
from rorqual.tasks.dates import Dates
from rorqual.tasks.equations import Equations
from rorqual.tasks.gcd_lcm import GcdLcm
from rorqual.tasks.jsonl import load_jsonl_task
from rorqual.tasks.letter_counting import LetterCounting
from rorqual.tasks.logic import Logic
from rorqual.tasks.program_output import ProgramOutput
from rorqual.tasks.python_function import PythonFunction
from rorqual.tasks.reasoning_gym import load_reasoning_gym_task
from rorqual.tasks.running_state import RunningState
from rorqual.tasks.sorting import Sorting
from rorqual.tasks.word_problems import WordProblems

_TASKS: tuple[type[Task], ...] = (
    RunningState,
    ChainSum,
    Arithmetic,
    Countdown,
    GcdLcm,
    BaseConversion,
    Sorting,
    LetterCounting,
    Equations,
    WordProblems,
    Dates,
    Logic,
    ProgramOutput,
    PythonFunction,
    Animation,
    Abstain,
    AboutItself,
)


def list_tasks() -> tuple[str, ...]:
    """Names of the tasks that ship, in the order of the docs."""
    return tuple(task.name for task in _TASKS)


def load_task(name: str) -> Task:
    """A shipped task by name, `file.py:ClassName`, `file.jsonl` or `reasoning_gym:dataset`.

    NOTE: a file is code that runs with the user's rights; only load files one would run.
    """
    for task in _TASKS:
        if task.name == name:
            return task()
    if name.endswith(".jsonl"):
        return load_jsonl_task(Path(name))
    path, separator, attribute = name.rpartition(":")
    if separator and path.endswith(".py"):
        return _load_file(Path(path), attribute)
    if path == "reasoning_gym":
        return load_reasoning_gym_task(attribute)
    nearest = difflib.get_close_matches(name, list_tasks(), n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(list_tasks())}"
    raise ConfigError(
        f"task {name!r} is not known; {hint}; "
        "or give file.py:ClassName, file.jsonl or reasoning_gym:dataset"
    )


def _load_file(path: Path, attribute: str) -> Task:
    if not path.is_file():
        raise ConfigError(
            f"task file {path} does not exist; expected a Python file, check the path"
        )
    spec = importlib.util.spec_from_file_location(f"rorqual_task_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # any fault of the user's file
        raise ConfigError(
            f"task file {path} fails on import: {error!r}; run it by itself"
        ) from error
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ConfigError(
            f"{path} has no class {attribute} derived from rorqual.tasks.Task; add one"
        )
    task = found()
    task.source = f"{path}:{attribute}"
    return task
