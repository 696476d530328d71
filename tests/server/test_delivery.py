"""What is committed, sent and billed together: one flush, also where the disk is slow or the reader
gone. The application is called as its server calls it, so that the test holds the connection."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.types import ASGIApp

from rorqual.config.http import WatchConfig
from rorqual.config.server import ServerConfig
from rorqual.errors import EngineError
from rorqual.platform import Busy, Platform
from rorqual.platform.tables import generations
from rorqual.server import Models, Services, answering, create_app
from rorqual.server.answering import READER
from rorqual.server.backends import Chunk, EngineBackend, GenerationRequest, ModelInfo
from rorqual.server.backends.base import TextInput, TokenLogprob
from rorqual.server.backends.process_link import ProcessLink
from rorqual.server.generation import Generation
from rorqual.server.logs import RequestLog
from rorqual.server.services import Asker
from rorqual.tokenizer import Tokenizer
from tests.server.conftest import MODEL, PRICES, scripted_backend
from tests.server.scripted import ScriptRunner

FLUSH_TOKENS = 8
_LOGPROB = TokenLogprob(None, "The", b"The", 0.0, ())
BODY = {"prompt": "Hi", "max_tokens": 120, "ignore_eos": True, "stream": True, "logprobs": 0}


def services_of(
    tokenizer: Tokenizer,
    folder: Path,
    flush_seconds: float = 0.01,
    pause: Callable[[], None] = lambda: None,
    admission: dict[str, int] | None = None,
) -> Services:
    config = ServerConfig.model_validate(
        {
            "mode": "platform",
            "database": {"url": f"sqlite:///{folder / 'a.db'}"},
            "prices": PRICES,
            "metering": {"flush_tokens": FLUSH_TOKENS, "flush_seconds": flush_seconds},
            "admission": admission or {},
        }
    )
    backend = scripted_backend(tokenizer, ScriptRunner(tokenizer, {}, pause=pause))
    log = RequestLog(lambda _: None)
    return Services(config, Platform.open(config), Models({MODEL: backend}, {}), log=log)


def make_key(services: Services) -> str:
    """Of an account with money."""
    user = services.platform.accounts.create("reader", None)
    services.platform.ledger.top_up(user.id, 10**9, "first")
    return services.platform.keys.create(user.id, "test").secret


class FakeReader:
    """A connection of which nobody hears that it is lost, until something is sent."""

    def __init__(self, is_gone: Callable[[], bool]) -> None:
        self._is_gone = is_gone

    @property
    def is_gone(self) -> bool:
        return self._is_gone()

    def call_when_gone(self, callback: Callable[[], object] | None) -> None:
        pass


async def ask(services: Services, is_gone: Callable[[list[int]], bool]) -> list[int]:
    """`exchange` with a server that is started for it."""
    key = make_key(services)
    await services.start()
    try:
        return await exchange(create_app(services), key, is_gone)
    finally:
        await services.stop()


async def exchange(
    app: ASGIApp,
    key: str,
    is_gone: Callable[[list[int]], bool] = lambda _: False,
    see: Callable[[Any], None] = lambda _: None,
) -> list[int]:
    """The tokens of each piece that was sent; `is_gone` looks at them, `see` at each message."""
    sent = list[int]()
    data = json.dumps(BODY).encode()
    asked = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if asked.is_set():
            await asyncio.Event().wait()  # the word that the connection has closed is late
        asked.set()
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        events = message.get("body", b"").decode().split("\n\n")
        found = [json.loads(e[6:]) for e in events if e.startswith("data: {")]
        tokens = sum(len(e["choices"][0]["logprobs"]["tokens"]) for e in found if e.get("choices"))
        if tokens:
            sent.append(tokens)
        see(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"",
        "raw_path": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        "headers": [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {key}".encode())],
        READER: FakeReader(lambda: is_gone(sent)),
    }  # fmt: skip
    await app(scope, receive, send)  # type: ignore[arg-type]
    return sent


def is_last(message: Any) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body")


def billed(services: Services, folder: Path) -> tuple[str, int]:
    """(outcome, generated tokens) of the one request."""
    platform = Platform.open(services.config)
    row = platform.database.read(lambda c: c.execute(select(generations)).one())
    assert platform.usage.audit() == []
    platform.close()
    return row.outcome, row.output_tokens + row.reasoning_tokens


def test_a_slow_disk_makes_no_larger_batches(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = services_of(tokenizer, tmp_path)
    submit_log = services.platform.ledger.submit_log

    def slow_log(*given: Any) -> "Future[None]":
        time.sleep(0.05)  # the engine's thread goes on writing meanwhile
        return submit_log(*given)

    monkeypatch.setattr(services.platform.ledger, "submit_log", slow_log)
    sent = asyncio.run(ask(services, lambda _: False))
    assert sum(sent) == 120 and max(sent) <= FLUSH_TOKENS and len(sent) >= 120 // FLUSH_TOKENS
    assert billed(services, tmp_path) == ("finished", 120)


def test_streams_share_their_commits(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """They flush on one beat, whenever each of them began."""
    services = services_of(tokenizer, tmp_path, 0.1, lambda: time.sleep(0.02))
    key = make_key(services)

    async def several() -> None:
        await services.start()
        before = services.platform.database.commit_counts
        app, asking = create_app(services), list[asyncio.Task[list[int]]]()
        for _ in range(8):
            asking.append(asyncio.create_task(exchange(app, key)))
            await asyncio.sleep(0.025)
        assert [sum(sent) for sent in await asyncio.gather(*asking)] == [120] * 8
        after = services.platform.database.commit_counts
        commits, operations = (new - old for new, old in zip(after, before, strict=True))
        assert operations > 100 and commits < operations / 2
        await services.stop()

    asyncio.run(several())


def test_nothing_is_billed_beyond_a_closed_connection(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Sending to it fails silently, and the word that it closed comes late or never."""
    services = services_of(tokenizer, tmp_path)
    sent = asyncio.run(ask(services, lambda sent: sum(sent) >= 20))
    outcome, tokens = billed(services, tmp_path)
    assert outcome == "cancelled"
    assert 20 <= sum(sent) <= tokens <= sum(sent) + FLUSH_TOKENS


def test_a_backend_that_fails_to_cancel_keeps_neither_place_nor_money(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = services_of(tokenizer, tmp_path)

    def fail(request_id: str) -> None:
        raise RuntimeError(f"no way to cancel {request_id}")

    monkeypatch.setattr(services.models.get(MODEL), "cancel", fail)
    asyncio.run(ask(services, lambda sent: sum(sent) >= 20))
    assert services.platform.admission.stats().num_running == 0
    outcome, tokens = billed(services, tmp_path)
    assert outcome == "cancelled" and tokens >= 20


def test_what_another_server_settled_is_not_delivered(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took this one for dead; the rest of the answer is on nobody's bill."""
    services = services_of(tokenizer, tmp_path)
    ledger = services.platform.ledger
    settle = ledger.submit_settle

    def settle_late(request_id: str, *given: Any, **named: Any) -> "Future[Any]":
        settle(request_id, outcome="interrupted").result()
        return settle(request_id, *given, **named)

    monkeypatch.setattr(ledger, "submit_settle", settle_late)
    sent = asyncio.run(ask(services, lambda _: False))
    outcome, tokens = billed(services, tmp_path)
    assert outcome == "interrupted" and sum(sent) == tokens < 120


def test_text_that_comes_with_a_failure_is_logged_before_it_is_sent(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, happened = services_of(tokenizer, tmp_path), list[str]()
    last = [
        Chunk(0, content="The whale", num_tokens=3, logprobs=[_LOGPROB] * 3),
        Chunk(0, finish="error", error=EngineError("it broke")),
    ]
    backend, ledger = services.models.get(MODEL), services.platform.ledger
    monkeypatch.setattr(backend, "submit", lambda _, on_chunks: on_chunks(last))
    log, settle = ledger.submit_log, ledger.submit_settle
    monkeypatch.setattr(
        ledger, "submit_log", lambda *given: (happened.append("logged"), log(*given))[1]
    )
    monkeypatch.setattr(
        ledger,
        "submit_settle",
        lambda *given, **named: (happened.append("settled"), settle(*given, **named))[1],
    )

    def look(sent: list[int]) -> bool:
        happened.append("sends")
        return False

    assert asyncio.run(ask(services, look)) == [3]
    assert happened[:2] == ["logged", "sends"] and happened.count("settled") == 1
    assert billed(services, tmp_path) == ("failed", 3)


def reserving_slowly(
    services: Services, monkeypatch: pytest.MonkeyPatch, end: Callable[["Future[Any]"], None]
) -> None:
    """Reservations whose commit ends a while later, as `end` says."""
    submit = services.platform.ledger.submit_reserve

    def slow(*given: Any, **named: Any) -> "Future[Any]":
        real, late = submit(*given, **named), Future[Any]()
        late.set_running_or_notify_cancel()
        real.result()

        def wait() -> None:
            time.sleep(0.4)
            end(late)

        threading.Thread(target=wait, daemon=True).start()
        return late

    monkeypatch.setattr(services.platform.ledger, "submit_reserve", slow)


def test_nothing_starts_before_the_reservation_is_made(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, happened = services_of(tokenizer, tmp_path), list[str]()

    def end(late: "Future[Any]") -> None:
        happened.append("reserved")
        late.set_result(None)

    reserving_slowly(services, monkeypatch, end)
    backend = services.models.get(MODEL)
    submit = backend.submit
    monkeypatch.setattr(
        backend, "submit", lambda *given: (happened.append("started"), submit(*given))
    )
    log = services.platform.ledger.submit_log
    monkeypatch.setattr(
        services.platform.ledger,
        "submit_log",
        lambda *given: (happened.append("logged"), log(*given))[1],
    )
    sent = asyncio.run(ask(services, lambda _: False))
    assert happened[:3] == ["reserved", "started", "logged"]
    assert sum(sent) == 120 and billed(services, tmp_path) == ("finished", 120)


def test_a_reservation_that_fails_delivers_and_charges_nothing(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, settled = services_of(tokenizer, tmp_path), list[Any]()
    reserving_slowly(services, monkeypatch, lambda late: late.set_exception(Busy("full", 2.0)))
    monkeypatch.setattr(services.platform.ledger, "submit_settle", settled.append)
    assert asyncio.run(ask(services, lambda _: False)) == []
    assert settled == []
    assert services.platform.admission.stats().num_running == 0


def test_a_reader_who_leaves_before_the_reservation_is_settled_with_nothing(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = services_of(tokenizer, tmp_path)
    reserving_slowly(services, monkeypatch, lambda late: late.set_result(None))
    assert sum(asyncio.run(ask(services, lambda _: True))) <= FLUSH_TOKENS
    outcome, tokens = billed(services, tmp_path)
    assert outcome == "cancelled" and tokens <= FLUSH_TOKENS


def test_the_next_starts_while_the_books_of_the_last_are_still_open(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One place: the second request is generated while the first waits for its settlement."""
    services = services_of(tokenizer, tmp_path, admission={"max_running": 1})
    backend, ledger = services.models.get(MODEL), services.platform.ledger
    submitted = asyncio.Event()
    submit, settle = backend.submit, ledger.submit_settle
    num_submitted = 0

    def counted(*given: Any) -> None:
        nonlocal num_submitted
        num_submitted += 1
        if num_submitted == 2:
            submitted.set()
        submit(*given)

    def settle_later(*given: Any, **named: Any) -> "Future[Any]":
        late: Future[Any] = Future()
        loop = asyncio.get_running_loop()

        async def wait() -> None:
            await asyncio.wait_for(submitted.wait(), 20)
            real = await asyncio.wrap_future(settle(*given, **named))
            late.set_result(real)

        waiting.append(loop.create_task(wait()))
        return late

    waiting: list[asyncio.Task[None]] = []
    monkeypatch.setattr(backend, "submit", counted)
    monkeypatch.setattr(ledger, "submit_settle", settle_later)

    async def both() -> list[list[int]]:
        key = make_key(services)
        await services.start()
        try:
            app = create_app(services)
            return list(await asyncio.gather(*(exchange(app, key) for _ in range(2))))
        finally:
            await services.stop()

    assert [sum(sent) for sent in asyncio.run(both())] == [120, 120]
    assert services.platform.admission.stats().num_running == 0


def test_an_engine_that_is_gone_fails_a_long_queue_by_name(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Each failure gives the next its turn, which fails: however many there are."""
    num_requests, num_running = 300, 32
    link = ProcessLink({}, WatchConfig())
    link.state = "ready"  # its process has just died, and nobody has noticed
    backend = EngineBackend(ModelInfo(MODEL, MODEL, 512, "choice", 1, 1), tokenizer, link, {})
    config = ServerConfig.model_validate(
        {
            "database": {"url": f"sqlite:///{tmp_path / 'a.db'}"},
            "admission": {"max_running": num_running, "max_running_per_account": num_running,
                          "max_queued": num_requests,
                          "max_per_account": num_requests, "account_burst_tokens": 10**9,
                          "address_burst_tokens": 10**9, "max_queued_tokens": 10**9,
                          "initial_tokens_per_second": 1e9},
        }
    )  # fmt: skip
    services = Services(config, Platform.open(config), Models({MODEL: backend}, {}))

    async def run() -> list[BaseException | None]:
        asker = Asker(services.local_user, None, "127.0.0.1")
        given, sampling = TextInput(prompt="Hi"), {"max_tokens": 4}
        made = [
            GenerationRequest(id=f"cmpl-{number}", model=MODEL, input=given, sampling=sampling)
            for number in range(num_requests)
        ]
        opened = [await Generation.open(services, asker, [one]) for one in made]

        async def read(generation: Generation) -> None:
            async with generation:
                while not await generation.wait_started(20):
                    pass
                async for _ in generation.chunks():
                    pass

        tasks = [asyncio.create_task(read(generation)) for generation in opened[num_running:]]
        await asyncio.sleep(0.1)  # all wait for their turn
        tasks += [asyncio.create_task(read(generation)) for generation in opened[:num_running]]
        return list(await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60))

    try:
        found = asyncio.run(run())
    finally:
        services.platform.close()
    assert [type(error) for error in found] == [EngineError] * num_requests
    assert {str(error) for error in found} == {"the engine is restarting; try again shortly"}
    assert services.platform.admission.stats().num_running == 0


def test_what_a_backend_raises_reaches_the_reader(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where somebody else's end has submitted it: the second waits for the first."""
    services = services_of(tokenizer, tmp_path, admission={"max_running": 1})
    backend = services.models.get(MODEL)
    submit, names, statuses = backend.submit, list[str](), list[int]()

    def once(prepared: Any, on_chunks: Any) -> None:
        names.append(prepared.request.id)
        if len(names) == 2:
            raise ValueError("odd")
        submit(prepared, on_chunks)

    monkeypatch.setattr(backend, "submit", once)

    async def three() -> list[Any]:
        key = make_key(services)
        await services.start()
        try:
            app = create_app(services)

            def see(message: Any) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            asked = (exchange(app, key, see=see) for _ in range(3))
            return await asyncio.wait_for(asyncio.gather(*asked), 30)
        finally:
            await services.stop()

    sent = asyncio.run(three())
    assert sorted(statuses) == [200, 200, 500]
    assert sorted(sum(tokens) for tokens in sent) == [0, 120, 120]
    assert services.platform.admission.stats().num_running == 0


def test_who_has_it_all_may_ask_again_at_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """One request an account: the next comes with the last byte of the one before."""
    services = services_of(tokenizer, tmp_path, admission={"max_per_account": 1})
    inside: list[int] = []

    async def run() -> None:
        key = make_key(services)
        await services.start()
        app = create_app(services)

        def see(message: Any) -> None:
            if is_last(message):
                asyncio.get_running_loop().call_soon(look)

        def look() -> None:
            user = services.platform.keys.authenticate(key).user.id
            services.platform.admission.check(user, "127.0.0.1")
            inside.append(1)

        try:
            for _ in range(2):
                assert sum(await exchange(app, key, see=see)) == 120
                await asyncio.sleep(0)  # so that `look` comes before the next request
        finally:
            await services.stop()

    asyncio.run(run())
    assert inside == [1, 1]


def test_a_request_that_is_given_up_in_the_queue_is_not_run(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn comes while its books are being closed."""
    gate = threading.Event()
    services = services_of(
        tokenizer, tmp_path, pause=lambda: gate.wait(20) and None, admission={"max_running": 1}
    )
    backend, ledger = services.models.get(MODEL), services.platform.ledger
    settle, names = ledger.submit_settle, list[str]()
    submit = backend.submit
    monkeypatch.setattr(
        backend, "submit", lambda p, take: (names.append(p.request.id), submit(p, take))
    )

    async def run() -> None:
        user = services.platform.accounts.create("reader", None)
        ledger.top_up(user.id, 10**9, "first")
        await services.start()
        asker = Asker(user, None, "127.0.0.1")
        made = [
            GenerationRequest(
                id=f"cmpl-{number}", model=MODEL, input=TextInput(prompt="Hi"),
                sampling={"max_tokens": 4, "ignore_eos": True},
            )
            for number in range(2)
        ]  # fmt: skip
        first, second = [await Generation.open(services, asker, [one]) for one in made]
        assert await first.wait_started(1) and not await second.wait_started(0.05)
        closing = asyncio.Event()

        def settle_slowly(*given: Any, **named: Any) -> "Future[Any]":
            closing.set()
            time.sleep(0.05)
            return settle(*given, **named)

        monkeypatch.setattr(ledger, "submit_settle", settle_slowly)
        close = asyncio.create_task(second.close())
        await closing.wait()
        gate.set()
        async with first:
            async for _ in first.chunks():
                pass
        await close
        await asyncio.sleep(0.1)
        await services.stop()

    asyncio.run(run())
    assert names == ["cmpl-0"]


def test_a_reader_who_never_takes_it_all_is_let_go_after_the_deadline(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_READ_SECONDS", 0.2)
    services = services_of(tokenizer, tmp_path, admission={"deadline_seconds": 1})

    async def run() -> float:
        key = make_key(services)
        await services.start()
        app, begun = create_app(services), time.monotonic()

        async def stuck(scope: Any, receive: Any, _: Any) -> None:
            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    await asyncio.Event().wait()

            await app(scope, receive, send)

        try:
            await asyncio.wait_for(exchange(stuck, key), 20)
            user = services.platform.keys.authenticate(key).user.id
            assert services.platform.ledger.balance(user).reserved_nano == 0
            return time.monotonic() - begun
        finally:
            await services.stop()

    assert 1.0 < asyncio.run(run()) < 10
    assert services.platform.admission.stats().num_running == 0


def test_a_failure_that_is_told_early_keeps_the_place_until_the_engine_has_let_go(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The books fail in the middle of an answer; the engine is still writing."""
    gate, steps, logs, running = threading.Event(), list[int](), list[int](), list[int]()

    def pause() -> None:
        steps.append(1)
        if len(steps) > 40:
            gate.wait(20)

    services = services_of(tokenizer, tmp_path, pause=pause)
    log = services.platform.ledger.submit_log

    def log_once(*given: Any) -> "Future[None]":
        logs.append(1)
        if len(logs) == 1:
            return log(*given)
        late: Future[None] = Future()
        late.set_exception(Busy("full", 2.0))
        return late

    monkeypatch.setattr(services.platform.ledger, "submit_log", log_once)

    async def run() -> None:
        key = make_key(services)
        await services.start()
        app = create_app(services)

        def see(message: Any) -> None:
            if is_last(message):
                assert b'"error"' in message["body"]
                asyncio.get_running_loop().call_soon(look)

        def look() -> None:
            running.append(services.platform.admission.stats().num_running)
            gate.set()

        try:
            await exchange(app, key, see=see)
        finally:
            await services.stop()

    asyncio.run(run())
    assert running == [1] and services.platform.admission.stats().num_running == 0
