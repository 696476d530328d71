"""The engine in its own process: same answers, clean failures, restart, no orphans."""

import asyncio
import os
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest
from uvicorn.loops.auto import auto_loop_factory

from rorqual.config.http import WatchConfig
from rorqual.engine import Delta, Request, SamplingParams, TokenLogprobs, Usage
from rorqual.engine.structure import Structure
from rorqual.errors import EngineError, RequestError
from rorqual.server.backends import EngineBackend, ModelInfo, ProcessLink
from rorqual.server.backends.frames import (
    FrameReader,
    delta_from_json,
    delta_to_json,
    error_from_json,
    error_to_json,
    pack,
    request_from_json,
    request_to_json,
)
from rorqual.tokenizer import Tokenizer
from tests.server.conftest import MODEL, Running, ServerFactory

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 300,
       "thinking": {"type": "disabled"}}  # fmt: skip
LONG = "The whale swims in the wide ocean. " * 12


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().split()[2] != "Z"


def wait_until(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.05)


def make_link(**settings: object) -> ProcessLink:
    command = (sys.executable, "-m", "tests.server.scripted_worker")
    watch = WatchConfig(restart_seconds=0.05, silence_seconds=3)
    return ProcessLink({"answers": {}, "pause": 0} | settings, watch, command=command)


@pytest.fixture(scope="module")
def link() -> ProcessLink:
    return make_link(answers={"long": LONG}, pause=0.02, hang=True)


@pytest.fixture(scope="module")
def server(start_server: ServerFactory, tokenizer: Tokenizer, link: ProcessLink) -> Running:
    info = ModelInfo(MODEL, "Whale", 512, "choice", 0, 0)
    backend = EngineBackend(info, tokenizer, link, {"temperature": 0.0})
    one = start_server(backends={MODEL: backend})
    wait_until(lambda: link.state == "ready")
    return one


def test_it_answers_as_an_engine_in_the_process_does(server: Running) -> None:
    with server.http as http:
        answer = http.post("/v1/chat/completions", json=ASK).json()
        formed = http.post(
            "/v1/chat/completions",
            json=ASK | {"response_format": {"type": "json_schema", "json_schema": {
                "name": "x", "schema": {"const": 7}}}},
        ).json()  # fmt: skip
        wrong = http.post("/v1/chat/completions", json=ASK | {"stop_token_ids": [99999]})
    assert answer["choices"][0]["message"]["content"] == "The whale sings."
    assert formed["choices"][0]["message"]["content"] == "7"
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "stop_token_ids"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGUSR1], ids=["killed", "silent"])
def test_a_dead_engine_fails_its_requests_and_comes_back(
    server: Running, link: ProcessLink, how: signal.Signals
) -> None:
    wait_until(lambda: link.state == "ready")
    restarts, pid = link.num_restarts, link.pid
    assert pid is not None
    lines: list[str] = []
    messages = [{"role": "user", "content": "long"}]
    with (
        server.http as http,
        http.stream(
            "POST", "/v1/chat/completions", json=ASK | {"messages": messages, "stream": True}
        ) as answer,
    ):
        for line in answer.iter_lines():
            lines.append(line)
            if len(lines) == 6:
                os.kill(pid, how)
    texts = [line for line in lines if line.startswith("data: ")]
    assert texts[-1] == "data: [DONE]" and '"error"' in texts[-2]
    wait_until(lambda: link.num_restarts > restarts and link.state == "ready")
    assert not alive(pid) and server.platform.admission.stats().num_running == 0
    test_it_answers_as_an_engine_in_the_process_does(server)


def test_a_cancelled_request_leaves_the_engine(server: Running, link: ProcessLink) -> None:
    wait_until(lambda: link.state == "ready")
    messages = [{"role": "user", "content": "long"}]
    with (
        server.http as http,
        http.stream(
            "POST", "/v1/chat/completions", json=ASK | {"messages": messages, "stream": True}
        ) as answer,
    ):
        next(answer.iter_lines())
    wait_until(lambda: link.stats is not None and link.stats.num_running == 0, 10)
    assert link.stats is not None and link.stats.num_cancelled >= 1


def test_a_request_in_the_moment_of_death_gets_its_end() -> None:
    """Between the end of the socket and our noticing it a write would raise (uvloop)."""

    async def ask_through_a_death() -> tuple[int, list[Delta]]:
        link, found, number = make_link(), list[Delta](), 0
        await link.start()
        while link.state != "ready":
            await asyncio.sleep(0.02)
        assert link.pid is not None
        os.kill(link.pid, signal.SIGKILL)
        while link.num_restarts == 0:
            params = SamplingParams(max_tokens=1)
            link.submit(Request(id=f"r{number}", prompt_ids=[5], params=params), found.extend)
            link.cancel(f"r{number}")
            number += 1
            await asyncio.sleep(0)
        await link.stop()
        return number, found

    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        number, found = runner.run(ask_through_a_death())
    assert number > 10 and len({delta.request_id for delta in found}) == number


def test_the_engine_ends_with_its_server(start_server: ServerFactory, tokenizer: Tokenizer) -> None:
    link = make_link()
    info = ModelInfo(MODEL, "Whale", 512, "choice", 0, 0)
    one = start_server(backends={MODEL: EngineBackend(info, tokenizer, link, {})})
    wait_until(lambda: link.state == "ready")
    pid = link.pid
    assert pid is not None
    with one.http as http:
        thread = threading.Thread(target=one.stop)
        assert http.get("/ready").status_code == 200
        thread.start()
    thread.join()
    wait_until(lambda: not alive(pid), 10)


def test_requests_and_deltas_survive_the_wire() -> None:
    params = SamplingParams(
        n=2, temperature=0.5, stop=("a", "\n"), logit_bias={3: 1.5}, stop_token_ids=(4, 5), seed=7,
        structure=Structure.json_object(), thinking_budget=3, logprobs=2,
    )  # fmt: skip
    request = Request(id="r", prompt_ids=[1, 2], params=params, cache_salt=b"\x00\xff",
                      deadline=1234.5)  # fmt: skip
    (sent,) = FrameReader().feed(pack(request_to_json(request)))
    assert request_from_json(sent) == request
    plain = Delta("r", 0, [5], "text", "thought")
    full = replace(
        plain,
        logprobs=[TokenLogprobs(5, -0.5, ((5, -0.5), (6, -1.0)))],
        finish_reason="stop",
        stop_reason="a",
        usage=Usage(1, 2, 3, 4),
        prompt_logprobs=[None, TokenLogprobs(1, -2.0, ())],
    )
    first = replace(plain, cached_tokens=0)
    for delta in (plain, first, full, replace(full, cached_tokens=16)):
        (sent,) = FrameReader().feed(pack(delta_to_json(delta)))
        assert delta_from_json(sent) == delta
    error = RequestError("no", code="c", param="p")
    back = error_from_json(error_to_json(error))
    assert isinstance(back, RequestError) and (back.code, back.param) == ("c", "p")
    assert isinstance(error_from_json(error_to_json(EngineError("x"))), EngineError)
    assert replace(request, id="s") != request


def test_frames_come_whole_however_they_are_cut() -> None:
    data = pack({"a": "ü"}) + pack([1, 2]) + pack("鲸\ud800")
    for size in (1, 3, 7, len(data)):
        reader = FrameReader()
        found = [f for i in range(0, len(data), size) for f in reader.feed(data[i : i + size])]
        assert found == [{"a": "ü"}, [1, 2], "鲸\ud800"]
