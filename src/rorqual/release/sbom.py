"""What a release is made of: a CycloneDX 1.6 bill of materials, from a checkout's own lock files.

Python packages of requirements/run.lock (those needed only to build are `excluded`), the web app's
packages of web/package-lock.json, the models under models/ file by file. The same checkout and
environment give the same bytes: no clock (SOURCE_DATE_EPOCH, if set, is the time) and no random id.
Licences of Python packages are as the installed ones state them, where the version is the locked.
"""

import base64
import json
import os
import re
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rorqual import __version__
from rorqual.errors import ConfigError
from rorqual.release.manifest import read_manifest

_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==(\S+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*")
_SELF = f"pkg:pypi/rorqual@{__version__}"

Part = dict[str, Any]


def write_sbom(source: Path, out: Path) -> int:
    """Write the bill of a checkout; how many parts it lists."""
    bill = bill_of_materials(source)
    out.write_text(json.dumps(bill, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(bill["components"])


def bill_of_materials(source: Path) -> dict[str, Any]:
    """The bill of a checkout, as JSON values."""
    project = tomllib.loads(_read(source / "pyproject.toml"))["project"]
    locked = list(_locked(_read(source / "requirements" / "run.lock")))
    children = _children(locked)
    extras: dict[str, list[str]] = project["optional-dependencies"]
    serving = [*project["dependencies"], *extras["serve"]]
    direct = sorted({_normal(name) for name in map(_bare_name, serving)})
    needed = _reachable(direct, children)
    purls = {name: f"pkg:pypi/{name}@{version}" for name, version, _, _ in locked}
    python = [
        _python_part(name, version, files, name in needed) for name, version, files, _ in locked
    ]
    web = _web_parts(json.loads(_read(source / "web" / "package-lock.json")))
    models = [_model_part(path) for path in sorted((source / "models").glob("*/")) if path.is_dir()]
    parts = [*python, *web, *models]
    graph = {
        _SELF: [purls[name] for name in direct] + [part["bom-ref"] for part in (*web, *models)]
    }
    graph |= {purls[name]: [purls[child] for child in children[name]] for name in children}
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": _about(project),
        "components": parts,
        "dependencies": [{"ref": ref, "dependsOn": sorted(to)} for ref, to in graph.items()],
    }
    identity = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bill, sort_keys=True))
    return bill | {"serialNumber": identity.urn}


def _about(project: Mapping[str, Any]) -> dict[str, Any]:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    time = (
        {} if epoch is None else {"timestamp": datetime.fromtimestamp(int(epoch), UTC).isoformat()}
    )
    return time | {
        "component": {
            "type": "application",
            "bom-ref": _SELF,
            "name": project["name"],
            "version": project["version"],
            "description": project["description"],
            "licenses": [{"license": {"id": project["license"]}}],
            "purl": _SELF,
        }
    }


def _locked(text: str) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Of every pin: name, version, the SHA-256 of its files, and who asks for it."""
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        found = _PIN.match(block.lstrip())
        if found is None:
            continue
        _, _, via = block.partition("# via")
        asking = [_normal(word) for word in re.findall(r"^[ #]*([\w.-]+)(?: \(.*\))?$", via, re.M)]
        yield _normal(found[1]), found[2], sorted(_HASH.findall(block)), asking


def _children(locked: Iterable[tuple[str, str, list[str], list[str]]]) -> dict[str, list[str]]:
    """What every locked package asks for, by the comments of the lock file."""
    children: dict[str, list[str]] = {name: [] for name, _, _, _ in locked}
    for name, _, _, asking in locked:
        for parent in asking:
            if parent in children:
                children[parent].append(name)
    return children


def _reachable(roots: Iterable[str], children: Mapping[str, list[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += children.get(name, [])
    return seen


def _python_part(name: str, version: str, files: list[str], needed: bool) -> Part:
    purl = f"pkg:pypi/{name}@{version}"
    part: Part = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "scope": "required" if needed else "excluded",
        "purl": purl,
        # Any one of these files is the package: a wheel for each platform, and the sources.
        "externalReferences": [
            {
                "type": "distribution",
                "url": purl,
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in files],
            }
        ],
    }
    return part | _licence(name, version)


def _licence(name: str, version: str) -> Part:
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return {}
    expression = about["License-Expression"] if "License-Expression" in about else None
    if about["Version"] != version or expression is None:
        return {}
    return {"licenses": [{"expression": expression}]}


def _web_parts(lock: Mapping[str, Any]) -> list[Part]:
    """Packages that the web app is built from and carries; its tools are `dev` and left out."""
    parts: list[Part] = []
    for path, entry in sorted(lock["packages"].items()):
        if not path or entry.get("dev"):
            continue
        name = path.rpartition("node_modules/")[2]
        purl = f"pkg:npm/{name.replace('@', '%40')}@{entry['version']}"
        algorithm, _, digest = entry["integrity"].partition("-")
        part: Part = {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": entry["version"],
            "scope": "required",
            "hashes": [
                {
                    "alg": algorithm.upper().replace("SHA", "SHA-"),
                    "content": base64.b64decode(digest).hex(),
                }
            ],
            "purl": purl,
        }
        if "license" in entry:
            part["licenses"] = [{"expression": entry["license"]}]
        parts.append(part)
    return parts


def _model_part(path: Path) -> Part:
    reference = f"model:{path.name}"
    manifest = read_manifest(path)
    return {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": path.name,
        "scope": "required",
        "components": [
            {
                "type": "file",
                "bom-ref": f"{reference}/{name}",
                "name": name,
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
            for name, digest in manifest.files.items()
        ],
    }


def _bare_name(requirement: str) -> str:
    found = _NAME.match(requirement)
    assert found is not None, f"not a requirement: {requirement!r}"
    return found[0]


def _normal(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name a checkout") from error
