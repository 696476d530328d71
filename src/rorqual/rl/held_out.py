"""How a model does on held-out problems while it is trained, by RL or by a teacher."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from rorqual.config.eval import EvalSampling
from rorqual.config.tasks import TaskShare
from rorqual.eval.items import Item
from rorqual.eval.problems import held_out_problems
from rorqual.eval.run import evaluate
from rorqual.eval.summary import figures as evaluation_figures
from rorqual.model import Transformer
from rorqual.rl.curriculum import derive_seed
from rorqual.rl.rollout import Sampler
from rorqual.tasks import Task
from rorqual.tokenizer import Tokenizer

_SHOWN_SAMPLES = 6


class HeldOutSettings(Protocol):
    """The fields that [rl] and [distill] share."""

    @property
    def seed(self) -> int: ...
    @property
    def eval_problems(self) -> int: ...
    @property
    def eval_samples(self) -> int: ...
    @property
    def max_completion_length(self) -> int: ...
    @property
    def thinking(self) -> Literal["free", "forced"]: ...


class HeldOut:
    """A fixed set of problems. A problem's split follows from its id: none is ever trained on."""

    def __init__(
        self,
        settings: HeldOutSettings,
        shares: Sequence[TaskShare],
        tasks: Mapping[str, Task],
        tokenizer: Tokenizer,
        sampler: Sampler,
    ):
        """tasks: by the name that problems carry."""
        self.tasks, self.tokenizer, self.sampler = tasks, tokenizer, sampler
        self.problems = held_out_problems(shares, settings.eval_problems, settings.seed)
        self.sampling = EvalSampling(
            samples_per_problem=settings.eval_samples,
            temperature=1.0,
            max_new_tokens=settings.max_completion_length,
            seed=derive_seed("eval", settings.seed) % 2**31,
            thinking=True if settings.thinking == "forced" else None,
        )

    def evaluate(self, model: Transformer) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Figures per family and over all (at temperature 1), and a few samples to read."""
        items = evaluate(
            model, self.tokenizer, self.problems, self.tasks, self.sampling, sampler=self.sampler
        ).items
        record = _summary("all", items)
        for name in sorted({item.problem.task for item in items}):
            record |= _summary(name, [item for item in items if item.problem.task == name])
        samples = [
            {
                "prompt": item.problem.prompt,
                "text": item.text,
                "answer": item.problem.answer,
                "correct": item.judgement.correct,
            }
            for item in _shown(items)
        ]
        return record, samples


def in_words(figures: Mapping[str, Any]) -> str:
    """The overall figures of an evaluation, for the progress line."""
    return (
        f"pass@1 {figures['eval/all/pass@1']:.1%}, {figures['eval/all/thinking_share']:.0%} think, "
        f"mean length {figures['eval/all/mean_length']:.0f} tokens"
    )


def _shown(items: Sequence[Item]) -> list[Item]:
    """A few to read, the same at every evaluation: one of each family, level and language."""
    first: dict[tuple[str, int, str], Item] = {}
    for item in items:
        if item.sample_idx == 0:
            first.setdefault((item.problem.task, item.problem.level, item.problem.language), item)
    return [first[key] for key in sorted(first)][:_SHOWN_SAMPLES]


def _summary(name: str, items: Sequence[Item]) -> dict[str, Any]:
    """Figures of one family (or all); pass@k for the k that was sampled, with 95 % intervals."""
    found = evaluation_figures(items)
    record: dict[str, Any] = {
        f"eval/{name}/thinking_share": found["share_thinking"],
        f"eval/{name}/mean_length": found["mean_length"],
        f"eval/{name}/truncated": found["share_truncated"],
    }
    for k in sorted({1, found["samples_per_problem"]}):
        for key in (f"pass@{k}", f"pass@{k}_interval"):
            record[f"eval/{name}/{key}"] = found[key]
    return record
