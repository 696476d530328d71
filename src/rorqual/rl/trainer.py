"""The reinforcement learning loop: roll out, score, update, look at held-out problems, save.

Everything drawn is seeded by its place (step, round, index), so the newest checkpoint, which holds
weights, moments, counters and the curriculum, continues the run exactly. The best checkpoint by
held-out pass@1 is kept beside it.
"""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from rorqual.checkpoint import (
    atomic_directory,
    full_tensors,
    load_model,
    load_training_state,
    save_training_state,
    write_model,
)
from rorqual.config.rl import RLRunConfig
from rorqual.engine.rollouts import EngineSampler
from rorqual.interrupt import StopRequest
from rorqual.model import Transformer
from rorqual.release import sign_here
from rorqual.rl.curriculum import Curriculum
from rorqual.rl.doctor import Finding, diagnose
from rorqual.rl.figures import rollout_figures
from rorqual.rl.held_out import HeldOut, in_words
from rorqual.rl.probe import Probed, probe, starting_places
from rorqual.rl.progress import RLProgress
from rorqual.rl.rewards import Rewards
from rorqual.rl.rollout import Collector, Rollouts, Sampler
from rorqual.rl.update import GRPOUpdate
from rorqual.tasks import load_task
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder

BEST = "best"
_REFERENCE = "reference/"
_ROLLOUTS_FILE = "rollouts.jsonl"
_LOGGED_GROUPS = 2  # of every step, whole
_MOST_EMPTY_STEPS = 10


@dataclass(slots=True)
class RLState:
    """Counters of a run. best_step None until something was evaluated."""

    step: int = 0
    elapsed_seconds: float = 0.0
    tokens_generated: int = 0
    empty_steps: int = 0
    evaluated: bool = False
    best_step: int | None = None
    best_pass_at_1: float = -1.0
    curriculum: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RLResult:
    """How a run ended: "done", "time budget", "collapse", "nothing to learn" or a signal's name."""

    step: int
    ended_by: str
    checkpoint: Path
    best: Path
    best_pass_at_1: float


class RLTrainer:
    """One run of reinforcement learning on one machine."""

    def __init__(
        self,
        config: RLRunConfig,
        folder: RunFolder,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        sampler: Sampler | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.config, self.folder, self.tokenizer = config, folder, tokenizer
        sampler = sampler or EngineSampler()
        self.model, self.sampler, self.dtype = model, sampler, dtype
        rl = config.rl
        model.config.check_completion_length("rl.max_completion_length", rl.max_completion_length)
        by_name = {share.name: load_task(share.name) for share in config.tasks}
        self.share_tasks = [by_name[share.name] for share in config.tasks]
        self.rewards = Rewards(rl, {task.name: task for task in by_name.values()})
        self.curriculum = Curriculum(rl, config.tasks, self.share_tasks)
        self.collector = Collector(rl, tokenizer, self.curriculum, self.rewards, sampler)
        reference = _copy_of(model) if rl.beta > 0 else None
        self.update = GRPOUpdate(model, rl, dtype, reference)
        self.state = RLState()
        self.held_out = HeldOut(rl, config.tasks, self.rewards.tasks, tokenizer, sampler)
        self.history: list[dict[str, Any]] = []

    def close(self) -> None:
        """Stop the processes that rewards and tasks hold."""
        self.rewards.close()

    def resume(self) -> None:
        """Continue from the newest checkpoint of the folder, if there is one."""
        steps = self.folder.checkpoint_steps()
        if not steps:
            self.folder.forget_after(-1)
            return
        path = self.folder.checkpoint_path(steps[-1])
        saved = load_model(path, dtype=torch.float32, ops=self.model.ops)
        self.model.load_state_dict(saved.state_dict())
        tensors, values = load_training_state(path)
        reference = {
            name.removeprefix(_REFERENCE): tensor
            for name, tensor in tensors.items()
            if name.startswith(_REFERENCE)
        }
        if self.update.reference is not None:
            self.update.reference.load_state_dict(reference)
        moments = {n: t for n, t in tensors.items() if not n.startswith(_REFERENCE)}
        self.update.optimizer.load_state(moments)
        self.state = RLState(**values)
        self.curriculum.load_state_dict(self.state.curriculum)
        self.folder.forget_after(self.state.step)
        self.history = [r for r in self.folder.read_log() if r["kind"] == "step"]

    def probe(self) -> list[Probed]:
        """pass@k of every family and level before the first step; a curriculum starts from it."""
        found = probe(
            self.model,
            self.tokenizer,
            self.config.rl,
            self.config.tasks,
            self.share_tasks,
            self.rewards,
            self.sampler,
            self.dtype,
        )
        if self.config.rl.curriculum:
            self.curriculum.level_place = starting_places(found, len(self.config.tasks))
        for item in found:
            self.folder.log({"kind": "probe", "step": 0, "verdict": item.verdict} | asdict(item))
        return found

    def run(self, stop: StopRequest, progress: RLProgress) -> RLResult:
        """Train until something ends it; always leaves a checkpoint."""
        rl, state = self.config.rl, self.state
        started = time.monotonic() - state.elapsed_seconds
        last_checkpoint = time.monotonic()
        if not state.evaluated:
            self._evaluate(progress)
            state.evaluated = True
        ended_by = "done"
        while state.step < rl.max_steps:
            if stop:
                ended_by = str(stop.signal_name)
                break
            if rl.time_budget_seconds and state.elapsed_seconds >= rl.time_budget_seconds:
                ended_by = "time budget"
                break
            self._one_step(progress)
            state.elapsed_seconds = time.monotonic() - started
            reason = self._listen_to_doctor(progress)
            if state.step % rl.eval_steps == 0 or state.step == rl.max_steps:
                self._evaluate(progress)
            if reason is not None:
                ended_by = reason
                break
            if time.monotonic() - last_checkpoint >= rl.checkpoint_seconds:
                self._checkpoint()
                last_checkpoint = time.monotonic()
        state.elapsed_seconds = time.monotonic() - started
        path = self._checkpoint()
        best = self.folder.checkpoints / BEST
        return RLResult(state.step, ended_by, path, best, state.best_pass_at_1)

    def _one_step(self, progress: RLProgress) -> None:
        started = time.perf_counter()
        state = self.state
        rollouts = self.collector.collect(self.model, state.step, self.dtype)
        figures: dict[str, Any] = {"kind": "step", "step": state.step + 1}
        figures |= rollout_figures(rollouts)
        if rollouts.kept:
            figures |= self.update.run(rollouts.kept, state.step)
            state.empty_steps = 0
        else:
            state.empty_steps += 1
        for index, share in enumerate(self.config.tasks):
            figures[f"curriculum/{share.name}/level"] = self.curriculum.level(index)
        figures["step_time"] = time.perf_counter() - started
        state.tokens_generated += int(figures["num_tokens"])
        state.step += 1
        self.history.append(figures)
        self.folder.log(
            {key: round(v, 6) if isinstance(v, float) else v for key, v in figures.items()}
        )
        self._log_rollouts(rollouts)
        for problem in self.rewards.take_problems():
            progress.say(f"step {state.step}: {problem}; those completions earned nothing")
        progress.step(state.step, figures)

    def _log_rollouts(self, rollouts: Rollouts) -> None:
        for group in (rollouts.kept or rollouts.drawn)[:_LOGGED_GROUPS]:
            self.folder.log(
                {
                    "step": self.state.step,
                    "prompt": group.problem.prompt,
                    "answer": group.problem.answer,
                    "completions": group.texts,
                    "rewards": [round(float(reward), 4) for reward in group.rewards],
                },
                _ROLLOUTS_FILE,
            )

    def _listen_to_doctor(self, progress: RLProgress) -> str | None:
        """Say what is new; the reason to stop, if there is one."""
        findings = diagnose(self.history)
        for finding in findings:
            if finding.code not in self.state.told:
                self._tell(finding, progress)
        self.state.told = [finding.code for finding in findings]
        if self.state.empty_steps >= _MOST_EMPTY_STEPS:
            return "nothing to learn"
        collapsed = any(finding.severity == "collapse" for finding in findings)
        return "collapse" if collapsed and self.config.rl.stop_on_collapse else None

    def _tell(self, finding: Finding, progress: RLProgress) -> None:
        record = {"kind": "finding", "step": self.state.step} | asdict(finding)
        self.folder.log(record)
        progress.say(f"doctor, step {self.state.step}: {finding}")

    def _evaluate(self, progress: RLProgress) -> None:
        """Look at the held-out problems; keep the checkpoint if it is the best so far."""
        state = self.state
        figures, samples = self.held_out.evaluate(self.model)
        self.folder.log({"kind": "eval", "step": state.step} | figures)
        for sample in samples:
            self.folder.log({"step": state.step} | sample, "samples.jsonl")
        progress.say(f"held-out at step {state.step}: {in_words(figures)}")
        score = figures["eval/all/pass@1"]
        if score > state.best_pass_at_1:
            state.best_pass_at_1, state.best_step = score, state.step
            self._write(self.folder.checkpoints / BEST)

    def _checkpoint(self) -> Path:
        path = self.folder.checkpoint_path(self.state.step)
        if not path.exists():
            self._write(path)
            self.folder.prune(1)
        return path

    def _write(self, path: Path) -> None:
        self.state.curriculum = self.curriculum.state_dict()
        tensors = full_tensors(self.update.optimizer.state())
        if self.update.reference is not None:
            weights = self.update.reference.state_dict()
            tensors |= {f"{_REFERENCE}{name}": tensor for name, tensor in weights.items()}
        with atomic_directory(path) as directory:
            write_model(directory, self.model.config, self.model.state_dict(), self.tokenizer)
            save_training_state(directory, tensors, asdict(self.state))
            sign_here(directory, path.name)


def _copy_of(model: Transformer) -> Transformer:
    """A second network with the same weights."""
    twin = Transformer(model.config, model.ops)
    twin.load_state_dict(model.state_dict())
    return twin.to(model.lm_head.weight.device).eval()
