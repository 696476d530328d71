"""Pretraining: the step, the loop around it, and what a run leaves behind (torch)."""

from rorqual.train.device import choose_dtype, multiplies_bfloat16
from rorqual.train.folder import RunFolder
from rorqual.train.interrupt import StopRequest, stop_on_signals
from rorqual.train.loop import Trainer, TrainResult, UnstableRun
from rorqual.train.step import StepResult, TrainStep
from rorqual.train.validate import bits_per_byte

__all__ = [
    "RunFolder",
    "StepResult",
    "StopRequest",
    "TrainResult",
    "TrainStep",
    "Trainer",
    "UnstableRun",
    "bits_per_byte",
    "choose_dtype",
    "multiplies_bfloat16",
    "stop_on_signals",
]
