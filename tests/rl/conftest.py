"""A tiny model with a tokenizer of its own, and runs on it."""

import random
from pathlib import Path

import pytest

from rorqual.checkpoint import save_model
from rorqual.config.rl import RLRunConfig
from rorqual.config.run import load_run_config
from rorqual.model import Transformer, initialize
from rorqual.tasks import load_task
from rorqual.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained on a few worked problems, digits one by one."""
    task, rng = load_task("running_state"), random.Random(0)
    texts: list[str] = []
    for _ in range(300):
        problem = task.make(rng, 1)
        texts += [problem.prompt, task.solve(problem, rng).completion(thinking=False)]
    return train_tokenizer(texts, vocab_size=400, digits="single")


@pytest.fixture(scope="session")
def model_path(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with random weights."""
    config = load_run_config("tiny").model.model_copy(update={"vocab_size": tokenizer.vocab_size})
    model = Transformer(config)
    initialize(model, seed=3)
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_model(model, tokenizer, path)
    return path


def run_config(model_path: Path, tasks: list[dict[str, object]], **rl: object) -> RLRunConfig:
    """A few small steps."""
    fields: dict[str, object] = {
        "model": model_path,
        "max_steps": 4,
        "prompts_per_step": 2,
        "num_generations": 4,
        "max_completion_length": 12,
        "row_tokens": 96,
        "rows_per_micro_batch": 2,
        "eval_problems": 4,
        "eval_steps": 2,
        "warmup_steps": 1,
        "probe_problems": 2,
        "learning_rate": 1e-3,
        "num_threads": 1,
    }
    return RLRunConfig.model_validate({"rl": fields | rl, "tasks": tasks})
