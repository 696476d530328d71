"""A request ends by its deadline: refused while it waits, cut off while it runs, billed for what
was delivered."""

import threading
import time

import httpx
import pytest
from sqlalchemy import select

from rorqual.platform.tables import generations
from tests.server.conftest import MODEL, Running, ServerFactory, new_key, scripted_backend
from tests.server.scripted import ScriptRunner, make_tokenizer

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 300,
       "ignore_eos": True}  # fmt: skip


@pytest.fixture(scope="module")
def server(start_server: ServerFactory) -> Running:
    """A step takes 20 ms; two requests are admitted, one of them runs in the engine."""
    tokenizer = make_tokenizer()
    runner = ScriptRunner(tokenizer, {}, pause=lambda: time.sleep(0.02))
    backend = scripted_backend(tokenizer, runner, max_num_seqs=1)
    limits = {"max_running": 2, "max_running_per_account": 2, "max_queued": 8}
    return start_server(mode="platform", backends={MODEL: backend}, admission=limits)


def ask(server: Running, key: str, seconds: float | str | None, **fields: object):
    headers = {"authorization": f"Bearer {key}"}
    if seconds is not None:
        headers["x-rorqual-deadline"] = str(seconds)
    with server.http as http:
        return http.post("/v1/chat/completions", json=ASK | fields, headers=headers)


def outcomes(server: Running, user_id: str) -> list[tuple[str, int, int]]:
    """(outcome, prompt, generated) of an account's requests, as billed."""
    query = select(generations).where(generations.c.user_id == user_id)
    rows = server.platform.database.read(
        lambda c: c.execute(query.order_by(generations.c.created_ms)).all()
    )
    return [
        (r.outcome, r.cache_hit_tokens + r.input_tokens, r.output_tokens + r.reasoning_tokens)
        for r in rows
    ]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_answer_is_cut_off_and_billed_for_what_was_delivered(
    server: Running, stream: bool
) -> None:
    user_id, key = new_key(server, f"cut {stream}")
    began = time.monotonic()
    answer = ask(server, key, 1.0, stream=stream, stream_options={"include_usage": True} if stream
                 else None)  # fmt: skip
    assert time.monotonic() - began < 10
    assert answer.status_code == 200 and '"finish_reason":"length"' in answer.text
    if stream:
        assert answer.text.endswith("data: [DONE]\n\n")
        usage = [line for line in answer.text.splitlines() if '"completion_tokens":' in line][-1]
    else:
        usage = answer.text
    ((outcome, prompt, generated),) = outcomes(server, user_id)
    assert outcome == "expired" and prompt > 0 and 0 < generated < 300
    assert f'"completion_tokens":{generated},' in usage
    assert server.platform.usage.audit() == []
    assert server.platform.ledger.balance(user_id).reserved_nano == 0


def test_whoever_waits_past_the_deadline_is_told_and_pays_nothing(server: Running) -> None:
    """The second waits in the engine, the third in the queue."""
    user_id, key = new_key(server, "first")
    late_id, late = new_key(server, "late")
    first = threading.Thread(target=lambda: ask(server, key, 3.0))
    first.start()
    while not server.platform.admission.stats().num_running:
        time.sleep(0.01)
    answers: list = []
    others = [
        threading.Thread(target=lambda: answers.append(ask(server, late, 1.0))) for _ in range(2)
    ]
    for thread in others:
        thread.start()
    for thread in [*others, first]:
        thread.join()
    assert [answer.status_code for answer in answers] == [503, 503]
    for answer in answers:
        assert answer.json()["error"]["code"] in ("deadline_exceeded", "deadline_unmeetable")
        assert int(answer.headers["retry-after"]) >= 1
    assert all(one[1:] == (0, 0) for one in outcomes(server, late_id))
    assert outcomes(server, user_id)[0][0] == "expired"
    assert server.platform.usage.audit() == []


def test_who_gives_up_on_a_whole_answer_pays_nothing(server: Running) -> None:
    """It is delivered all at once, so none of it was."""
    user_id, key = new_key(server, "impatient")
    headers = {"authorization": f"Bearer {key}"}
    with server.http as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=ASK, headers=headers, timeout=1.0)
    until = time.monotonic() + 20
    while not (found := outcomes(server, user_id)) or found[0][0] is None:
        assert time.monotonic() < until, "the request is not settled"
        time.sleep(0.05)
    assert found == [("cancelled", 0, 0)]
    assert server.platform.usage.audit() == []


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf"])
def test_a_deadline_that_is_none_is_refused_by_name(server: Running, seconds: str) -> None:
    _, key = new_key(server, f"wrong {seconds}")
    answer = ask(server, key, seconds)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Rorqual-Deadline"


def test_whoever_waits_longer_than_the_queue_allows_never_runs(start_server: ServerFactory) -> None:
    tokenizer = make_tokenizer()
    runner = ScriptRunner(tokenizer, {}, pause=lambda: time.sleep(0.02))
    hopeful = {"max_running": 1, "max_wait_seconds": 0.5, "initial_tokens_per_second": 1e6}
    one = start_server(mode="platform", runner=runner, admission=hopeful)
    first_id, first = new_key(one, "first in")
    user_id, key = new_key(one, "too late")
    runs = threading.Thread(target=ask, args=(one, first, None))
    runs.start()
    while not one.platform.admission.stats().num_running:
        time.sleep(0.01)
    began = time.monotonic()
    answer = ask(one, key, None, max_tokens=5)
    assert answer.status_code == 503 and time.monotonic() - began < 5
    assert runs.is_alive() and one.platform.admission.stats().num_running == 1
    assert outcomes(one, user_id) == [("expired", 0, 0)]
    runs.join()
    assert outcomes(one, first_id)[0][2] == 300
    assert one.platform.usage.audit() == []


def test_the_server_has_a_deadline_for_everybody(start_server: ServerFactory) -> None:
    tokenizer = make_tokenizer()
    runner = ScriptRunner(tokenizer, {}, pause=lambda: time.sleep(0.02))
    one = start_server(mode="platform", runner=runner, admission={"deadline_seconds": 0.7})
    _, key = new_key(one, "everybody")
    answer = ask(one, key, 100.0)
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert answer.json()["usage"]["completion_tokens"] < 300
