"""The Lab: run folders as they are written, and recipes started from the app."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from rorqual.checkpoint import ended_by
from rorqual.errors import RequestError
from rorqual.platform import NotFound
from rorqual.server.app.bodies import EmptyBody, LabRunBody
from rorqual.server.endpoints import Endpoint
from rorqual.server.identity import admin_asker, app_asker
from rorqual.server.replies import json_reply
from rorqual.server.services import Services
from rorqual.server.times import iso
from rorqual.server.wire.fields import FieldTable, read_json

_RUNS: Final = FieldTable(LabRunBody)
_MAX_RUNS: Final = 500
_BETWEEN: Final = "~"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MAX_POINTS: Final = 2000
_MAX_TAIL_BYTES: Final = 32 << 20
_FRESH_SECONDS: Final = 120.0
_KINDS: Final = ("train", "sft", "rl", "distill", "eval", "recipe")


class LabApi:
    """Handlers of /api/lab."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._folder = Path(services.config.lab.runs_folder)
        self._process: asyncio.subprocess.Process | None = None
        self._running: str | None = None

    def endpoints(self) -> list[Endpoint]:
        """Their routes."""
        one = "/api/lab/runs/{id}"
        after = {"after": {"type": "integer"}}
        step = {"step": {"type": "integer"}}
        return [
            Endpoint("GET", "/api/lab/runs", self.runs, "Run folders."),
            Endpoint("POST", "/api/lab/runs", self.start, "Starts a recipe.", LabRunBody),
            Endpoint("GET", one, self.run, "Configuration and findings."),
            Endpoint("GET", f"{one}/metrics", self.metrics, "Series.", query=after),
            Endpoint("GET", f"{one}/samples", self.samples, "What it wrote.", query=step),
            Endpoint("POST", f"{one}/stop", self.stop, "Ends it.", EmptyBody),
        ]

    async def runs(self, request: Request) -> Response:
        """Every run, newest first."""
        await app_asker(self._services, request)
        return json_reply({"runs": await self._services.call(self._list)})

    async def run(self, request: Request) -> Response:
        """A run's configuration and what its doctor found."""
        await app_asker(self._services, request)
        path = self._path(request)

        def read() -> dict[str, Any]:
            rows = _rows(path / "metrics.jsonl")
            findings = [row for row in rows if row.get("kind") == "finding"]
            return {"config": _json(path / "config.json"), "findings": findings}

        return json_reply(await self._services.call(read))

    async def metrics(self, request: Request) -> Response:
        """Figures by step."""
        await app_asker(self._services, request)
        path, after = self._path(request), _number(request, "after")

        def read() -> dict[str, Any]:
            return {"series": series(path / "metrics.jsonl", after), "state": self._state(path)}

        return json_reply(await self._services.call(read))

    async def samples(self, request: Request) -> Response:
        """What the model wrote at a step, the last one if none is named."""
        await app_asker(self._services, request)
        path, step = self._path(request), _number(request, "step")
        return json_reply(await self._services.call(samples, path, step))

    async def start(self, request: Request) -> Response:
        """Starts a recipe; one at a time."""
        await admin_asker(self._services, request)
        body, _ = _RUNS.read(read_json(await request.body()))
        if body.preset not in self._services.config.lab.presets:
            raise RequestError(
                f"preset={body.preset!r} may not be started from here; one of "
                f"{', '.join(self._services.config.lab.presets) or 'none (see lab.presets)'}",
                param="preset",
            )
        if any(not _is_override(text) for text in body.overrides):
            raise RequestError("overrides: expected section.key=value", param="overrides")
        if self._process is not None and self._process.returncode is None:
            raise RequestError(f"run {self._running} is under way; stop it first", code="busy")
        name = f"{body.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rorqual.cli.main", "speedrun", "--preset", body.preset,
            "--out", str(self._folder / name), *body.overrides,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self._running = name
        return json_reply({"id": name})

    async def stop(self, request: Request) -> Response:
        """Ends the run that was started from here; it saves itself first."""
        await admin_asker(self._services, request)
        name = request.path_params["id"]
        if name != self._running or self._process is None:
            raise NotFound("this run was not started from here")
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
        return json_reply({"state": "stopped"})

    def _list(self) -> list[dict[str, Any]]:
        if not self._folder.is_dir():
            return []
        found: list[dict[str, Any]] = []
        for path in self._folder.iterdir():
            # A recipe is a folder of runs; its stages are listed, not itself.
            for run in (path, *(path.iterdir() if path.is_dir() else ())):
                if run.is_dir() and not run.is_symlink() and (run / "config.json").is_file():
                    found.append(self._line(run))
        found.sort(key=lambda line: str(line["updated"]), reverse=True)
        return found[:_MAX_RUNS]

    def _line(self, path: Path) -> dict[str, Any]:
        metrics = path / "metrics.jsonl"
        last = last_line(metrics)
        moment = (metrics if metrics.is_file() else path).stat().st_mtime
        return {
            "id": path.relative_to(self._folder).as_posix().replace("/", _BETWEEN),
            "kind": _kind(_json(path / "config.json")),
            "title": path.relative_to(self._folder).as_posix(),
            "state": self._state(path),
            "step": last.get("step"),
            "updated": iso(moment),
        }

    def _state(self, path: Path) -> str:
        ended = ended_by(path)
        if ended is not None or (path / "done.json").is_file():
            return "stopped" if (ended or "").startswith("SIG") else "done"
        metrics = path / "metrics.jsonl"
        fresh = metrics.is_file() and time.time() - metrics.stat().st_mtime < _FRESH_SECONDS
        mine = self._running == path.name and self._process is not None
        alive = mine and self._process is not None and self._process.returncode is None
        return "running" if fresh or alive else "stopped"

    def _path(self, request: Request) -> Path:
        """The run's folder: one or two names below the folder of runs, nothing else."""
        name = request.path_params["id"]
        parts = name.split(_BETWEEN)
        path = self._folder.joinpath(*parts)
        known = len(parts) <= 2 and all(_NAME.fullmatch(part) for part in parts)
        if not known or path.is_symlink() or not path.is_dir():
            raise NotFound(f"run {name[:100]} does not exist; list the runs")
        return path


def series(path: Path, after: int | None) -> dict[str, list[list[float]]]:
    """Every figure as [step, value] pairs, thinned out to what a chart can show."""
    found: dict[str, list[list[float]]] = {}
    for row in _rows(path):
        step = row.get("step")
        if not isinstance(step, int) or (after is not None and step <= after):
            continue
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(name, []).append([step, value])
    return {name: _thinned(points) for name, points in found.items()}


def samples(path: Path, step: int | None) -> dict[str, Any]:
    """The steps that have samples, and those of one step."""
    rows = _rows(path / "samples.jsonl")
    steps = sorted({row["step"] for row in rows if isinstance(row.get("step"), int)})
    wanted = step if step is not None else (steps[-1] if steps else None)
    chosen = [
        {
            "prompt": row.get("prompt", ""),
            "text": row.get("continuation", row.get("text", "")),
            "answer": row.get("answer"),
            "correct": row.get("correct"),
        }
        for row in rows
        if row.get("step") == wanted
    ]
    return {"steps": steps, "samples": chosen}


def last_line(path: Path) -> dict[str, Any]:
    """The last whole row of a log, {} if there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 65_536))
            lines = [line for line in file.read().splitlines() if line.startswith(b"{")]
    except OSError:
        return {}
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            return json.loads(line)
    return {}


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TAIL_BYTES)
    except OSError:
        return []
    rows: list[dict[str, Any]] = []
    for line in data.splitlines():
        with contextlib.suppress(ValueError):  # the last one may be half written
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def _thinned(points: list[list[float]]) -> list[list[float]]:
    if len(points) <= _MAX_POINTS:
        return points
    step = len(points) / _MAX_POINTS
    return [points[int(index * step)] for index in range(_MAX_POINTS - 1)] + [points[-1]]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _kind(config: Any) -> str:
    sections = config if isinstance(config, dict) else {}
    return next((kind for kind in reversed(_KINDS) if kind in sections), "run")


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None or text == "":
        return None
    if not (text.isascii() and text.lstrip("-").isdigit() and len(text) < 19):
        raise RequestError(f"{name}: expected a number", param=name)
    return int(text)


def _is_override(text: str) -> bool:
    """`section.key=value`: nothing that a command line could take for an option."""
    name, equals, _ = text.partition("=")
    return bool(equals) and name.replace(".", "").replace("_", "").isalnum() and "." in name
