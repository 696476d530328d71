"""What the fake server knows: accounts, conversations, runs by the clock. No network here."""

import hashlib
import itertools
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.web.recorded import Recording, recording_for

Json = dict[str, Any]
MODELS: list[Json] = [
    {
        "id": "rorqual-pocket",
        "title": "Rorqual Pocket",
        "context_length": 4096,
        "loaded": True,
        "thinking": True,
        "default": True,
        "fetchable": False,
        "stored": True,
        "bytes": 61_000_000,
        "fetch": None,
    },
    {
        "id": "rorqual-tiny",
        "title": "Rorqual Tiny",
        "context_length": 1024,
        "loaded": False,
        "thinking": False,
        "default": False,
        "fetchable": False,
        "stored": True,
        "bytes": 9_000_000,
        "fetch": None,
    },
]
FETCHABLE: Json = {
    "id": "smollm2",
    "title": "SmolLM2 135M Instruct",
    "context_length": 8192,
    "loaded": False,
    "thinking": False,
    "default": False,
    "fetchable": True,
    "stored": False,
    "bytes": 92_000_000,
    "fetch": None,
}
FAMILIES: list[Json] = [
    {
        "name": "arithmetic",
        "title": {"en": "Arithmetic", "zh": "算术"},
        "levels": [{"level": 1, "grade": "1-2"}, {"level": 2, "grade": "3-4"}],
    },
    {
        "name": "equations",
        "title": {"en": "Equations", "zh": "方程"},
        "levels": [{"level": 1, "grade": "7"}],
    },
]


def now_iso(days_ago: float = 0) -> str:
    return (datetime.now(UTC) - timedelta(days=days_ago)).isoformat().replace("+00:00", "Z")


@dataclass
class FakeRun:
    """A run is a list of events with the second at which each is due; a stop cuts it."""

    id: str
    message: Json
    events: list[tuple[float, str, Json]]
    started: float = field(default_factory=time.monotonic)
    refused_after: int | None = None

    def due(self, after: int) -> Iterator[tuple[int, str, Json]]:
        """Events after a sequence number whose time has come."""
        elapsed = time.monotonic() - self.started
        for seq, (at, kind, data) in enumerate(self.events, 1):
            if at > elapsed:
                return
            if seq > after:
                yield seq, kind, data

    def end(self, state: str) -> None:
        """Cut what is not yet due, and end."""
        elapsed = time.monotonic() - self.started
        kept = [event for event in self.events if event[0] <= elapsed]
        if kept and kept[-1][1] == "end":
            return
        last = {"state": state, "finish_reason": None, "usage": usage_of(kept), "error": None}
        self.events = [*kept, (elapsed, "end", last)]

    def text(self, name: str) -> str:
        return "".join(data.get(name) or "" for _, kind, data in self.events if kind == "delta")

    def snapshot(self) -> Json:
        """The message as the server would tell it now."""
        events = [(kind, data) for _, kind, data in self.due(0)]
        over = next((data for kind, data in events if kind == "end"), None)
        texts = {
            name: "".join(data.get(name) or "" for kind, data in events if kind == "delta")
            for name in ("reasoning", "content")
        }
        return {
            **self.message,
            **texts,
            "state": over["state"] if over else "streaming",
            "usage": over["usage"] if over else None,
            "error": None,
        }


def usage_of(events: list[tuple[float, str, Json]]) -> Json:
    deltas = [data for _, kind, data in events if kind == "delta"]
    thinking = sum("reasoning" in data for data in deltas)
    seconds = events[-1][0] if events else 0.0
    return {
        "prompt_tokens": 57,
        "cached_tokens": 32,
        "completion_tokens": len(deltas),
        "reasoning_tokens": thinking,
        "seconds": round(seconds, 3),
        "first_token_seconds": 0.21,
        "cost": 118_000 + 400 * len(deltas),
        "currency": "USD",
    }


def timed(recording: Recording, model: str) -> list[tuple[float, str, Json]]:
    at, events = 0.05, list[tuple[float, str, Json]]()
    for position, seconds in recording.queue:
        events.append((at, "queue", {"position": position, "seconds": seconds}))
        at += 0.8
    events.append((at, "start", {"model": model, "created": now_iso()}))
    at += 0.15
    for delta in recording.deltas():
        events.append((at, "delta", delta))
        at += 1 / recording.tokens_per_second
    over = {"state": "complete", "finish_reason": "stop", "usage": usage_of(events), "error": None}
    return [*events, (at, "end", over)]


class FakeState:
    """Everything in memory, behind one lock."""

    def __init__(self, mode: str = "local", attacker_port: int = 9) -> None:
        self.mode, self.attacker_port = mode, attacker_port
        self.lock = threading.RLock()
        self.level = "normal"
        self.users: dict[str, Json] = {"admin": {"id": "u-admin", "name": "admin", "role": "admin"}}
        self.sessions: dict[str, str] = {}
        self.conversations: dict[str, Json] = {}
        self.runs: dict[str, FakeRun] = {}
        self.keys: list[Json] = []
        self.fetch: Json | None = None  # how far FETCHABLE is; tests move it on
        self.is_fetched = False
        self._ids = itertools.count(1)

    def new_id(self, kind: str) -> str:
        return f"{kind}-{next(self._ids)}"

    def me(self, user: str | None) -> Json:
        return {
            "mode": self.mode,
            "user": self.users.get(user or ""),
            "registration": "open",
            "version": "0.9.0",
            "level": self.level,
        }

    def models(self) -> list[Json]:
        """What the one user of local mode is told; a platform's fake users are no admins."""
        if self.mode != "local":
            return MODELS
        if self.is_fetched:
            return [*MODELS, FETCHABLE | {"fetchable": False, "stored": True, "loaded": True}]
        return [*MODELS, FETCHABLE | {"fetch": self.fetch}]

    def create(self, title: str = "", days_ago: float = 0) -> Json:
        key = self.new_id("c")
        self.conversations[key] = {
            "id": key,
            "title": title,
            "updated": now_iso(days_ago),
            "model": MODELS[0]["id"],
            "messages": [],
        }
        return self.conversations[key]

    def add(
        self, conversation: Json, role: str, content: str, parent: str | None, **more: Any
    ) -> Json:
        message = {
            "id": self.new_id("m"),
            "parent_id": parent,
            "role": role,
            "content": content,
            "reasoning": None,
            "created": now_iso(),
            "run_id": None,
            "model": None,
            "state": "complete",
            "usage": None,
            "error": None,
            **more,
        }
        conversation["messages"].append(message)
        return message

    def start(self, conversation: Json, body: Json) -> Json:
        user_message, parent = None, body["parent_id"]
        if body["content"] is not None:
            user_message = self.add(conversation, "user", body["content"], parent)
            parent = user_message["id"]
            conversation["title"] = conversation["title"] or body["content"][:48]
        prompt = next(one["content"] for one in conversation["messages"] if one["id"] == parent)
        run_id = self.new_id("r")
        answer = self.add(
            conversation,
            "assistant",
            "",
            parent,
            run_id=run_id,
            model=body["model"],
            state="streaming",
        )
        recording = recording_for(prompt, body["thinking"], self.attacker_port)
        self.runs[run_id] = FakeRun(run_id, answer, timed(recording, body["model"]))
        conversation["updated"] = now_iso()
        return {"run_id": run_id, "user_message": user_message, "assistant_message": dict(answer)}

    def told(self, conversation: Json) -> Json:
        messages = [
            self.runs[one["run_id"]].snapshot() if one["run_id"] in self.runs else one
            for one in conversation["messages"]
        ]
        return {**conversation, "messages": messages}


def challenge() -> Json:
    return {
        "algorithm": "sha256",
        "challenge": "c1",
        "salt": "c1:",
        "difficulty": 14,
        "expires": now_iso(-1),
        "signature": "s",
    }


def is_solved(proof: Json) -> bool:
    digest = hashlib.sha256(f"c1:{proof['number']}".encode()).digest()
    return int.from_bytes(digest, "big") >> (256 - 14) == 0


def lab_series(run_id: str, after: int) -> Json:
    """Curves with the shapes that training has."""
    shift = 0.0 if run_id == "speedrun" else 0.35
    names: Json = {
        "train/loss": [],
        "validation/bits_per_byte": [],
        "reward": [],
        "length_tokens": [],
        "expert_load_max": [],
        "tokens_per_second": [],
    }
    for step in range(max(0, after + 1), 600):
        wave = math.sin(step * 12.9898) * 0.5
        loss = 1.6 + shift + 5.2 * math.exp(-step / 60) + 0.12 * wave
        names["train/loss"].append([step, loss])
        names["reward"].append(
            [step, 1 / (1 + math.exp(-(step - 260 - 300 * shift) / 70)) + 0.05 * wave]
        )
        names["length_tokens"].append(
            [step, 60 + 240 / (1 + math.exp(-(step - 300) / 80)) + 14 * wave]
        )
        names["expert_load_max"].append([step, 1.1 + 2.2 * math.exp(-step / 90) + 0.05 * wave])
        names["tokens_per_second"].append([step, 9400 + 500 * wave])
        if step % 25 == 0:
            names["validation/bits_per_byte"].append(
                [step, 0.98 + shift / 2 + 2.1 * math.exp(-step / 90)]
            )
    return {"series": names, "state": "done"}


def lab_samples(step: int) -> list[Json]:
    texts = {
        0: "th 4 4 a a x",
        200: "\\(12 + 30 = 41\\)\n\n\\boxed{41}",
        400: "12 + 30 = 42.\n\n$$\\boxed{42}$$",
    }
    return [
        {"prompt": "What is 12 + 30?", "text": texts[step], "answer": "42", "correct": step == 400}
    ]
