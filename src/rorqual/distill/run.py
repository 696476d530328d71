"""A distillation from its configuration, for the command line and for recipes."""

import torch

from rorqual.config.distill import DistillRunConfig
from rorqual.distill.opening import open_trainer
from rorqual.distill.progress import DistillProgress
from rorqual.distill.trainer import DistillResult
from rorqual.interrupt import stop_on_signals
from rorqual.kernels.ops import select_ops
from rorqual.parallel import threads_per_process
from rorqual.train import RunFolder


def run_distill(config: DistillRunConfig, folder: RunFolder) -> DistillResult:
    """One run from its configuration, resumed if the folder holds a checkpoint."""
    num_threads = config.distill.num_threads or threads_per_process()
    torch.set_num_threads(num_threads)
    trainer = open_trainer(config, folder, select_ops(config.distill.kernels, num_threads))
    try:
        if not folder.exists:
            folder.create(config)
        trainer.resume()
        with stop_on_signals() as stop, DistillProgress(config.distill.max_steps) as progress:
            result = trainer.run(stop, progress)
            folder.end(result.ended_by)
            return result
    finally:
        trainer.close()
