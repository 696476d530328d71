"""A GRPO step against TRL's GRPOTrainer: same shapes, same prompts, same reward, AdamW, fp32.

    python benchmarks/rl_step.py

8 prompts of about 29 tokens, 8 completions each of exactly 64 tokens: the end token ends nothing
here, and TRL does not draw it. The reward is a coin toss. TRL generates with transformers'
`generate`, its experts computed by the loop ("eager") or by grouped products; gradient
checkpointing, which TRL turns on by default, is off. Rorqual records routes and measures the
sampler's gap, as `rl` does.

Every measurement is a process of its own, alone on the machine; peers take turns, so a slow minute
hits all of them. Printed: seconds as median (min-max) over rounds, split into generating, scoring
and training; the ratio to Rorqual in the same round; tokens generated a second; peak memory.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from train_step import config_of, spread

from rorqual.config import model_config_to_hf
from rorqual.config.rl import RLConfig
from rorqual.engine.rollouts import EngineSampler
from rorqual.kernels.ops import select_ops
from rorqual.model import Transformer, initialize
from rorqual.rl.curriculum import derive_seed
from rorqual.rl.rewards import Rewards, Written
from rorqual.rl.rollout import Group, completion_text
from rorqual.rl.update import GRPOUpdate
from rorqual.tasks import load_task
from rorqual.tokenizer import Tokenizer, train_tokenizer

NUM_PROMPTS, NUM_GENERATIONS, PROMPT_TOKENS, NEW_TOKENS = 8, 8, 29, 64
NUM_THREADS = 2
LEARNING_RATE = 1e-5
PEERS = ("rorqual", "trl-grouped_mm", "trl-eager")


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds of one step."""

    generating: float
    scoring: float
    training: float

    @property
    def total(self) -> float:
        return self.generating + self.scoring + self.training


def benchmark_tokenizer(vocab_size: int) -> Tokenizer:
    """One with exactly `vocab_size` ids, from made-up words."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrst", k=rng.randint(2, 9))) for _ in range(4000)]
    texts = (" ".join(rng.choices(words, k=20)) for _ in range(4000))
    tokenizer = train_tokenizer(texts, vocab_size=vocab_size)
    assert tokenizer.vocab_size == vocab_size
    return tokenizer


def prompts_of(tokenizer: Tokenizer, step: int) -> list[str]:
    """Texts of about PROMPT_TOKENS tokens."""
    rng = random.Random(step)
    first = tokenizer.vocab_size // 2  # the later ids are words or parts of them
    return [
        tokenizer.decode([rng.randrange(first, tokenizer.vocab_size) for _ in range(PROMPT_TOKENS)])
        for _ in range(NUM_PROMPTS)
    ]


class NeverEnding(EngineSampler):
    """Nothing ends an answer but its length."""

    def end_ids(self, model: Transformer) -> tuple[int, ...]:
        return ()


def rorqual_steps(tokenizer: Tokenizer) -> Iterator[StepTimes]:
    """The parts of an RLTrainer's step on prepared prompts."""
    config = RLConfig(
        model=Path("none"), num_generations=NUM_GENERATIONS, prompts_per_step=NUM_PROMPTS,
        max_completion_length=NEW_TOKENS, rewards=("random",), learning_rate=LEARNING_RATE,
        warmup_steps=1,
    )  # fmt: skip
    model_config = config_of("m_tiny").model_copy(update={"eos_token_id": tokenizer.eos_token_id})
    model = Transformer(model_config, select_ops("native", NUM_THREADS))
    initialize(model, 0)
    sampler = NeverEnding()
    update = GRPOUpdate(model, config, torch.float32)
    task = load_task("running_state")
    problem = task.make(random.Random(0), 1)
    rewards = Rewards(config, {"running_state": task})
    step = 0
    while True:
        started = time.perf_counter()
        prompts = [tokenizer.encode(text) for text in prompts_of(tokenizer, step)]
        repeated = [prompt for prompt in prompts for _ in range(NUM_GENERATIONS)]
        seeds = [derive_seed(step, row) for row in range(len(repeated))]
        completions = sampler(
            model, repeated, seeds=seeds, max_new_tokens=NEW_TOKENS, record_routes=True
        )
        texts = [completion_text(tokenizer, completion, "free") for completion in completions]
        generated = time.perf_counter()
        written = [
            Written(problem, text, completion.ids, completion.ended, seed)
            for text, completion, seed in zip(texts, completions, seeds, strict=True)
        ]
        judged = rewards.judge(written, step)
        scored = time.perf_counter()
        groups: list[Group] = []
        for index, prompt in enumerate(prompts):
            rows = slice(index * NUM_GENERATIONS, (index + 1) * NUM_GENERATIONS)
            group = (completions[rows], texts[rows], judged.scores[rows], judged.total[rows])
            groups.append(Group(problem, 0, prompt, *group))
        update.run(groups, step)
        trained = time.perf_counter()
        assert all(len(completion.ids) == NEW_TOKENS for completion in completions)
        yield StepTimes(generated - started, scored - generated, trained - scored)
        step += 1


def coin_toss(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """The same control reward, as TRL calls it."""
    return [float(random.random() < 0.5) for _ in completion_ids]


def timed(owner: Any, name: str, spent: dict[str, float]) -> None:
    """Add the time of every call of owner.name to spent[name]."""
    inner: Callable[..., Any] = getattr(owner, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = inner(*args, **kwargs)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - started
        return result

    setattr(owner, name, outer)


def trl_steps(tokenizer: Tokenizer, experts: str, num_steps: int) -> list[StepTimes]:
    """Whole steps of TRL's own loop, its generating and scoring timed inside it."""
    from datasets import Dataset
    from transformers import (
        AutoTokenizer,
        DeepseekV3Config,
        DeepseekV3ForCausalLM,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
    from trl import GRPOConfig, GRPOTrainer

    spent: dict[str, float] = {}
    found: list[StepTimes] = []

    class Clock(TrainerCallback):
        started = 0.0

        def on_step_begin(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
        ) -> None:
            spent.clear()
            self.started = time.perf_counter()

        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
        ) -> None:
            seconds = time.perf_counter() - self.started
            generating, scoring = spent["_generate"], spent["_calculate_rewards"]
            found.append(StepTimes(generating, scoring, seconds - generating - scoring))

    hf = DeepseekV3Config(**model_config_to_hf(config_of("m_tiny"), dtype="float32"))
    hf._attn_implementation, hf._experts_implementation = "sdpa", experts
    torch.manual_seed(0)
    model = DeepseekV3ForCausalLM(hf)
    texts = [text for step in range(num_steps) for text in prompts_of(tokenizer, step)]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "tokenizer")
        theirs = AutoTokenizer.from_pretrained(Path(folder) / "tokenizer")
        settings = GRPOConfig(
            output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False,
            per_device_train_batch_size=NUM_PROMPTS * NUM_GENERATIONS, max_steps=num_steps,
            num_generations=NUM_GENERATIONS, max_completion_length=NEW_TOKENS, beta=0.0,
            loss_type="dr_grpo", scale_rewards="none", learning_rate=LEARNING_RATE,
            generation_kwargs={"min_new_tokens": NEW_TOKENS}, shuffle_dataset=False,
            report_to=[], save_strategy="no", logging_steps=num_steps, disable_tqdm=True,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model, reward_funcs=coin_toss, args=settings, processing_class=theirs,
            train_dataset=Dataset.from_list([{"prompt": text} for text in texts]),
            callbacks=[Clock()],
        )  # fmt: skip
        timed(trainer, "_generate", spent)
        timed(trainer, "_calculate_rewards", spent)
        trainer.train()
    lengths = trainer.state.log_history[0]
    assert lengths["completions/min_length"] == lengths["completions/max_length"] == NEW_TOKENS
    return found


def measure_one(peer: str, num_steps: int) -> dict[str, Any]:
    """Time `num_steps` steps after one that is not counted."""
    torch.set_num_threads(NUM_THREADS)
    tokenizer = benchmark_tokenizer(config_of("m_tiny").vocab_size)
    if peer == "rorqual":
        steps = rorqual_steps(tokenizer)
        found = [next(steps) for _ in range(num_steps + 1)]
    else:
        with redirect_stdout(sys.stderr):
            found = trl_steps(tokenizer, peer.partition("-")[2], num_steps + 1)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"steps": [asdict(times) for times in found[1:]], "peak_bytes": peak_bytes}


def run_round(peer: str, num_steps: int) -> tuple[StepTimes, int]:
    """The medians of one process's steps, and its peak memory."""
    command = [sys.executable, __file__, "--one", peer, "--steps", str(num_steps)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    if peer == "rorqual":  # as the `rorqual` command sets it
        environment |= {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result = json.loads(done.stdout.splitlines()[-1])
    steps = [StepTimes(**times) for times in result["steps"]]
    middle = sorted(steps, key=lambda times: times.total)[len(steps) // 2]
    return middle, result["peak_bytes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure_one(arguments.one, arguments.steps)))
        return
    times: dict[str, list[StepTimes]] = {peer: [] for peer in arguments.peers}
    memory: dict[str, int] = {}
    for _ in range(arguments.rounds):
        for peer in arguments.peers:
            step, peak_bytes = run_round(peer, arguments.steps)
            times[peer].append(step)
            memory[peer] = max(memory.get(peer, 0), peak_bytes)
            print(f"  {peer}: {step.total:.2f} s", file=sys.stderr, flush=True)
    parts = ("total", "generating", "scoring", "training")
    print(f"{'peer':16}" + "".join(f"{part + ' s':>24}" for part in parts), end="")
    print(f"{'tok/s':>18}{'Rorqual is x':>20}{'peak MB':>9}")
    for peer, steps in times.items():
        tokens = NUM_PROMPTS * NUM_GENERATIONS * NEW_TOKENS
        speeds = [tokens / step.generating for step in steps]
        print(f"{peer:16}", end="")
        print(
            "".join(f"{spread([getattr(s, part) for s in steps], 3):>24}" for part in parts), end=""
        )
        ours = times.get("rorqual", steps)
        ratios = [theirs.total / own.total for theirs, own in zip(steps, ours, strict=True)]
        print(f"{spread(speeds):>18}{spread(ratios, 2):>20}{memory[peer] / 1e6:>9.0f}")


if __name__ == "__main__":
    main()
