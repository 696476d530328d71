"""A claim from its file to its page; verdicts against values worked out by hand."""

import json
import shutil
from pathlib import Path

import pytest

from rorqual.cli.main import main
from rorqual.config.claim import list_claims
from rorqual.data.add import add_files
from rorqual.errors import ConfigError
from rorqual.planner import count_parameters
from rorqual.reproduce.figures import collect, compare, over_seeds
from rorqual.reproduce.logs import at_budget
from rorqual.reproduce.run import arm_flops, budgeted, claim_pipeline, load_claim

CLAIM = """
[claim]
statement = "Routing beats no routing"
statement_zh = "有路由更好"
source = "none"
base = "tiny"
settings = ["data.root={root}", "model.num_nextn_predict_layers=0", "train.num_threads=1"]
seeds = [1, 2]
flops = 1.2e9

[arms.moe]
title = "experts <b>"
title_zh = "专家"

[arms.dense]
title = "dense"
title_zh = "稠密"
settings = ["model.first_k_dense_replace=2"]
"""


@pytest.fixture
def claim_file(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for day in range(60):
        lines = [
            f"On day {day} the sea is {word} {n}." for n in range(9) for word in ("calm", "grey")
        ]
        (tmp_path / "text" / f"{day}.txt").write_text("\n".join(lines), encoding="utf-8")
    add_files(tmp_path / "data", [tmp_path / "text"], name="sea", language="en", licence="own")
    path = tmp_path / "routing.toml"
    path.write_text(CLAIM.format(root=tmp_path / "data"), encoding="utf-8")
    return path


def exit_code(monkeypatch: pytest.MonkeyPatch, claim: Path, out: Path, *more: str) -> int:
    """Of `rorqual reproduce` on this claim."""
    words = ["rorqual", "reproduce", str(claim), "--out", str(out), *more]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_a_claim_runs_resumes_and_is_judged(
    claim_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"

    def run(*more: str) -> int:
        return exit_code(monkeypatch, claim_file, out, *more)

    assert run() == 0
    first = capsys.readouterr().out
    assert first.startswith("| `rorqual reproduce routing` | Routing beats no routing | moe ")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "experts &lt;b&gt;" in page and "稠密" in page and "<svg" in page
    spent = {}
    for arm in ("moe", "dense"):
        record = json.loads((out / f"{arm}-1" / "config.json").read_text())
        spent[arm] = record["train"]["token_budget"]
    assert spent["moe"] != spent["dense"]  # equal FLOPs, not equal tokens

    shutil.rmtree(out / "dense-2")
    assert run("--collect") == 1
    assert "dense-2: has not run" in capsys.readouterr().err
    assert run() == 0  # only what is missing runs again
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("name", list_claims())
def test_every_claim_that_ships_loads_and_gives_its_arms_one_budget(name: str) -> None:
    claim = load_claim(name)
    if claim.claim.recipe is not None:
        assert len({claim_pipeline(claim, seed).recipe.seed for seed in claim.claim.seeds}) == 3
        return
    for arm in claim.arms:
        config = budgeted(claim, arm, 1)
        if claim.claim.flops is None:
            assert config.train.time_budget_seconds == claim.claim.seconds
            continue
        per_token = arm_flops(claim, arm, config)
        assert config.train.token_budget is not None
        assert config.train.token_budget * per_token == pytest.approx(claim.claim.flops, rel=1e-4)


@pytest.mark.parametrize("name", ["moe", "moe_time"])
def test_the_dense_arm_is_as_wide_as_what_is_active(name: str) -> None:
    claim = load_claim(name)
    moe, dense = (budgeted(claim, arm, 1).model for arm in ("moe", "dense"))
    active = count_parameters(moe).active_matmul, count_parameters(dense).active_matmul
    assert active[0] == pytest.approx(active[1], rel=0.01)


@pytest.mark.parametrize(
    ("favoured", "other", "mean", "half", "verdict"),
    [
        # Differences 1, 2, 3: deviation 1, t = 4.3027 at two degrees, half = 4.3027 / sqrt(3).
        ([1, 1, 1], [2, 3, 4], 2, 2.4841, "undecided"),
        ([1, 1, 1], [2.9, 3, 3.1], 2, 0.24841, "holds here"),
        ([2.9, 3, 3.1], [1, 1, 1], -2, 0.24841, "contradicted here"),
        # One degree: t = 12.7062, deviation of 1 and 3 is sqrt(2).
        ([0, 0], [1, 3], 2, 12.7062, "undecided"),
    ],
)
def test_verdicts_follow_the_interval_of_the_differences(
    favoured: list[float], other: list[float], mean: float, half: float, verdict: str
) -> None:
    compared = compare(favoured, other)
    assert compared.difference.mean == pytest.approx(mean)
    assert compared.difference.half == pytest.approx(half, rel=1e-4)
    assert compared.verdict == verdict


RECIPE = """
[recipe]
title = "r"

[[tasks]]
name = "running_state"
thinking = 0.3

[[stages]]
kind = "corpus"
name = "corpus"
[stages.corpus]
num_examples = 300

[[stages]]
kind = "pretrain"
name = "base"
[stages.model]
vocab_size = 512
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 1
num_attention_heads = 2
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 8
max_position_embeddings = 256
[stages.data]
root = "@corpus"
vocab_size = 512
digits = "single"
[stages.train]
token_budget = 8192
sequence_length = 128
sequences_per_step = 8
validation_fraction = 1.0

[[stages]]
kind = "distill"
name = "student"
[stages.distill]
method = "logits"
teacher = "@base"
student = "@base"
max_steps = 2
prompts_per_step = 1
samples_per_prompt = 2
max_completion_length = 16
eval_steps = 1
eval_problems = 4

[[stages]]
kind = "rl"
name = "zero"
[stages.rl]
model = "@base"
rewards = ["random"]
max_steps = {rl_steps}
prompts_per_step = 2
num_generations = 4
max_completion_length = 16
max_refills = 0
probe_problems = 0
eval_steps = 1
eval_problems = 4
stop_on_collapse = false
"""
TRANSFER = """
[claim]
statement = "A teacher beats a reward"
statement_zh = "老师胜过奖励"
source = "none"
recipe = "{recipe}"
measure = "errors"
seeds = [1, 2]

[arms.taught]
title = "taught"
title_zh = "被教"
stage = "student"

[arms.paid]
title = "paid"
title_zh = "被奖励"
stage = "{stage}"
"""


def transfer_claim(folder: Path, *, rl_steps: int, stage: str = "zero") -> Path:
    (folder / "recipe.toml").write_text(RECIPE.replace("{rl_steps}", str(rl_steps)))
    path = folder / "transfer.toml"
    path.write_text(TRANSFER.format(recipe=folder / "recipe.toml", stage=stage), encoding="utf-8")
    return path


def test_a_recipes_stages_are_compared_where_they_have_spent_as_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = transfer_claim(tmp_path, rl_steps=9), tmp_path / "out"

    def run(*more: str) -> int:
        return exit_code(monkeypatch, path, out, *more)

    assert run("--seed", "2") == 0
    said = capsys.readouterr()
    assert said.out == "" and "seed 2 is done" in said.err
    assert run("--collect") == 1  # seed 1 has not run
    assert "seed-1" in capsys.readouterr().err
    assert run("--seed", "5") == 2
    assert "it has 1, 2" in capsys.readouterr().err
    assert run() == 0
    assert capsys.readouterr().out.startswith("| `rorqual reproduce transfer` | A teacher beats")
    claim = load_claim(str(path))
    outcome = collect(claim, out)
    assert outcome.arms["taught"].flops == outcome.arms["paid"].flops > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "TFLOP" in page and "share of wrong answers" in page and "tokens</th>" not in page

    transfer_claim(tmp_path, rl_steps=1)
    for reward_alone in out.glob("seed-*/*-zero"):
        shutil.rmtree(reward_alone)
    assert run() == 1  # it is never compared with less
    assert "give it more steps" in capsys.readouterr().err


def test_between_two_evaluations_errors_change_evenly() -> None:
    curve = [(0.0, 0.0, 0.9), (2e12, 10.0, 0.5), (6e12, 40.0, 0.1)]
    found = at_budget("here", curve, 3e12)
    assert found.measures["errors"] == pytest.approx(0.4)
    assert (found.seconds, found.flops) == (pytest.approx(17.5), 3e12)
    assert at_budget("here", curve, 6e12).measures["errors"] == pytest.approx(0.1)


def test_a_stage_that_does_not_learn_from_problems_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no rl or distill stage"):
        load_claim(str(transfer_claim(tmp_path, rl_steps=1, stage="base")))
    text = (tmp_path / "transfer.toml").read_text().replace('stage = "student"', "")
    (tmp_path / "transfer.toml").write_text(text)
    with pytest.raises(ConfigError, match="stage goes with"):
        load_claim(str(tmp_path / "transfer.toml"))


def test_equal_values_have_no_spread() -> None:
    assert over_seeds([2.0, 2.0, 2.0]).half == 0


def test_a_claim_that_is_no_claim_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(CLAIM.replace("flops = 1.2e9", "flops = 1.2e9\nseconds = 3"))
    with pytest.raises(ConfigError, match="set one of flops, seconds and recipe"):
        load_claim(str(path))
    path.write_text(CLAIM.replace("first_k_dense_replace", "first_k_dense"))
    with pytest.raises(ConfigError, match="first_k_dense_replace"):
        load_claim(str(path))
