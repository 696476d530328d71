"""How the student does on held-out problems, under the names that reinforcement learning logs."""

from collections.abc import Mapping
from typing import Any

from rorqual.config.distill import DistillRunConfig
from rorqual.config.eval import EvalSampling
from rorqual.eval.items import Item
from rorqual.eval.problems import held_out_problems
from rorqual.eval.run import evaluate
from rorqual.model import Transformer
from rorqual.rl.curriculum import derive_seed
from rorqual.rl.rollout import Sampler
from rorqual.tasks import Task
from rorqual.tokenizer import Tokenizer

_SHOWN_SAMPLES = 4


class HeldOut:
    """A fixed set of problems. A problem's split follows from its id: none is ever trained on."""

    def __init__(
        self,
        config: DistillRunConfig,
        tasks: Mapping[str, Task],
        tokenizer: Tokenizer,
        sampler: Sampler,
    ):
        """tasks: by the name that problems carry."""
        distill = config.distill
        self.tasks, self.tokenizer, self.sampler = tasks, tokenizer, sampler
        self.problems = held_out_problems(config.tasks, distill.eval_problems, distill.seed)
        self.sampling = EvalSampling(
            samples_per_problem=distill.eval_samples,
            temperature=1.0,
            max_new_tokens=distill.max_completion_length,
            seed=derive_seed("eval", distill.seed) % 2**31,
            thinking=True if distill.thinking == "forced" else None,
        )

    def evaluate(self, model: Transformer) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Figures per family and over all (pass@1 at temperature 1), and a few samples to read."""
        items = evaluate(
            model, self.tokenizer, self.problems, self.tasks, self.sampling, sampler=self.sampler
        ).items
        families = {name: [i for i in items if i.problem.task == name] for name in self.tasks}
        figures: dict[str, float] = {}
        for name, group in (families | {"all": list(items)}).items():
            if group:
                figures |= {f"eval/{name}/{key}": value for key, value in _means(group).items()}
        samples = [
            {
                "prompt": item.problem.prompt,
                "text": item.text,
                "answer": item.problem.answer,
                "correct": item.judgement.correct,
            }
            for item in items[:_SHOWN_SAMPLES]
        ]
        return figures, samples


def _means(items: list[Item]) -> dict[str, float]:
    count = len(items)
    return {
        "pass@1": sum(item.judgement.correct for item in items) / count,
        "thinking_share": sum(item.judgement.thinks for item in items) / count,
        "mean_length": sum(item.num_tokens for item in items) / count,
        "truncated": sum(not item.ended for item in items) / count,
    }
