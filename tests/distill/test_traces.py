"""Rejection sampling: what is kept, in which form, and that nothing is asked twice."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rorqual.config.distill import DistillRunConfig
from rorqual.distill import DistillProgress
from rorqual.distill.asking import Asking
from rorqual.distill.traces import TraceSource, Written
from rorqual.errors import DataError
from rorqual.interrupt import StopRequest
from rorqual.model import sample_completions
from rorqual.rl.rollout import prompt_ids
from rorqual.tasks import Problem, load_task
from rorqual.tokenizer import Tokenizer
from rorqual.train import RunFolder
from rorqual.train.samples import read_samples
from tests.distill.conftest import StopAt, opened, run_config, steps_of

Reply = Callable[[Problem, int], tuple[str, bool]]


class Scripted:
    """Writes `reply(problem, sample)`: a text and whether it ended."""

    def __init__(self, asking: Asking, reply: Reply):
        self.size, self.reply = asking.config.samples_per_prompt, reply
        self.asked: list[Problem] = []

    def write(self, problems: Sequence[Problem], batch: int) -> Written:
        self.asked += problems
        rows = [(problem, sample) for problem in problems for sample in range(self.size)]
        texts, ended = zip(*(self.reply(*row) for row in rows), strict=True)
        return Written([p for p, _ in rows], list(texts), list(ended), 100, 10, 1)


def source(
    config: DistillRunConfig, folder: Path, tokenizer: Tokenizer, reply: Reply
) -> tuple[TraceSource, Scripted]:
    tasks = {"running_state": load_task("running_state")}
    asking = Asking(config, tasks, tokenizer, sample_completions)
    teacher = Scripted(asking, reply)
    folder.mkdir(exist_ok=True)
    return TraceSource(RunFolder(folder), teacher, asking, 256), teacher


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "traces.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def never() -> bool:
    return False


def silent(message: str) -> None:
    pass


def four_replies(problem: Problem, sample: int) -> tuple[str, bool]:
    """Thought out; the same with other spaces; wrong; right but cut off."""
    box = f"\\boxed{{{problem.answer}}}"
    return [
        (f"<think>\nso {problem.answer}\n</think>\n\n{box}", True),
        (f"<think>so {problem.answer}</think>{box}\n", True),
        ("\\boxed{x}", True),
        (box, False),
    ][sample]


def test_only_right_finished_and_different_traces_are_kept(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config = run_config(tmp_path, tmp_path, method="traces", max_completion_length=40)
    traces, teacher = source(config, tmp_path / "run", tokenizer, four_replies)
    done = traces.prepare(never, silent)
    assert done is not None
    assert (done.figures["samples"], done.figures["right"]) == (160, 80)
    assert done.figures["kept"] == len({problem.prompt for problem in teacher.asked})
    assert done.spent.teacher_sampling == 20 * 100 and done.figures["too_long"] == 0
    for row in rows(tmp_path / "run"):
        user, reply = row["messages"]
        assert user["role"] == "user" and reply["content"].startswith("\\boxed{")
        assert reply["reasoning_content"].startswith("so ")
    assert not any(problem.held_out for problem in teacher.asked)


def test_traces_per_problem_caps_what_one_problem_gives(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def all_different(problem: Problem, sample: int) -> tuple[str, bool]:
        return f"way {sample}: \\boxed{{{problem.answer}}}", True

    config = run_config(
        tmp_path, tmp_path, method="traces", traces_per_problem=3, max_completion_length=40
    )
    traces, _ = source(config, tmp_path / "run", tokenizer, all_different)
    traces.prepare(never, silent)
    counts = Counter(row["messages"][0]["content"] for row in rows(tmp_path / "run"))
    assert set(counts.values()) == {3}


def test_sft_reads_the_file_and_the_tokens_are_those_of_a_rollout(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config = run_config(tmp_path, tmp_path, method="traces", max_completion_length=40)
    traces, teacher = source(config, tmp_path / "run", tokenizer, four_replies)
    traces.prepare(never, silent)
    samples = list(read_samples(tmp_path / "run" / "traces.jsonl"))
    assert [sample.messages for sample in samples] == [
        r["messages"] for r in rows(tmp_path / "run")
    ]
    problem = teacher.asked[0]
    prompt, completion = traces.sequences[0]
    assert prompt == prompt_ids(tokenizer, problem, "free")
    text = four_replies(problem, 0)[0]
    assert completion == [*tokenizer.encode_with_special(text), tokenizer.eos_token_id]


def test_forced_thinking_keeps_no_trace_without_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def direct(problem: Problem, sample: int) -> tuple[str, bool]:
        return f"\\boxed{{{problem.answer}}}", True

    config = run_config(tmp_path, tmp_path, method="traces", thinking="forced")
    traces, _ = source(config, tmp_path / "run", tokenizer, direct)
    with pytest.raises(DataError, match="none of the teacher's 160 answers"):
        traces.prepare(never, silent)


def test_traces_longer_than_the_student_may_write_are_left_out(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def long_first(problem: Problem, sample: int) -> tuple[str, bool]:
        return ("so " * 30 if sample == 0 else "") + f"\\boxed{{{problem.answer}}}", True

    config = run_config(tmp_path, tmp_path, method="traces", max_completion_length=16)
    traces, _ = source(config, tmp_path / "run", tokenizer, long_first)
    done = traces.prepare(never, silent)
    assert done is not None
    assert done.figures["too_long"] == done.figures["traces"] == done.figures["kept"] // 2
    assert all(len(completion) <= 16 for _, completion in traces.sequences)


def test_every_trace_comes_once_an_epoch(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = run_config(tmp_path, tmp_path, method="traces", max_completion_length=40)
    traces, _ = source(config, tmp_path / "run", tokenizer, four_replies)
    traces.prepare(never, silent)
    size = len(traces.sequences)
    student: Any = None
    drawn: list[list[int]] = []
    for step in range(2 * size // 8 + 1):
        drawn += traces.draw(student, step, torch.float32).prompts
    for begin in (0, size):
        epoch = drawn[begin : begin + size]
        assert sorted(epoch) == sorted(prompt for prompt, _ in traces.sequences)
    assert drawn[:size] != drawn[size : 2 * size]


def test_an_interrupted_collection_goes_on_without_asking_again(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config = run_config(tmp_path, tmp_path, method="traces", max_completion_length=40)
    whole, teacher = source(config, tmp_path / "whole", tokenizer, four_replies)
    whole.prepare(never, silent)

    first, early = source(config, tmp_path / "parts", tokenizer, four_replies)
    assert first.prepare(lambda: len(early.asked) >= 10, silent) is None
    with (tmp_path / "parts" / "traces.jsonl").open("a") as file:
        file.write('{"messages": "written by a process that was killed"')
    second, late = source(config, tmp_path / "parts", tokenizer, four_replies)
    done = second.prepare(never, silent)
    assert done is not None and done.figures["samples"] == 160
    assert [p.key for p in early.asked + late.asked] == [p.key for p in teacher.asked]
    files = [(tmp_path / name / "traces.jsonl").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_a_run_stopped_while_asking_is_resumed_to_the_same_student(
    teacher_path: Path, student_path: Path, tmp_path: Path
) -> None:
    config = run_config(teacher_path, student_path, method="traces")
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    ended = opened(config, whole).run(StopRequest(), DistillProgress(4, enabled=False))
    assert ended.ended_by == "done" and ended.summary["flops"]["teacher_sampling"] > 0

    stop = StopRequest()
    stopped = opened(config, parts).run(stop, StopAt(stop, messages=3))
    assert (stopped.step, stopped.ended_by, stopped.best) == (0, "SIGTERM", None)
    again = opened(config, parts).run(StopRequest(), DistillProgress(4, enabled=False))
    assert steps_of(parts) == steps_of(whole) and steps_of(parts, "eval") == steps_of(whole, "eval")
    assert again.summary["tokens"] == ended.summary["tokens"]
    files = [path / "model.safetensors" for path in (ended.checkpoint, again.checkpoint)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_changed_traces_are_refused_on_resume(
    teacher_path: Path, student_path: Path, tmp_path: Path
) -> None:
    config, folder = run_config(teacher_path, student_path, method="traces"), RunFolder(tmp_path)
    stop = StopRequest()
    opened(config, folder).run(stop, StopAt(stop, step=2))
    file = tmp_path / "traces.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[::-1]), encoding="utf-8")
    with pytest.raises(DataError, match="traces have changed"):
        opened(config, folder).run(StopRequest(), DistillProgress(4, enabled=False))
    file.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match="bring the file back"):
        opened(config, folder).run(StopRequest(), DistillProgress(4, enabled=False))
