"""Distillation by traces: fine-tuning on what the teacher wrote and got right (R1, section 2.4).

The teacher answers training problems; only right and finished answers are kept, each once, a few
per problem (rejection sampling). They lie in the run's traces.jsonl, which `rorqual sft` reads
too. Asking goes on where it stopped: collection.jsonl says how far it came.
"""

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from rorqual.distill.asking import Asking
from rorqual.distill.endpoint import Endpoint
from rorqual.distill.source import Drawn, Preparation, Source
from rorqual.errors import DataError
from rorqual.model import Transformer
from rorqual.rl.costs import Tokens
from rorqual.rl.curriculum import derive_seed
from rorqual.rl.packing import PackedSequences
from rorqual.tasks import Problem
from rorqual.tasks.answers import split_reasoning
from rorqual.train import RunFolder

TRACES_FILE = "traces.jsonl"
_PROGRESS_FILE = "collection.jsonl"


@dataclass(frozen=True, slots=True)
class Written:
    """A teacher's answers, samples_per_prompt per problem, those of one together.

    forward_tokens went through a model of ours (costs.py), 0 for an endpoint; prompt_tokens and
    completion_tokens are what an endpoint charges for: each prompt once per sample.
    """

    problems: list[Problem]
    texts: list[str]
    ended: list[bool]
    forward_tokens: int
    prompt_tokens: int
    completion_tokens: int


class TraceTeacher(Protocol):
    """Whoever writes the traces."""

    def write(self, problems: Sequence[Problem], batch: int) -> Written: ...


class CheckpointTeacher:
    """A model of ours, in this process."""

    def __init__(self, teacher: Transformer, asking: Asking, dtype: torch.dtype):
        """asking: with the teacher's own tokenizer."""
        self.teacher, self.asking, self.dtype = teacher, asking, dtype

    def write(self, problems: Sequence[Problem], batch: int) -> Written:
        """Sampled answers, seeded by the batch."""
        temperature = self.asking.config.teacher_temperature
        answers = self.asking.sample(
            self.teacher, problems, "traces", batch, temperature=temperature, dtype=self.dtype
        )
        return Written(
            answers.problems,
            answers.texts,
            answers.ended,
            answers.num_forward_tokens,
            sum(map(len, answers.prompts)),
            sum(map(len, answers.ids)),
        )


class EndpointTeacher:
    """A model behind an API."""

    def __init__(self, endpoint: Endpoint, asking: Asking):
        self.endpoint, self.config = endpoint, asking.config

    def write(self, problems: Sequence[Problem], batch: int) -> Written:
        """Answers as the endpoint gives them; it is asked once per sample."""
        del batch
        asked = [problem for problem in problems for _ in range(self.config.samples_per_prompt)]
        replies = self.endpoint.ask(
            [problem.prompt for problem in asked],
            max_tokens=self.config.max_completion_length,
            temperature=self.config.teacher_temperature,
        )
        return Written(
            asked,
            [reply.text for reply in replies],
            [reply.ended for reply in replies],
            0,
            sum(reply.prompt_tokens for reply in replies),
            sum(reply.completion_tokens for reply in replies),
        )


@dataclass(slots=True)
class Collected:
    """How far asking has come."""

    problems: int = 0
    samples: int = 0
    right: int = 0
    kept: int = 0
    teacher_prompt_tokens: int = 0
    teacher_completion_tokens: int = 0
    forward_tokens: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Kept:
    """What was kept of each prompt, so that nothing is kept twice or too often."""

    most: int
    per_prompt: Counter[str] = field(default_factory=Counter[str])
    seen: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def take(self, prompt: str, reply: dict[str, str]) -> bool:
        """Whether this reply is to be kept; from then on it counts."""
        key = (prompt, json.dumps(reply, sort_keys=True))
        if key in self.seen or self.per_prompt[prompt] >= self.most:
            return False
        self.seen.add(key)
        self.per_prompt[prompt] += 1
        return True


class TraceSource(Source):
    """Traces collected before the first step, then gone through in a shuffled order per epoch."""

    measures_kl = False

    def __init__(
        self, folder: RunFolder, teacher: TraceTeacher, asking: Asking, context_tokens: int
    ):
        """asking: with the student's tokenizer; context_tokens: the longest sequence it reads."""
        self.folder, self.teacher, self.asking = folder, teacher, asking
        self.config, self.context_tokens = asking.config, context_tokens
        self.sequences: list[tuple[list[int], list[int]]] = []
        self._orders: dict[int, list[int]] = {}

    def prepare(
        self, should_stop: Callable[[], bool], say: Callable[[str], None]
    ) -> Preparation | None:
        """Ask until trace_problems have been asked, then encode what was kept."""
        collected = self._continue()
        kept = _Kept(self.config.traces_per_problem)
        for row in self._rows():
            prompt, reply = row["messages"]
            kept.take(prompt["content"], reply)
        while collected.problems < self.config.trace_problems:
            if should_stop():
                return None
            self._ask_batch(collected, kept)
            say(
                f"teacher asked {collected.problems} of {self.config.trace_problems} problems: "
                f"{collected.right} of {collected.samples} answers right, {collected.kept} kept"
            )
        if not collected.kept:
            raise DataError(
                f"none of the teacher's {collected.samples} answers is right and finished; choose "
                "easier levels, a longer max_completion_length or a better teacher"
            )
        left_out = self._encode()
        figures = asdict(collected) | {"traces": len(self.sequences), "too_long": left_out}
        spent = Tokens(teacher_sampling=collected.forward_tokens)
        return Preparation(spent, collected.seconds, figures, self._fingerprint())

    def draw(self, student: Transformer, step: int, dtype: torch.dtype) -> Drawn:
        """The next traces, epoch after epoch."""
        del student, dtype
        size = self.config.prompts_per_step * self.config.samples_per_prompt
        places = range(step * size, (step + 1) * size)
        chosen = [self.sequences[self._index(place)] for place in places]
        prompts, completions = [p for p, _ in chosen], [c for _, c in chosen]
        lengths = [len(ids) for ids in completions]
        figures: dict[str, float | None] = {
            "epoch": places[-1] / len(self.sequences),
            "num_tokens": float(sum(lengths)),
            "completions/mean_length": sum(lengths) / len(lengths),
        }
        return Drawn(prompts, completions, figures=figures)

    def loss(
        self, student: Transformer, hidden: Tensor, batch: PackedSequences, dtype: torch.dtype
    ) -> tuple[Tensor, Tokens]:
        """Summed cross entropy of the completion tokens."""
        head = student.lm_head.weight.to(dtype)
        return student.ops.linear_cross_entropy(hidden, head, batch.target), Tokens()

    def _continue(self) -> Collected:
        """How far an earlier process came; lines it wrote beyond that are dropped."""
        records = self.folder.read_log(_PROGRESS_FILE)
        collected = Collected(**records[-1]) if records else Collected()
        path = self.folder.path / TRACES_FILE
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            if len(lines) < collected.kept:
                raise DataError(
                    f"{path} has {len(lines)} traces, {_PROGRESS_FILE} says {collected.kept}; "
                    "bring the file back or start a new run"
                )
            if len(lines) > collected.kept:
                path.write_bytes(b"".join(lines[: collected.kept]))
        return collected

    def _ask_batch(self, collected: Collected, kept: _Kept) -> None:
        started = time.perf_counter()
        first, config = collected.problems, self.config
        last = min(first + config.prompts_per_step, config.trace_problems)
        problems = [self.asking.problem("traces", number) for number in range(first, last)]
        written = self.teacher.write(problems, first)
        right = self.asking.judge(written.problems, written.texts, written.ended)
        for problem, text, is_right in zip(written.problems, written.texts, right, strict=True):
            reply = _reply(text) if is_right else {}
            thinks_if_it_must = config.thinking == "free" or "reasoning_content" in reply
            if reply and thinks_if_it_must and kept.take(problem.prompt, reply):
                self.folder.log(_row(problem, reply), TRACES_FILE)
                collected.kept += 1
        collected.problems = last
        collected.samples += len(right)
        collected.right += sum(right)
        collected.teacher_prompt_tokens += written.prompt_tokens
        collected.teacher_completion_tokens += written.completion_tokens
        collected.forward_tokens += written.forward_tokens
        collected.seconds += time.perf_counter() - started
        self.folder.log(asdict(collected), _PROGRESS_FILE)

    def _rows(self) -> Iterator[dict[str, Any]]:
        path = self.folder.path / TRACES_FILE
        if path.exists():
            with path.open(encoding="utf-8") as file:
                yield from (json.loads(line) for line in file)

    def _encode(self) -> int:
        """Traces as prompt and completion; how many are too long for the student."""
        left_out = 0
        messages = [row["messages"] for row in self._rows()]
        for ids, written in self.asking.tokenizer.encode_conversations(messages):
            first = written.index(True)
            too_long = len(ids) - first > self.config.max_completion_length
            if too_long or len(ids) > self.context_tokens:
                left_out += 1
            else:
                self.sequences.append((ids[:first], ids[first:]))
        if not self.sequences:
            raise DataError(
                f"all {left_out} traces are longer than max_completion_length="
                f"{self.config.max_completion_length} or the student's context; raise it"
            )
        return left_out

    def _fingerprint(self) -> str:
        content = json.dumps(self.sequences).encode()
        return hashlib.blake2b(content, digest_size=16).hexdigest()

    def _index(self, place: int) -> int:
        epoch, offset = divmod(place, len(self.sequences))
        if epoch not in self._orders:
            order = list(range(len(self.sequences)))
            random.Random(derive_seed("trace order", self.config.seed, epoch)).shuffle(order)
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1} | {
                epoch: order
            }
        return self._orders[epoch][offset]


def _reply(text: str) -> dict[str, str]:
    """The assistant's message: thinking apart, outer spaces gone, so equal traces are equal."""
    thinking, content = split_reasoning(text)
    assert content is not None, "a right answer has ended its thinking"
    reply = {"role": "assistant", "content": content.strip()}
    if thinking and thinking.strip():
        reply["reasoning_content"] = thinking.strip()
    return reply


def _row(problem: Problem, reply: dict[str, str]) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": problem.prompt}, reply],
        "task": problem.task,
        "level": problem.level,
        "language": problem.language,
        "problem_id": problem.problem_id,
    }
