"""`rorqual plan`, and the pages of docs/ that promise what it prints."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rorqual.cli.plan import plan
from rorqual.config.plan import read_plan
from rorqual.config.presets import find_preset
from rorqual.errors import ConfigError
from rorqual.planner import press_claims

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {"en": DOCS / "claims.md", "zh": DOCS / "claims.zh.md"}
CHINESE_VERDICTS = {
    "holds": "成立",
    "holds with a caveat": "有保留地成立",
    "does not hold": "不成立",
    "cannot be checked": "无法核实",
}

app = typer.Typer()
app.command()(plan)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def documented_commands() -> list[str]:
    text = "\n".join(page.read_text("utf-8") for page in PAGES.values())
    found = re.findall(r"^rorqual plan .+$|(?<=`)rorqual plan [^`\n]+(?=`)", text, re.MULTILINE)
    return sorted({command.strip() for command in found})


def test_plan_v3_prints_values_published_figures_and_errors():
    output = run("v3")
    for text in ("671.03B", "250.45 GFLOP", "$5,576,000", "70.27 KB", "-36.43 %", "V3 report"):
        assert text in output


def test_json_holds_every_figure_with_its_error():
    content = json.loads(run("v3", "--json"))
    figures = {figure["key"]: figure for figure in content["figures"]}
    assert content["name"] == "v3"
    assert figures["parameters_total"]["value"] == 671_026_419_200
    assert figures["train_flops_per_token"]["published"]["value"] == 250e9
    assert abs(figures["train_flops_per_token"]["error_percent"]) < 0.5
    assert figures["decode_flops_per_token"]["published"] is None
    assert figures["decode_flops_per_token"]["error_percent"] is None
    assert all(figure["formula"] for figure in figures.values())


def test_overrides_reach_the_plan():
    content = json.loads(run("v3", "plan.gpu=H200", "plan.num_gpus=1024", "--json"))
    assert any(figure["section"] == "Training on H200" for figure in content["figures"])


def test_plan_imports_neither_torch_nor_transformers():
    code = (
        "import sys; import rorqual.cli.plan; "
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"


def test_unknown_names_and_gpus_raise_config_errors():
    for arguments in (["v33"], ["v3", "plan.gpu=TPU"]):
        with pytest.raises(ConfigError):
            CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_claims_of_another_model_point_at_v3():
    with pytest.raises(ConfigError, match="rorqual plan v3 --claims"):
        CliRunner().invoke(app, ["v2-lite", "--claims"], catch_exceptions=False)


def test_claims_recompute_the_published_ratios():
    claims = {
        claim["key"]: claim for claim in json.loads(run("v3", "--claims", "--json"))["claims"]
    }
    assert "= $5,576,000" in claims["usd_5576k"]["recomputed"]
    assert "-0.05 %" in claims["usd_5573k"]["recomputed"]
    assert "-1.36 %" in claims["usd_5500k"]["recomputed"]
    assert "$5,870,000" in claims["usd_under_6m"]["recomputed"]
    assert "input 3.67 %, output 3.65 %" in claims["o1_4_percent"]["recomputed"]
    assert "input 1/27.3, output 1/27.4" in claims["o1_one_thirtieth"]["recomputed"]
    # (1.46 + 7.0 + 30.84)M / 2.664M, / 2.788M; 30.84M / 2.788M; 3.791e25 / 3.707e24 FLOP.
    for ratio in ("14.75", "14.10", "11.06", "10.2"):
        assert ratio in claims["llama3_15_trainings"]["recomputed"]
    assert "$2.544B" in claims["servers_2600m"]["recomputed"]


@pytest.mark.parametrize("command", documented_commands())
def test_documented_command_runs(command: str):
    words = shlex.split(command)
    assert words[:2] == ["rorqual", "plan"]
    assert run(*words[2:]).strip()


@pytest.mark.parametrize("language", PAGES)
def test_docs_give_every_claim_its_verdict_its_numbers_and_a_command(language: str):
    text = PAGES[language].read_text("utf-8")
    for claim in press_claims(*read_plan(find_preset("v3"))):
        verdict = CHINESE_VERDICTS[claim.verdict] if language == "zh" else claim.verdict
        assert re.search(rf"^\| [^|]+ \| {verdict} \| `{claim.key}` \|$", text, re.MULTILINE)
        section = text.split(f"`{claim.key}`")[2].split("\n## ")[0]
        assert "`rorqual plan v3" in section
        if claim.key.startswith(("o1_", "llama3_")):
            for number in re.findall(r"\d+\.\d+", claim.recomputed):
                assert number in section, (claim.key, number)
