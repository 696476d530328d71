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
from rorqual.reproduce.figures import compare, over_seeds
from rorqual.reproduce.run import budgeted, load_claim
from rorqual.train.run_loop import flops_per_token

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


def test_a_claim_runs_resumes_and_is_judged(
    claim_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"

    def run(*more: str) -> int:
        words = ["rorqual", "reproduce", str(claim_file), "--out", str(out), *more]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0)

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
    for arm in claim.arms:
        config = budgeted(claim, arm, 1)
        if claim.claim.flops is None:
            assert config.train.time_budget_seconds == claim.claim.seconds
            continue
        per_token = flops_per_token(config.model, config.train.sequence_length)
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


def test_equal_values_have_no_spread() -> None:
    assert over_seeds([2.0, 2.0, 2.0]).half == 0


def test_a_claim_that_is_no_claim_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(CLAIM.replace("flops = 1.2e9", "flops = 1.2e9\nseconds = 3"))
    with pytest.raises(ConfigError, match="set one of flops and seconds"):
        load_claim(str(path))
    path.write_text(CLAIM.replace("first_k_dense_replace", "first_k_dense"))
    with pytest.raises(ConfigError, match="first_k_dense_replace"):
        load_claim(str(path))
