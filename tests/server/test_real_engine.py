"""The shipped path end to end: model files, the engine's own process, HTTP, a signal to end."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rorqual.config.server import ServerConfig
from rorqual.engine.llm import LLM
from rorqual.engine.requests import SamplingParams
from rorqual.platform import Platform
from tests.server.served import Served, all_gone

SHIPPED = Path(__file__).parents[2] / "models" / "rorqual-pocket"
MESSAGES = [{"role": "user", "content": "What does the whale do?"}]


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(model, tmp_path_factory.mktemp("serve"))
    yield served
    served.close()


# By route: a long answer's request, and the tokens that an event of its stream delivers.
LONG_ANSWERS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], int]]] = {
    "/v1/completions": (
        {"prompt": "whale", "max_tokens": 400, "ignore_eos": True, "logprobs": 0},
        lambda event: len(event["choices"][0]["logprobs"]["tokens"]),
    ),
    "/v1/responses": (
        {"input": "whale", "max_output_tokens": 400, "temperature": 0,
         "reasoning": {"effort": "none"}, "include": ["message.output_text.logprobs"]},
        lambda event: len(event["logprobs"])
        if event["type"] == "response.output_text.delta"
        else 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("route", LONG_ANSWERS)
def test_a_killed_server_has_billed_what_it_delivered(
    model: Path, tmp_path: Path, route: str
) -> None:
    extra = """mode = "platform"
unsigned_models = "served"
[metering]
flush_tokens = 4
heartbeat_seconds = 0.2
dead_after_seconds = 1.0
[[prices]]
model = "tiny"
cache_hit = 1
input = 10
output = 100
"""
    served = Served(model, tmp_path, extra)
    config = ServerConfig.model_validate(
        {"mode": "platform", "database": {"url": served.database}, "metering": {"flush_tokens": 4}}
    )
    platform = Platform.open(config)
    user = platform.accounts.create("killed", None)
    platform.ledger.top_up(user.id, 10**12, "first")
    key = platform.keys.create(user.id, "k").secret
    delivered = 0
    children = served.children()
    body, count = LONG_ANSWERS[route]
    try:
        with served.http.stream(
            "POST", route, json=body | {"stream": True}, headers={"x-api-key": key}
        ) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    delivered += count(json.loads(line[6:]))
                if delivered >= 20:
                    served.process.kill()
    except httpx.HTTPError:
        pass
    served.process.wait()
    assert all_gone(children), "the engine outlives its server"
    served.start()
    until = time.monotonic() + 30
    while platform.ledger.balance(user.id).reserved_nano and time.monotonic() < until:
        time.sleep(0.2)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    (row,) = platform.usage.by_day(user.id, "2000-01-01", max(today, "2999-01-01"))
    assert 20 <= delivered <= row.counts.output_tokens <= delivered + 2 * 4
    assert platform.usage.audit() == []
    assert platform.ledger.balance(user.id).reserved_nano == 0
    platform.close()
    served.close()


def test_a_served_answer_is_the_library_s(server: Served, model: Path) -> None:
    answer = server.http.post(
        "/v1/chat/completions",
        json={"messages": MESSAGES, "max_tokens": 12, "temperature": 0,
              "thinking": {"type": "disabled"}, "logprobs": True},
    ).json()  # fmt: skip
    with LLM(model, precision="fp32", max_cache_bytes=16 << 20, num_threads=1) as llm:
        params = SamplingParams(temperature=0, max_tokens=12, logprobs=0)
        (expected,) = llm.chat(MESSAGES, params, thinking=False)
    choice = answer["choices"][0]
    assert choice["message"]["content"] == expected.outputs[0].text
    found = [entry["logprob"] for entry in choice["logprobs"]["content"]]
    assert expected.outputs[0].logprobs is not None
    wanted = [entry.logprob for entry in expected.outputs[0].logprobs]
    assert found == pytest.approx(wanted[: len(found)], abs=1e-6)


def test_a_signal_lets_the_answer_end_and_leaves_nothing_behind(server: Served) -> None:
    process, children = server.process, server.children()
    with server.http.stream(
        "POST",
        "/v1/completions",
        json={"prompt": "whale", "max_tokens": 40, "ignore_eos": True, "stream": True},
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]" and '"error"' not in rest[-2]
    assert process.wait(60) in (0, -signal.SIGTERM)
    assert children and all_gone(children)
    events = [json.loads(line) for line in (server.folder / "log").read_text().splitlines()
              if line.startswith("{")]  # fmt: skip
    assert all("whale do" not in json.dumps(event) for event in events) and events


def test_metrics_say_how_many_drafts_were_right(tmp_path: Path) -> None:
    served = Served(SHIPPED, tmp_path, engine="num_speculative_tokens = 1")
    try:
        question = [{"role": "user", "content": "Compute 17 + 25 - 8."}]
        body = {"messages": question, "max_tokens": 120, "temperature": 0}
        assert served.http.post("/v1/chat/completions", json=body).status_code == 200
        found = {
            figure: float(line.rpartition(" ")[2])
            for line in served.http.get("/metrics").text.splitlines()
            for figure in ("drafted_tokens", "accepted_tokens")
            if line.startswith("rorqual_engine{") and f'figure="{figure}"' in line
        }
        assert 0 < found["accepted_tokens"] <= found["drafted_tokens"]
    finally:
        served.close()
