"""The engine in its own thread: requests from many threads, crashes, closing."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from rorqual.config.engine import EngineConfig
from rorqual.engine import Delta, Engine, Request, SamplingParams
from rorqual.engine.thread import EngineThread
from rorqual.errors import CapacityError, EngineError, RequestError
from tests.engine.fakes import END_ID, HashRunner, solo


class Taker:
    """Waits for a request's end in another thread."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.ended = threading.Event()

    def __call__(self, deltas: list[Delta]) -> None:
        self.deltas += deltas
        if deltas[-1].finish_reason is not None:
            self.ended.set()

    def wait(self) -> Delta:
        assert self.ended.wait(20), "the request did not end"
        return self.deltas[-1]

    @property
    def token_ids(self) -> list[int]:
        return [token for delta in self.deltas for token in delta.token_ids]


@pytest.fixture
def runner() -> HashRunner:
    return HashRunner(64)


@pytest.fixture
def engine(runner: HashRunner) -> Iterator[EngineThread]:
    config = EngineConfig(max_num_seqs=8, max_waiting_requests=50, check_invariants=True)
    made = EngineThread(Engine(runner, config, end_ids=(END_ID,)))
    yield made
    made.close()


def params(**fields: object) -> SamplingParams:
    values: dict[str, object] = {"temperature": 0.0, "ignore_eos": True, "max_tokens": 30}
    return SamplingParams(**(values | fields))  # type: ignore[arg-type]


def test_requests_from_many_threads_get_their_own_answers(engine: EngineThread) -> None:
    prompts = [np.random.default_rng(i).integers(2, 40, 20 + i).tolist() for i in range(24)]
    takers = [Taker() for _ in prompts]

    def send(index: int) -> None:
        request = Request(id=str(index), prompt_ids=prompts[index], params=params())
        engine.submit(request, takers[index])

    threads = [threading.Thread(target=send, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for prompt, taker in zip(prompts, takers, strict=True):
        assert taker.wait().finish_reason == "length"
        assert taker.token_ids == solo(prompt, params())[0].token_ids
    assert engine.stats().num_finished == 24


def test_a_cancelled_request_ends_and_frees_its_blocks(engine: EngineThread) -> None:
    taker = Taker()
    engine.submit(Request(id="r", prompt_ids=[5] * 40, params=params(max_tokens=400)), taker)
    engine.cancel("r")
    engine.cancel("unknown")
    assert taker.wait().finish_reason in ("cancelled", "length")
    assert engine.stats().free_blocks == 64


def test_impossible_requests_are_refused_in_the_caller(engine: EngineThread) -> None:
    with pytest.raises(RequestError, match="outside 0 to 39"):
        engine.submit(Request(id="r", prompt_ids=[99], params=params()), Taker())


def test_a_second_request_of_the_same_id_is_told_so(engine: EngineThread) -> None:
    first, second = Taker(), Taker()
    for taker in (first, second):
        engine.submit(Request(id="r", prompt_ids=[5] * 9, params=params(max_tokens=300)), taker)
    assert isinstance(second.wait().error, RequestError)
    assert first.wait().finish_reason == "length"


def test_a_crash_fails_what_is_in_flight_and_serving_goes_on(
    engine: EngineThread, runner: HashRunner
) -> None:
    runner.fail_at = 3
    taker = Taker()
    engine.submit(Request(id="r", prompt_ids=[5] * 9, params=params()), taker)
    last = taker.wait()
    assert last.finish_reason == "error" and isinstance(last.error, EngineError)
    assert "OSError: the machine is on fire" in (engine.stats().last_error or "")
    again = Taker()
    engine.submit(Request(id="r", prompt_ids=[5] * 9, params=params()), again)
    assert again.wait().finish_reason == "length"


def test_closing_ends_everything(runner: HashRunner) -> None:
    engine = EngineThread(Engine(runner, EngineConfig(), end_ids=(END_ID,)))
    taker = Taker()
    engine.submit(Request(id="r", prompt_ids=[5] * 9, params=params(max_tokens=400)), taker)
    engine.close()
    assert taker.wait().finish_reason in ("error", "length")
    with pytest.raises(EngineError, match="the engine was closed"):
        engine.submit(Request(id="s", prompt_ids=[5], params=params()), Taker())


def test_a_full_queue_refuses_in_the_caller(runner: HashRunner) -> None:
    blocked = threading.Event()
    config = EngineConfig(max_num_seqs=1, max_waiting_requests=3)
    engine = EngineThread(Engine(runner, config, end_ids=(END_ID,)))
    with pytest.raises(CapacityError, match="requests are waiting"):
        for index in range(6):
            request = Request(id=str(index), prompt_ids=[5] * 9, params=params())
            engine.submit(request, lambda deltas: blocked.wait(20) or None)
    blocked.set()
    engine.close()


def test_new_weights_are_taken_between_steps(engine: EngineThread, runner: HashRunner) -> None:
    engine.update(lambda name: np.array([3.0], dtype=np.float32))
    assert runner.salt == 3
    with pytest.raises(KeyError):
        engine.update(lambda name: {}[name])
