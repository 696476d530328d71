"""Training: the step, the loops around it, and what a run leaves behind (torch)."""

from rorqual.train.device import choose_dtype, multiplies_bfloat16
from rorqual.train.folder import RunFolder
from rorqual.train.loop import Trainer
from rorqual.train.run import run_pretraining, run_sft
from rorqual.train.run_loop import TrainResult, UnstableRun
from rorqual.train.sft import SFTTrainer, prepare_data
from rorqual.train.step import StepResult, TrainStep
from rorqual.train.validate import bits_per_byte
from rorqual.train.worked import WorkedExample, worked_examples, write_task_corpus

__all__ = [
    "RunFolder",
    "SFTTrainer",
    "StepResult",
    "TrainResult",
    "TrainStep",
    "Trainer",
    "UnstableRun",
    "WorkedExample",
    "bits_per_byte",
    "choose_dtype",
    "multiplies_bfloat16",
    "prepare_data",
    "run_pretraining",
    "run_sft",
    "worked_examples",
    "write_task_corpus",
]
