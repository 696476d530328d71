"""Sampling and scoring, with scripted answers whose figures are known, and with a real model."""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rorqual.checkpoint import load_model
from rorqual.config.eval import EvalSampling
from rorqual.config.tasks import TaskShare
from rorqual.errors import CapacityError, DataError
from rorqual.eval import (
    evaluate,
    evaluation_table,
    find_group,
    held_out_problems,
    open_tasks,
    summarize,
)
from rorqual.eval.items import Item, judge
from rorqual.eval.run import Sampler, prompt_ids
from rorqual.model import sample_completions
from rorqual.tasks import Problem, Task, list_tasks, load_task
from rorqual.tokenizer import Tokenizer
from tests.eval.conftest import Script

TASKS: dict[str, Task] = {"running_state": load_task("running_state")}
SAMPLING = EvalSampling(samples_per_problem=4, max_new_tokens=200)


def worked(problem: Problem) -> str:
    solution = load_task(problem.task).solve(problem, random.Random(0))
    return solution.completion(thinking=True)


def off_by_one(problem: Problem) -> str:
    return f"\\boxed{{{(int(problem.answer) + 1) % 10}}}"


def mixed(problem: Problem, idx: int) -> str:
    """Two thought out and right, one wrong, one that says nothing."""
    return (worked(problem), off_by_one(problem), worked(problem), "?")[idx]


def run(
    tokenizer: Tokenizer,
    problems: list[Problem],
    reply: Callable[[Problem, int], str],
    sampling: EvalSampling = SAMPLING,
) -> list[Item]:
    script = Script(tokenizer, problems, reply)
    return list(evaluate(None, tokenizer, problems, TASKS, sampling, sampler=script).items)


def test_figures_are_those_of_the_script(tokenizer: Tokenizer, problems: list[Problem]) -> None:
    items = run(tokenizer, problems, mixed)
    groups = summarize(items)
    whole = groups[0]
    assert (whole["problems"], whole["samples"], whole["correct"]) == (8, 32, 16)
    assert whole["pass@1"] == 0.5 and whole["maj@k"] == 1.0 and whole["mean_reward"] == 0.5
    assert whole["pass@2"] == pytest.approx(1 - 1 / 6) and whole["pass@4"] == 1.0
    assert whole["share_thinking"] == 0.5 and whole["share_without_answer"] == 0.25
    assert whole["share_truncated"] == 0.0
    assert whole["reasons"] == {"correct": 16, "no answer": 8, "wrong answer": 8}
    lengths = [item.num_tokens for item in items]
    assert whole["mean_length"] == sum(lengths) / 32
    zh = find_group(groups, task="running_state", level=2, language="zh")
    assert (zh["problems"], zh["pass@1"]) == (2, 0.5)
    with pytest.raises(KeyError):
        find_group(groups, level=1)


def test_thinking_length_is_what_stands_between_the_markers(
    tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    for item in run(tokenizer, problems, mixed):
        if not item.judgement.thinks:
            assert item.thinking_tokens == 0
            continue
        inner = item.text.removeprefix("<think>").partition("</think>")[0]
        assert item.thinking_tokens == len(tokenizer.encode(inner))
        assert item.thinking_tokens < item.num_tokens


def test_truncated_thinking_counts_as_thinking_without_answer(
    tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    short = EvalSampling(samples_per_problem=1, max_new_tokens=6)
    whole = summarize(run(tokenizer, problems, lambda p, i: worked(p), short))[0]
    assert whole["share_truncated"] == whole["share_without_answer"] == 1.0
    assert whole["share_thinking"] == 1.0 and whole["mean_thinking_length"] == 5
    assert whole["reasons"] == {"thinking never ends": 8}


def test_empty_thinking_is_not_thinking(tokenizer: Tokenizer, problems: list[Problem]) -> None:
    empty = f"<think>\n\n</think>\n\n{off_by_one(problems[0])}"
    whole = summarize(run(tokenizer, problems[:1], lambda p, i: empty))[0]
    assert whole["share_thinking"] == 0.0 and whole["mean_thinking_length"] is None


def test_an_interrupted_evaluation_is_completed_to_the_same_items(
    tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    script = Script(tokenizer, problems, mixed)
    logged: list[Item] = []

    def go(done: list[Item], stop_after: int) -> list[Item]:
        logged.clear()
        found = evaluate(
            None,
            tokenizer,
            problems,
            TASKS,
            SAMPLING,
            sampler=script,
            done=done,
            on_items=logged.extend,
            should_stop=lambda: len(logged) >= stop_after,
            rows_per_batch=5,
        )
        assert found.finished == (stop_after > 32)
        return list(found.items)

    first = go([], stop_after=10)
    assert len(first) == 10 and script.calls == [5, 5]
    rest = go(first, stop_after=99)
    assert script.calls[2:] == [5, 5, 5, 5, 2] and len(logged) == 22

    def untimed(items: list[Item]) -> list[Item]:
        return [dataclasses.replace(item, seconds=0.0) for item in items]

    assert untimed(rest) == untimed(run(tokenizer, problems, mixed))


def test_completions_cut_by_the_interrupt_are_dropped(
    tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    stopped: list[bool] = []
    script = Script(tokenizer, problems, mixed, during=lambda: stopped.append(True))

    def cut(*args, **options):
        rows = script(*args, **options)
        for row in rows[::2]:
            row.ids, row.ended = row.ids[:3], False
        return rows

    found = evaluate(
        None,
        tokenizer,
        problems,
        TASKS,
        SAMPLING,
        sampler=cut,
        should_stop=lambda: bool(stopped),
    )
    assert len(found.items) == 16 and not found.finished
    assert all(item.ended for item in found.items)


def test_forced_thinking_belongs_to_the_completion(
    tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    forced = EvalSampling(samples_per_problem=1, max_new_tokens=200, thinking=True)

    def continuation(problem: Problem, idx: int) -> str:
        return worked(problem).removeprefix("<think>\n")

    script = Script(tokenizer, problems, continuation)
    items = evaluate(None, tokenizer, problems, TASKS, forced, sampler=script).items
    assert all(tokenizer.decode(prompt).endswith("<think>\n") for prompt in script.prompts)
    assert all(item.text == worked(item.problem) for item in items)
    assert all(item.judgement.correct and item.judgement.thinks for item in items)
    for item in items:
        inner = item.text.removeprefix("<think>\n").partition("</think>")[0]
        assert item.thinking_tokens == len(tokenizer.encode(inner))


def test_thinking_never_ending_after_a_forced_opening_is_wrong(
    tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    forced = EvalSampling(samples_per_problem=1, max_new_tokens=200, thinking=True)
    items = run(tokenizer, problems, lambda p, i: f"\\boxed{{{p.answer}}}", forced)
    assert not any(item.judgement.correct for item in items)


def test_without_thinking_the_prompt_closes_it_empty(
    tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    ids, opening = prompt_ids(tokenizer, problems[0], thinking=False)
    assert tokenizer.decode(ids).endswith("<｜Assistant｜><think>\n\n</think>\n\n")
    assert opening == "<think>\n\n</think>\n\n"
    free, nothing = prompt_ids(tokenizer, problems[0], thinking=None)
    assert tokenizer.decode(free).endswith("<｜Assistant｜>") and nothing == ""


def test_a_marker_in_the_question_opens_nothing(tokenizer: Tokenizer) -> None:
    problem = Problem("running_state", 1, "en", "What does <think>", "1", "k")
    assert prompt_ids(tokenizer, problem, thinking=None)[1] == ""


def test_samples_differ_in_seed_and_do_not_depend_on_the_set(
    tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    every = {item.key: item.seed for item in run(tokenizer, problems, mixed)}
    assert len(set(every.values())) == 32
    some = {item.key: item.seed for item in run(tokenizer, problems[5:], mixed)}
    assert some.items() <= every.items()


def test_a_task_that_raises_is_named(tokenizer: Tokenizer, problems: list[Problem]) -> None:
    class Broken(type(TASKS["running_state"])):
        def score(self, problem: Problem, completion: str):
            raise ZeroDivisionError("oops")

    broken: dict[str, Task] = {"running_state": Broken()}
    script = Script(tokenizer, problems, mixed)
    with pytest.raises(DataError, match=r"running_state cannot score .*oops"):
        evaluate(None, tokenizer, problems, broken, SAMPLING, sampler=script)


def test_scoring_in_threads_keeps_the_order_and_says_what_is_missing(
    tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    class Threaded(type(TASKS["running_state"])):
        uses_sandbox = True
        usable = True

        def score(self, problem: Problem, completion: str):
            if not self.usable:
                raise CapacityError("no sandbox on this machine")
            return super().score(problem, completion)

    task = Threaded()
    script = Script(tokenizer, problems, mixed)
    found = evaluate(None, tokenizer, problems, {task.name: task}, SAMPLING, sampler=script)
    plain = run(tokenizer, problems, mixed)
    assert [i.judgement for i in found.items] == [i.judgement for i in plain]
    task.usable = False
    with pytest.raises(CapacityError, match="no sandbox"):
        evaluate(None, tokenizer, problems, {task.name: task}, SAMPLING, sampler=script)


def test_sets_that_make_no_sense_are_refused(tokenizer: Tokenizer, problems: list[Problem]) -> None:
    script = Script(tokenizer, problems, mixed)
    with pytest.raises(DataError, match="twice"):
        evaluate(None, tokenizer, [problems[0], problems[0]], TASKS, SAMPLING, sampler=script)
    with pytest.raises(DataError, match="running_state"):
        evaluate(None, tokenizer, problems, {}, SAMPLING, sampler=script)


def test_an_item_survives_its_line_of_json(tokenizer: Tokenizer, problems: list[Problem]) -> None:
    for item in run(tokenizer, problems, mixed):
        assert Item.from_json(json.loads(json.dumps(item.to_json()))) == item
    changed = item.to_json()
    changed["problem"] = {**changed["problem"], "key": "another"}
    with pytest.raises(DataError, match="hashes to"):
        Item.from_json(changed)


def test_the_table_shows_every_cell_and_escapes(
    tokenizer: Tokenizer, problems: list[Problem]
) -> None:
    summary = {
        "finished": True,
        "eval": SAMPLING.model_dump(),
        "groups": summarize(run(tokenizer, problems, mixed)),
    }
    table = evaluation_table(summary)
    # The header; all, two languages, the task, two levels, four cells.
    assert table.count("<tr>") == 1 + 10
    assert "50.0 %" in table and "Interrupted" not in table
    summary["groups"][0]["task"] = "<b>"
    assert "<b>" not in evaluation_table(summary | {"finished": False})


def test_the_real_sampler_gives_the_same_items_in_any_batch(
    tokenizer: Tokenizer, problems: list[Problem], model_path: Path
) -> None:
    model = load_model(model_path).eval()
    sampling = EvalSampling(samples_per_problem=3, max_new_tokens=12, temperature=0.7)
    sampler: Sampler = sample_completions
    texts: list[list[str]] = []
    for rows in (24, 7):
        found = evaluate(
            model,
            tokenizer,
            problems,
            TASKS,
            sampling,
            sampler=sampler,
            rows_per_batch=rows,
        )
        assert found.finished and all(0 < item.num_tokens <= 12 for item in found.items)
        texts.append([item.text for item in found.items])
    assert texts[0] == texts[1] and len(set(texts[0])) > 12


@pytest.mark.parametrize("name", list_tasks())
def test_every_task_scores_the_same_from_the_log(name: str, tokenizer: Tokenizer) -> None:
    with open_tasks([TaskShare(name=name)]) as tasks:
        if tasks[name].uses_sandbox:
            pytest.skip("runs programs; the sandbox has tests of its own")
        asked = held_out_problems([TaskShare(name=name)], 6, seed=0)
        script = Script(tokenizer, asked, lambda p, i: worked(p))
        sampling = EvalSampling(samples_per_problem=1, max_new_tokens=2000)
        items = evaluate(None, tokenizer, asked, tasks, sampling, sampler=script).items
        for item in items:
            assert item.judgement.correct, item
            logged = Item.from_json(json.loads(json.dumps(item.to_json())))
            assert judge(tasks[name], logged.problem, logged.text) == item.judgement
