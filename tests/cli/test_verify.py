"""`rorqual verify` and `rorqual release` as one types them, over the model that ships."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rorqual.cli.main import build_app
from rorqual.errors import ConfigError, RorqualError
from rorqual.eval import EvalFolder
from rorqual.eval.folder import ITEMS, SUMMARY

ROOT = Path(__file__).resolve().parents[2]
POCKET = ROOT / "models" / "rorqual-pocket"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(arguments[0]), list(arguments))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The shipped model with a log of few lines, unsigned."""
    copy = tmp_path / "pocket"
    shutil.copytree(POCKET, copy)
    (copy / "model.sig").unlink(missing_ok=True)
    shutil.rmtree(copy / "evaluation", ignore_errors=True)
    return copy


@pytest.fixture
def signed(model: Path, tmp_path: Path) -> Path:
    """Signed with a key that exists for this test; its public half lies in keys/."""
    made = run("release", "sign", str(model), "--once", "test", "--keys", str(tmp_path / "keys"))
    assert made.exit_code == 0, made.output
    return model


def verify(model: Path, tmp_path: Path, *more: str) -> Result:
    return run("verify", str(model), "--key", str(tmp_path / "keys" / "test.pem"), *more)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_signed_model_is_verified_with_digest_and_fingerprint(
    signed: Path, tmp_path: Path
) -> None:
    result = verify(signed, tmp_path, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["verified"] and said["signature"]["state"] == "signed" and not said["problems"]
    for figure in ("digest", "fingerprint"):
        assert len(said["signature"][figure]) == 64
        assert said["signature"][figure] in verify(signed, tmp_path).stdout
    (pem,) = (tmp_path / "keys").iterdir()
    summed = subprocess.run(["sha256sum", pem], capture_output=True, text=True, check=True)
    assert summed.stdout.split()[0] == said["signature"]["fingerprint"]


@pytest.mark.parametrize(
    ("name", "place"), [("model.safetensors", -1), ("tokenizer_config.json", 400)]
)
def test_one_flipped_byte_is_named(name: str, place: int, signed: Path, tmp_path: Path) -> None:
    """In a weight, and in the chat template."""
    flip(signed / name, place)
    result = verify(signed, tmp_path)
    assert result.exit_code == 1
    assert f"PROBLEM      {name} was changed" in result.stdout and "NOT verified" in result.stdout


def test_unsigned_and_unknown_models_are_not_verified(
    model: Path, signed: Path, tmp_path: Path
) -> None:
    by_package = run("verify", str(signed))
    assert by_package.exit_code == 1 and "signed by an unknown key" in by_package.stdout
    (signed / "model.sig").unlink()
    unsigned = verify(signed, tmp_path)
    assert unsigned.exit_code == 1 and "unsigned" in unsigned.stdout


def test_a_tensor_that_is_missing_is_named_even_without_a_signature(model: Path) -> None:
    (model / "config.json").write_text(
        (model / "config.json")
        .read_text()
        .replace('"num_hidden_layers": ', '"num_hidden_layers": 1')
    )
    result = run("verify", str(model))
    assert result.exit_code == 1 and "model.layers." in result.stdout


def test_nothing_to_verify_is_a_usage_error(tmp_path: Path) -> None:
    for arguments in (["nothing"], ["nothing", "--key", str(tmp_path / "none.pem")]):
        result = run("verify", str(tmp_path / arguments[0]), *arguments[1:])
        assert isinstance(result.exception, ConfigError) and result.exception.exit_code == 2


def add_log(model: Path, lines: int) -> Path:
    """The first lines of the committed log, and the summary that follows from them."""
    shutil.copytree(POCKET / "evaluation", model / "evaluation")
    folder = EvalFolder(model / "evaluation")
    log = folder.path / ITEMS
    log.write_text("".join(log.read_text("utf-8").splitlines(keepends=True)[:lines]), "utf-8")
    summary = folder.rescored_summary(folder.read_items())
    (folder.path / SUMMARY).write_text(json.dumps(summary))
    return model


@pytest.fixture
def with_log(model: Path) -> Path:
    """With lines of every task."""
    return add_log(model, 60)


def test_logs_are_scored_again_and_a_changed_score_is_named(with_log: Path) -> None:
    honest = json.loads(run("verify", str(with_log), "--json").stdout)
    assert (honest["items_scored_again"], honest["logs"]) == (60, ["evaluation"])
    assert [problem.split(":")[0] for problem in honest["problems"]] == ["unsigned"]
    log = with_log / "evaluation" / "items.jsonl"
    log.write_text(
        log.read_text("utf-8").replace('"correct": true', '"correct": false', 1), "utf-8"
    )
    result = run("verify", str(with_log))
    assert result.exit_code == 1 and "evaluation/items.jsonl: " in result.stdout


def test_a_changed_summary_is_named(with_log: Path) -> None:
    summary = with_log / "evaluation" / "summary.json"
    read = json.loads(summary.read_text())
    read["groups"][0]["pass@1"] = 1.0
    summary.write_text(json.dumps(read))
    assert "summary.json does not follow" in run("verify", str(with_log)).stdout


def test_one_flipped_byte_of_a_log_is_named(with_log: Path, tmp_path: Path) -> None:
    """By the signature: where it changes no score, scoring again could not tell."""
    run("release", "sign", str(with_log), "--once", "test", "--keys", str(tmp_path / "keys"))
    assert verify(with_log, tmp_path).exit_code == 0
    log = with_log / "evaluation" / "items.jsonl"
    flip(log, log.read_bytes().index(b"<think>") + 9)
    result = verify(with_log, tmp_path)
    assert result.exit_code == 1
    assert "PROBLEM      evaluation/items.jsonl was changed" in result.stdout


def test_the_log_of_another_model_is_named(with_log: Path) -> None:
    flip(with_log / "model.safetensors", -1)
    said = run("verify", str(with_log)).stdout
    assert "evaluation is an evaluation of another model.safetensors" in said


def test_a_log_cannot_make_verify_run_its_own_code(with_log: Path, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    (with_log / "task.py").write_text(f"open({str(witness)!r}, 'w')")
    config = with_log / "evaluation" / "config.json"
    read = json.loads(config.read_text())
    read["tasks"][0]["name"] = f"{with_log / 'task.py'}:Task"
    config.write_text(json.dumps(read))
    result = run("verify", str(with_log))
    assert result.exit_code == 1 and "not scored again" in result.stdout
    assert not witness.exists()


def test_an_evaluation_can_be_verified_by_itself(with_log: Path) -> None:
    assert run("verify", str(with_log / "evaluation")).exit_code == 0


def test_a_key_is_rotated_by_the_old_one(model: Path, tmp_path: Path) -> None:
    keys, old, new = tmp_path / "keys", tmp_path / "old.pem", tmp_path / "new.pem"
    for arguments in (
        ["key", "first", "--private", str(old)],
        ["rotate", "second", "--private", str(new), "--old-key", str(old)],
    ):
        made = run("release", *arguments, "--keys", str(keys))
        assert made.exit_code == 0, made.output
    assert run("release", "sign", str(model), "--key", str(new)).exit_code == 0
    trusting_first = ("verify", str(model), "--key", str(keys / "first.pem"))
    assert run(*trusting_first).exit_code == 1
    accepted = run(*trusting_first, "--rotations", str(keys))
    assert accepted.exit_code == 0 and "signed by second" in accepted.stdout
    assert old.stat().st_mode & 0o077 == 0 == new.stat().st_mode & 0o077


def test_signing_needs_one_key_and_keeps_no_secret(model: Path, tmp_path: Path) -> None:
    keys = ("--keys", str(tmp_path / "keys"))
    for arguments in ([], ["--key", "k.pem", "--once", "x"], ["--once", "../x"]):
        result = run("release", "sign", str(model), *arguments, *keys)
        assert isinstance(result.exception, ConfigError), result.output
        assert not (model / "model.sig").exists()
    assert run("release", "sign", str(model), "--once", "x", *keys).exit_code == 0
    again = run("release", "sign", str(model), "--once", "x", *keys)
    assert "is there already" in str(again.exception)
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"PRIVATE KEY" in path.read_bytes() for path in everything)


def test_verifying_and_signing_never_import_torch() -> None:
    code = "import sys, rorqual.cli.verify, rorqual.cli.release; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_no_damage_is_a_traceback_or_verified(model: Path, tmp_path: Path) -> None:
    """Bytes flipped, cut out and put in, in every file that is parsed."""
    add_log(model, 12)  # as much of it as is damaged
    run("release", "sign", str(model), "--once", "test", "--keys", str(tmp_path / "keys"))
    rng = random.Random(9)
    files = sorted(path for path in model.rglob("*") if path.is_file())
    for _ in range(60):
        path = rng.choice(files)
        original = path.read_bytes()
        place = rng.randrange(min(len(original), 8000))
        cut = rng.choice((0, 1, 40))
        put = rng.choice((bytes([original[place] ^ 1]), b"null", b'"', b"1e999"))
        damaged = original[:place] + put + original[place + max(cut, 1) :]
        damaged = rng.choice((damaged, damaged, damaged, b"", b"[]", b"7"))
        if damaged == original:
            continue
        path.write_bytes(damaged)
        result = verify(model, tmp_path)
        path.write_bytes(original)
        at = f"{path.name} at {place}: {result.output}"
        assert isinstance(result.exception, SystemExit | RorqualError | None), at
        # What stands in the signature's file outside of what is signed may be anything.
        assert result.exit_code == 1 or path.name == "model.sig", at
    assert verify(model, tmp_path).exit_code == 0
