"""The bill of materials, against the schema that CycloneDX publishes."""

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from rorqual.errors import ConfigError
from rorqual.release.sbom import bill_of_materials, write_sbom

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    write_sbom(ROOT, tmp_path / "bill.json")
    return (tmp_path / "bill.json").read_text(encoding="utf-8")


def test_it_is_valid_cyclonedx_and_the_schema_would_tell(bill: str) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(bill) is None
    broken = json.loads(bill)
    broken["components"][0]["type"] = "librarry"
    assert validator.validate_str(json.dumps(broken)) is not None


def test_every_locked_package_is_listed_once_with_its_hashes(bill: str) -> None:
    parts = json.loads(bill)["components"]
    locked = [
        line.split(" ")[0].split("==")
        for line in (ROOT / "requirements/run.lock").read_text().splitlines()
        if "==" in line
    ]
    python = {part["name"]: part for part in parts if part["bom-ref"].startswith("pkg:pypi/")}
    assert {(name, part["version"]) for name, part in python.items()} == {
        (name, version) for name, version in locked
    }
    assert all(part["externalReferences"][0]["hashes"] for part in python.values())
    assert python["starlette"]["scope"] == "required" == python["pydantic-core"]["scope"]
    assert python["cmake"]["scope"] == "excluded"
    references = [part["bom-ref"] for part in parts]
    assert len(references) == len(set(references))


def test_what_depends_on_what_is_known(bill: str) -> None:
    read = json.loads(bill)
    graph = {entry["ref"]: entry["dependsOn"] for entry in read["dependencies"]}
    known = {part["bom-ref"] for part in read["components"]}
    assert {ref for to in graph.values() for ref in to} <= known
    own = graph[read["metadata"]["component"]["bom-ref"]]
    assert any(ref.startswith("pkg:pypi/cryptography@") for ref in own)
    assert any(ref.startswith("pkg:npm/preact@") for ref in own)
    (child,) = [ref for ref in graph if ref.startswith("pkg:pypi/pydantic@")]
    assert any(ref.startswith("pkg:pypi/pydantic-core@") for ref in graph[child])


def test_tools_of_the_web_app_are_left_out_and_models_are_in(bill: str) -> None:
    parts = {part["name"]: part for part in json.loads(bill)["components"]}
    assert "vite" not in parts
    files = {file["name"] for file in parts["rorqual-pocket"]["components"]}
    assert {"model.safetensors", "tokenizer_config.json"} <= files


def test_the_same_checkout_gives_the_same_bytes(bill: str, tmp_path: Path) -> None:
    write_sbom(ROOT, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text(encoding="utf-8") == bill


def test_a_folder_that_is_no_checkout_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a checkout"):
        bill_of_materials(tmp_path)
