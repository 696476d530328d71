"""A run: reproducible, resumable, and robust against users' code."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rorqual.checkpoint import load_model
from rorqual.config.rl import RLRunConfig
from rorqual.interrupt import StopRequest
from rorqual.kernels.ops import select_ops
from rorqual.model import sample_completions
from rorqual.rl import run_rl
from rorqual.rl.packing import pack_sequences, score_tokens
from rorqual.rl.progress import RLProgress
from rorqual.rl.trainer import RLTrainer
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder
from tests.rl.conftest import run_config

CHAIN: list[dict[str, object]] = [{"name": "running_state", "levels": [1]}]
TIMES = ("time/gen", "time/score", "time/train", "step_time")


def steps_of(folder: RunFolder) -> list[dict[str, Any]]:
    """The logged steps without what depends on the clock."""
    records = [record for record in folder.read_log() if record["kind"] == "step"]
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


def open_trainer(config: RLRunConfig, folder: RunFolder) -> RLTrainer:
    path = config.rl.model
    model = load_model(path, dtype=torch.float32, ops=select_ops("auto", num_threads=1))
    return RLTrainer(config, folder, model, Tokenizer.load(path))


def test_sampler_and_trainer_agree_on_log_probabilities(
    model_path: Path, tokenizer: Tokenizer
) -> None:
    model = load_model(model_path, dtype=torch.float32)
    prompts = [tokenizer.encode("Start with 3"), tokenizer.encode("转盘"), [5]] * 3
    found = sample_completions(
        model, prompts, seeds=range(9), max_new_tokens=20, record_routes=True
    )
    completions = [completion.ids for completion in found]
    seen = 0
    for batch in pack_sequences(
        prompts, completions, row_tokens=64, rows_per_batch=2, pad_token_id=1
    ):
        logp = score_tokens(model, batch, torch.float32).logp.detach()
        for place in range(len(batch.target)):
            sequence, order = int(batch.sequence[place]), int(batch.order[place])
            assert int(batch.target[place]) == completions[sequence][order]
            wanted = found[sequence].logprobs[order]
            assert float(logp[place]) == pytest.approx(wanted, abs=1e-4)
            seen += 1
    assert seen == sum(len(ids) for ids in completions)


def test_a_seed_reproduces_a_run(model_path: Path, tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        folder = RunFolder(tmp_path / name)
        run_rl(run_config(model_path, CHAIN, rewards=["random"]), folder)
        runs.append(steps_of(folder))
    assert runs[0] == runs[1]
    assert all(step["moe/route_mismatch"] == 0 for step in runs[0])
    assert all(step["sampling/sampling_logp_difference/max"] < 1e-4 for step in runs[0])
    assert len({step["reward"] for step in runs[0]}) > 1
    folder = RunFolder(tmp_path / "c")
    run_rl(run_config(model_path, CHAIN, rewards=["random"], seed=1), folder)
    assert steps_of(folder) != runs[0]


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_a_resumed_run_equals_an_uninterrupted_one(
    model_path: Path, tmp_path: Path, beta: float
) -> None:
    config = run_config(
        model_path, CHAIN, rewards=["random"], beta=beta, ref_sync_steps=3, num_iterations=2,
        curriculum=True,
    )  # fmt: skip
    whole = RunFolder(tmp_path / "whole")
    run_rl(config, whole)

    folder = RunFolder(tmp_path / "parts")
    folder.create(config)
    trainer = open_trainer(config, folder)
    stop = StopRequest()

    class StopAfterTwo(RLProgress):
        def step(self, step: int, figures: Any) -> None:
            super().step(step, figures)
            if step == 2:
                stop.signal_name = "SIGTERM"

    result = trainer.run(stop, StopAfterTwo(4, enabled=False))
    trainer.close()
    assert (result.step, result.ended_by) == (2, "SIGTERM")
    run_rl(config, folder)
    assert steps_of(folder) == steps_of(whole)
    final = [load_model(f.checkpoint_path(4), dtype=torch.float32) for f in (whole, folder)]
    for (name, a), b in zip(final[0].named_parameters(), final[1].parameters(), strict=True):
        assert torch.equal(a, b), name


def test_learning_raises_what_is_rewarded(model_path: Path, tmp_path: Path) -> None:
    """A reward for short completions must make them short."""
    (tmp_path / "short.py").write_text(
        "def short(completion_ids, **kwargs):\n"
        "    return [1.0 - len(ids) / 12 for ids in completion_ids]\n"
    )
    config = run_config(
        model_path, CHAIN, rewards=[f"{tmp_path}/short.py:short"], max_steps=40,
        num_generations=8, learning_rate=3e-3, eval_steps=100, stop_on_collapse=False,
    )  # fmt: skip
    folder = RunFolder(tmp_path / "run")
    run_rl(config, folder)
    rewards = [step["reward"] for step in steps_of(folder)]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.05


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    raise ValueError('my mistake')", "my mistake"),
        ("    import time; time.sleep(60)", "gave no answer in 1 s"),
        ("    import os; os._exit(3)", "process died"),
        ("    return [1.0]", "1 values for 8"),
        ("    return ['x'] * len(completions)", "could not convert"),
    ],
)
def test_a_broken_reward_is_reported_and_the_run_goes_on(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text(f"def mine(completions, **kwargs):\n{body}\n")
    config = run_config(
        model_path, CHAIN, rewards=[f"{tmp_path}/mine.py:mine", "random"], max_steps=2,
        reward_timeout_seconds=1.0, max_refills=0,
    )  # fmt: skip
    result = run_rl(config, RunFolder(tmp_path / "run"))
    assert result.ended_by == "done"
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_users_task_that_raises_scores_nothing_and_the_run_goes_on(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(
        "from rorqual.tasks import Problem, Solution, Task\n"
        "class Mine(Task):\n"
        "    name, num_levels = 'mine', 1\n"
        "    def make(self, rng, level, language=None):\n"
        "        n = str(rng.randrange(10**6))\n"
        "        return Problem(self.name, level, language or 'en', n, n, n)\n"
        "    def solve(self, problem, rng):\n"
        "        return Solution('', problem.answer)\n"
        "    def score(self, problem, completion):\n"
        "        raise KeyError('scorer')\n"
    )
    config = run_config(
        model_path, [{"name": f"{tmp_path}/mine.py:Mine", "levels": [1]}],
        rewards=["accuracy", "random"], max_steps=1, eval_problems=1, eval_steps=50,
    )  # fmt: skip
    result = run_rl(config, RunFolder(tmp_path / "run"))
    assert (result.ended_by, result.best_pass_at_1) == ("done", 0.0)
    assert "KeyError: 'scorer'" in " ".join(capsys.readouterr().err.split())


def test_a_run_without_signal_stops_and_says_so(model_path: Path, tmp_path: Path) -> None:
    config = run_config(model_path, CHAIN, max_steps=50, max_refills=0, eval_steps=100)
    folder = RunFolder(tmp_path / "run")
    result = run_rl(config, folder)
    assert result.ended_by == "nothing to learn"
    found = [record["code"] for record in folder.read_log() if record["kind"] == "finding"]
    assert "too_hard" in found


def test_evaluated_problems_are_never_trained_on(model_path: Path, tmp_path: Path) -> None:
    config = run_config(model_path, CHAIN)
    trainer = open_trainer(config, RunFolder(tmp_path / "run"))
    drawn = {trainer.curriculum.draw(step, 0, 0).problem.problem_id for step in range(300)}
    assert len(trainer.held_out.problems) == 4
    assert not drawn & {problem.problem_id for problem in trainer.held_out.problems}
    trainer.close()
