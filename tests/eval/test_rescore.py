"""The log of an evaluation: complete, continued, and scored again to the same numbers."""

import json
import random
from pathlib import Path

import pytest

from rorqual.config.eval import EvalConfig, EvalRunConfig
from rorqual.errors import ConfigError, DataError
from rorqual.eval import EvalFolder, evaluate, open_tasks, rescore
from rorqual.tasks import Problem, load_task
from rorqual.tokenizer import Tokenizer
from tests.eval.conftest import SHARES, Script

CONFIG = EvalRunConfig(eval=EvalConfig(samples_per_problem=3, num_problems=8), tasks=SHARES)
ABOUT = {"model": "m", "model_sha256": {"model.safetensors": "00"}, "version": "0"}


def reply(problem: Problem, idx: int) -> str:
    """Right, wrong, and a separator that some line splitters take for an end of line."""
    solution = load_task(problem.task).solve(problem, random.Random(0))
    return (solution.completion(thinking=True), "\\boxed{12}", "a\u2028b\x85c\r\nd")[idx]


@pytest.fixture
def folder(tokenizer: Tokenizer, problems: list[Problem], tmp_path: Path) -> EvalFolder:
    folder = EvalFolder(tmp_path / "eval")
    done = folder.open(CONFIG, ABOUT)
    script = Script(tokenizer, problems, reply)
    with open_tasks(CONFIG.tasks) as tasks:
        found = evaluate(
            None,
            tokenizer,
            problems,
            tasks,
            CONFIG.eval,
            sampler=script,
            done=done,
            on_items=folder.append,
            rows_per_batch=5,
        )
    folder.conclude(found)
    return folder


def edit(folder: EvalFolder, number: int, **changes: object) -> None:
    path = folder.path / "items.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[number] = json.dumps({**json.loads(lines[number]), **changes}, ensure_ascii=False)
    path.write_text("\n".join(lines), encoding="utf-8")


def test_scoring_again_gives_the_same_number_to_the_last_bit(folder: EvalFolder) -> None:
    result = rescore(folder)
    assert result.differences == () and result.num_items == 24
    assert result.summary == folder.read_summary()
    assert result.summary["groups"][0]["pass@1"] == pytest.approx(1 / 3)
    assert result.summary["finished"] and result.summary["about"] == ABOUT


def test_the_log_holds_what_scoring_needs(folder: EvalFolder) -> None:
    lines = (folder.path / "items.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    line = json.loads(lines[0])
    assert line["problem"]["prompt"] and line["seed"] >= 0 and line["reason"]
    assert line["sampling"] == CONFIG.eval.model_dump(include=set(line["sampling"]))
    assert {json.loads(line)["text"] for line in lines} >= {"a\u2028b\x85c\r\nd"}


def test_a_changed_score_is_found(folder: EvalFolder) -> None:
    edit(folder, 4, reward=0.5)
    (difference,) = rescore(folder).differences
    assert "reward=0.5" in difference


def test_a_changed_text_is_found(folder: EvalFolder) -> None:
    edit(folder, 0, text="\\boxed{99}")
    assert len(rescore(folder).differences) == 1


def test_a_dropped_item_is_found(folder: EvalFolder) -> None:
    path = folder.path / "items.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join(lines[1:]), encoding="utf-8")
    (difference,) = rescore(folder).differences
    assert "summary.json" in difference


def test_a_summary_that_was_improved_is_found(folder: EvalFolder) -> None:
    path = folder.path / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["groups"][0]["pass@1"] = 0.9
    path.write_text(json.dumps(summary), encoding="utf-8")
    (difference,) = rescore(folder).differences
    assert "summary.json" in difference


def test_a_torn_last_line_is_dropped_and_drawn_again(folder: EvalFolder) -> None:
    path = folder.path / "items.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:-30], encoding="utf-8")
    assert len(folder.open(CONFIG, ABOUT)) == 23
    assert path.read_text(encoding="utf-8").count("\n") == 23


def test_another_model_or_setting_is_refused(folder: EvalFolder) -> None:
    with pytest.raises(ConfigError, match="seed=0, got seed=5"):
        other = CONFIG.eval.model_copy(update={"seed": 5})
        folder.open(CONFIG.model_copy(update={"eval": other}), ABOUT)
    with pytest.raises(ConfigError, match="other tasks"):
        folder.open(CONFIG.model_copy(update={"tasks": SHARES * 2}), ABOUT)
    with pytest.raises(ConfigError, match="another model"):
        folder.open(CONFIG, ABOUT | {"model_sha256": {"model.safetensors": "01"}})
    assert len(folder.open(CONFIG, ABOUT | {"model": "moved"})) == 24


def test_a_folder_without_evaluation_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config\.json"):
        rescore(EvalFolder(tmp_path))
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"summary\.json.*finished"):
        rescore(EvalFolder(tmp_path))


def test_a_line_that_is_no_item_is_named(folder: EvalFolder) -> None:
    path = folder.path / "items.jsonl"
    path.write_text('{"problem_id": 1}\n' + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(DataError, match=r"items\.jsonl line 1"):
        rescore(folder)
