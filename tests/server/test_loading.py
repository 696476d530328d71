"""A request that comes while the model is being loaded."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from rorqual.server.models import state_once_loaded


class Loading:
    """A backend that is loaded after so many looks, to end in a state."""

    def __init__(self, looks: float, ends_in: str):
        self.looks, self.ends_in = looks, ends_in

    def stats(self) -> Any:
        self.looks -= 1
        return SimpleNamespace(state="loading" if self.looks > 0 else self.ends_in)


@pytest.mark.parametrize("ends_in", ["ready", "down"])
def test_it_waits_for_the_model_to_be_loaded_or_lost(ends_in: str) -> None:
    assert asyncio.run(state_once_loaded(Loading(3, ends_in), 30.0)) == ends_in  # type: ignore[arg-type]


def test_it_does_not_wait_for_ever() -> None:
    never = Loading(float("inf"), "ready")
    assert asyncio.run(state_once_loaded(never, 0.2)) == "loading"  # type: ignore[arg-type]
