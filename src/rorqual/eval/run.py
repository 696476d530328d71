"""Sampling and scoring a problem set. The sampler is handed in, so this file needs no torch.

A sample's seed comes from the evaluation's seed, the problem and the sample's number. So a sample
is the same whichever others are drawn, and an interrupted evaluation is completed, not repeated.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rorqual.config.eval import EvalSampling
from rorqual.errors import DataError
from rorqual.eval.items import Item, Key, judge_all, problem_to_json
from rorqual.tasks import Problem, Task
from rorqual.tasks.answers import THINK_BEGIN, THINK_END, split_reasoning
from rorqual.tokenizer import Tokenizer

ROWS_PER_BATCH = 256
_CLOSED_THINKING = f"{THINK_BEGIN}\n\n{THINK_END}\n\n"


class Drawn(Protocol):
    """What evaluation reads of a completion."""

    @property
    def ids(self) -> list[int]: ...  # the end token included if it came
    @property
    def ended(self) -> bool: ...


class Sampler(Protocol):
    """`rorqual.model.sample_completions`, or anything that is called like it."""

    def __call__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        should_stop: Callable[[], bool],
    ) -> Sequence[Drawn]: ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All items there are, sorted by key; finished: whether none is missing."""

    items: tuple[Item, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class _Request:
    """A sample to draw. opening: what the prompt already wrote of the completion."""

    problem: Problem
    sample_idx: int
    seed: int
    prompt: list[int]
    opening: str


def evaluate(
    model: Any,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    tasks: Mapping[str, Task],
    sampling: EvalSampling,
    *,
    sampler: Sampler,
    done: Sequence[Item] = (),
    on_items: Callable[[Sequence[Item]], None] = lambda items: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    rows_per_batch: int = ROWS_PER_BATCH,
) -> Evaluation:
    """Draw samples_per_problem answers to each problem and score them.

    tasks: by the name that problems carry. done: items of an earlier, interrupted call; they are
    not drawn again. on_items gets every batch as soon as it is scored. When should_stop turns true,
    completions that were cut short by it are dropped.
    """
    items = {item.key: item for item in done}
    missing = list(_requests(tokenizer, _checked(problems, tasks), sampling, items))
    total = len(items) + len(missing)
    on_progress(len(items), total)
    for begin in range(0, len(missing), rows_per_batch):
        if should_stop():
            break
        batch = missing[begin : begin + rows_per_batch]
        found = _run_batch(model, tokenizer, batch, tasks, sampling, sampler, should_stop)
        on_items(found)
        items |= {item.key: item for item in found}
        on_progress(len(items), total)
    ordered = tuple(items[key] for key in sorted(items))
    return Evaluation(ordered, finished=len(ordered) == total)


def sample_seed(seed: int, problem: Problem, sample_idx: int) -> int:
    """48 bits, which every JSON reader keeps whole."""
    text = f"{seed}\n{problem.problem_id}\n{problem.language}\n{sample_idx}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest())


def _checked(problems: Sequence[Problem], tasks: Mapping[str, Task]) -> list[Problem]:
    """The problems as the log will hold them, so that scoring and re-scoring see the same."""
    checked: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        if problem.task not in tasks:
            raise DataError(
                f"problem {problem.problem_id} is of task {problem.task!r}, got tasks "
                f"{', '.join(tasks)}; hand its task in"
            )
        key = (problem.problem_id, problem.language)
        if key in checked:
            raise DataError(
                f"problem {problem.problem_id} stands twice in the set in language "
                f"{problem.language}; leave one out"
            )
        checked[key] = Problem(**json.loads(json.dumps(problem_to_json(problem))))
    return list(checked.values())


def _requests(
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    sampling: EvalSampling,
    done: Mapping[Key, Item],
) -> Iterator[_Request]:
    """The samples that are not done, those of one problem together."""
    for problem in problems:
        prompt, opening = prompt_ids(tokenizer, problem, sampling.thinking)
        for sample_idx in range(sampling.samples_per_problem):
            seed = sample_seed(sampling.seed, problem, sample_idx)
            if (problem.problem_id, problem.language, sample_idx) not in done:
                yield _Request(problem, sample_idx, seed, prompt, opening)


def prompt_ids(
    tokenizer: Tokenizer, problem: Problem, thinking: bool | None
) -> tuple[list[int], str]:
    """The prompt, and what it already holds of the completion (`<think>` where it is forced).

    thinking=False asks the chat template for a direct answer; where the template writes the same as
    without it, the prompt closes an empty thinking (Ma et al. 2025, "NoThinking", section 2).
    """
    messages = [{"role": "user", "content": problem.prompt}]
    ids = tokenizer.encode_messages(messages, add_generation_prompt=True, thinking=thinking)
    if thinking is False and ids == tokenizer.encode_messages(messages, add_generation_prompt=True):
        return ids + tokenizer.encode_with_special(_CLOSED_THINKING), _CLOSED_THINKING
    marker = tokenizer.special_tokens.get(THINK_BEGIN)
    if marker not in ids:
        return ids, ""
    tail = tokenizer.decode(ids[len(ids) - 1 - ids[::-1].index(marker) :])
    return ids, tail if tail.strip() == THINK_BEGIN else ""


def _run_batch(
    model: Any,
    tokenizer: Tokenizer,
    batch: Sequence[_Request],
    tasks: Mapping[str, Task],
    sampling: EvalSampling,
    sampler: Sampler,
    should_stop: Callable[[], bool],
) -> list[Item]:
    begin = time.monotonic()
    drawn = sampler(
        model,
        [request.prompt for request in batch],
        seeds=[request.seed for request in batch],
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        should_stop=should_stop,
    )
    whole = [
        (request, completion)
        for request, completion in zip(batch, drawn, strict=True)
        if completion.ended or len(completion.ids) >= sampling.max_new_tokens or not should_stop()
    ]
    texts = [request.opening + _text(tokenizer, row) for request, row in whole]
    pairs = [(request.problem, text) for (request, _), text in zip(whole, texts, strict=True)]
    judgements = judge_all(tasks, pairs)
    seconds = round((time.monotonic() - begin) / max(len(whole), 1), 6)
    return [
        Item(
            problem=request.problem,
            sample_idx=request.sample_idx,
            seed=request.seed,
            sampling=EvalSampling(**sampling.model_dump(include=set(EvalSampling.model_fields))),
            text=text,
            num_tokens=len(row.ids),
            thinking_tokens=_thinking_tokens(tokenizer, row, text) if judgement.thinks else 0,
            ended=row.ended,
            seconds=seconds,
            judgement=judgement,
        )
        for (request, row), text, judgement in zip(whole, texts, judgements, strict=True)
    ]


def _text(tokenizer: Tokenizer, row: Drawn) -> str:
    return tokenizer.decode(row.ids[:-1] if row.ended else row.ids)


def _thinking_tokens(tokenizer: Tokenizer, row: Drawn, text: str) -> int:
    """Tokens between the markers; all there are if the thinking never ends."""
    end = tokenizer.special_tokens.get(THINK_END)
    thinking, reply = split_reasoning(text)
    if reply is None:
        length = len(row.ids)
    elif end in row.ids:
        length = len(row.ids) - 1 - row.ids[::-1].index(end)
    else:  # the marker was spelt out in ordinary tokens
        return len(tokenizer.encode(thinking or ""))
    opened = bool(row.ids) and row.ids[0] == tokenizer.special_tokens.get(THINK_BEGIN)
    return length - int(opened)
