"""A reinforcement learning run from its configuration, for the command line and for recipes."""

import torch

from rorqual.checkpoint import load_model, model_directory
from rorqual.config.rl import RLRunConfig
from rorqual.interrupt import stop_on_signals
from rorqual.kernels.ops import select_ops
from rorqual.parallel import threads_per_process
from rorqual.rl.progress import RLProgress
from rorqual.rl.trainer import RLResult, RLTrainer
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder


def run_rl(config: RLRunConfig, folder: RunFolder) -> RLResult:
    """One run from its configuration, resumed if the folder holds a checkpoint."""
    num_threads = config.rl.num_threads or threads_per_process()
    torch.set_num_threads(num_threads)
    start = model_directory(config.rl.model)
    tokenizer = Tokenizer.load(start)
    ops = select_ops(config.rl.kernels, num_threads)
    model = load_model(start, dtype=torch.float32, ops=ops)
    trainer = RLTrainer(config, folder, model, tokenizer)
    if not folder.exists:
        folder.create(config)
    trainer.resume()
    try:
        with stop_on_signals() as stop, RLProgress(config.rl.max_steps) as progress:
            if trainer.state.step == 0 and config.rl.probe_problems:
                for item in trainer.probe():
                    progress.say(f"probe: {item}")
            result = trainer.run(stop, progress)
            folder.end(result.ended_by)
            return result
    finally:
        trainer.close()
