"""The engine's promises, on a runner whose logits depend on the whole cached history."""

from dataclasses import replace

import numpy as np
import pytest

from rorqual.engine import Request, SamplingParams
from rorqual.errors import CapacityError, EngineError, RequestError
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch, StepOutput
from tests.engine.fakes import VOCAB, Collector, HashRunner, make_engine, run_all, solo


def prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(2, 40, length).tolist()


def request(name: str, ids: list[int], priority: int = 0, **params: object) -> Request:
    values: dict[str, object] = {"ignore_eos": True, "max_tokens": 10, "temperature": 0.0}
    return Request(
        id=name,
        prompt_ids=ids,
        priority=priority,
        params=SamplingParams(**(values | params)),  # type: ignore[arg-type]
    )


def test_a_batch_gives_what_each_request_gives_alone() -> None:
    engine, collector = make_engine(HashRunner(64)), Collector()
    requests = [request(f"r{i}", prompt(5 + 13 * i, i), max_tokens=20 + i) for i in range(6)]
    for one in requests:
        engine.submit(one, collector)
    run_all(engine)
    for one in requests:
        answer = collector.answers[one.id, 0]
        assert answer.token_ids == solo(one.prompt_ids, one.params)[0].token_ids
        assert answer.finish_reason == "length"
        assert len(answer.token_ids) == one.params.max_tokens


def test_a_long_prompt_is_read_in_pieces_while_others_go_on_writing() -> None:
    runner = HashRunner(64)
    engine, collector = make_engine(runner, target_step_seconds=0.006), Collector()
    engine.submit(request("short", prompt(4), max_tokens=30), collector)
    for _ in range(3):
        engine.step()
    written = len(collector.answers["short", 0].token_ids)
    engine.submit(request("long", prompt(400, 1)), collector)
    before = len(runner.steps)
    while ("long", 0) not in collector.answers:
        engine.step()
    pieces = runner.steps[before:]
    assert len(pieces) >= 5
    assert all(len(batch.token_ids) <= 51 for batch in pieces)  # 1 ms + 0.1 ms a token
    assert len(collector.answers["short", 0].token_ids) >= written + len(pieces)
    run_all(engine)
    assert collector.answers["long", 0].token_ids == solo(prompt(400, 1), request(
        "x", []).params)[0].token_ids  # fmt: skip


def test_shared_beginnings_are_read_once_and_reported() -> None:
    engine, collector = make_engine(HashRunner(64)), Collector()
    beginning = prompt(100)
    engine.submit(request("first", [*beginning, 7, 8]), collector)
    run_all(engine)
    engine.submit(request("second", [*beginning, 9]), collector)
    engine.submit(
        Request(id="salted", prompt_ids=[*beginning, 9], params=request("", []).params,
                cache_salt=b"other"), collector)  # fmt: skip
    run_all(engine)
    usages = {name: collector.answers[name, 0].last.usage for name in ("first", "second", "salted")}
    assert [usage.cached_tokens for usage in usages.values() if usage] == [0, 96, 0]
    assert engine.stats().cached_tokens == 96
    expected = solo([*beginning, 9], request("", []).params)[0].token_ids
    assert collector.answers["second", 0].token_ids == expected
    assert collector.answers["salted", 0].token_ids == expected


def test_equal_prompts_at_once_come_to_share_their_blocks() -> None:
    engine, collector = make_engine(HashRunner(64)), Collector()
    for name in "abc":
        engine.submit(request(name, prompt(4 * BLOCK_TOKENS + 5), max_tokens=3), collector)
    engine.step()
    engine.step()
    assert engine.pool.num_blocks - engine.pool.num_available == 4 + 3
    run_all(engine)


@pytest.mark.parametrize("length", [BLOCK_TOKENS, BLOCK_TOKENS + 1, 3 * BLOCK_TOKENS - 1])
def test_samples_of_one_request_share_the_prompt(length: int) -> None:
    runner = HashRunner(64)
    engine, collector = make_engine(runner), Collector()
    params = {"n": 4, "temperature": 1.0, "seed": 11}
    engine.submit(request("r", prompt(length), **params), collector)
    engine.step()
    assert len(engine.scheduler.running) == 4
    used = engine.pool.num_blocks - engine.pool.num_available
    full, partial = divmod(length, BLOCK_TOKENS)
    assert used == full + (4 if partial else 0)
    run_all(engine)
    assert sum(len(batch.token_ids) for batch in runner.steps) == length + 4 * 9
    alone = solo(prompt(length), request("", [], **params).params)
    for index in range(4):
        assert collector.answers["r", index].token_ids == alone[index].token_ids
    assert len({tuple(answer.token_ids) for answer in alone}) == 4


def test_samples_with_seeds_of_their_own_draw_what_single_requests_draw() -> None:
    engine, collector = make_engine(HashRunner(64)), Collector()
    engine.submit(request("r", prompt(40), n=3, temperature=1.0, seeds=(7, 8, 9)), collector)
    run_all(engine)
    for index, seed in enumerate((7, 8, 9)):
        alone = solo(prompt(40), request("", [], temperature=1.0, seed=seed).params)[0]
        assert collector.answers["r", index].token_ids == alone.token_ids
    with pytest.raises(RequestError, match="2 seeds for n=3"):
        SamplingParams(n=3, seeds=(1, 2))


def test_figures_come_only_to_those_that_asked() -> None:
    engine, collector = make_engine(HashRunner(64)), Collector()
    engine.submit(request("asks", prompt(5), policy_stats=True, logprobs=1), collector)
    engine.submit(request("plain", prompt(6)), collector)
    run_all(engine)
    asked, plain = collector.answers["asks", 0], collector.answers["plain", 0]
    assert all(delta.policy_stats and delta.logprobs for delta in asked.deltas)
    assert not any(delta.policy_stats or delta.logprobs for delta in plain.deltas)


def test_more_samples_than_room_run_one_after_another() -> None:
    engine, collector = make_engine(HashRunner(5), max_num_seqs=2), Collector()
    params = {"n": 5, "temperature": 1.0, "seed": 3, "max_tokens": 60}
    engine.submit(request("r", prompt(40), **params), collector)
    run_all(engine)
    alone = solo(prompt(40), request("", [], **params).params)
    for index in range(5):
        assert collector.answers["r", index].token_ids == alone[index].token_ids


def test_a_seed_gives_the_same_whatever_runs_beside() -> None:
    chosen = {"temperature": 0.9, "top_p": 0.9, "top_k": 20, "min_p": 0.01, "seed": 5}
    expected = solo(prompt(20), request("", [], **chosen).params)[0].token_ids
    engine, collector = make_engine(HashRunner(64)), Collector()
    for index in range(5):
        engine.submit(request(f"n{index}", prompt(9, index), temperature=1.3), collector)
        engine.step()
    engine.submit(request("r", prompt(20), **chosen), collector)
    run_all(engine)
    assert collector.answers["r", 0].token_ids == expected


def test_an_oversubscribed_cache_makes_requests_wait() -> None:
    engine, collector = make_engine(HashRunner(12), max_num_seqs=32, reserved_growth=0), Collector()
    requests = [request(f"r{i}", prompt(30, i), max_tokens=60) for i in range(16)]
    for one in requests:  # 3 blocks each: 4 times what the cache holds
        engine.submit(one, collector)
    run_all(engine)
    assert engine.stats().num_preemptions > 0
    assert engine.stats().recomputed_tokens > 0
    for one in requests:
        expected = solo(one.prompt_ids, one.params)[0].token_ids
        assert collector.answers[one.id, 0].token_ids == expected
    assert engine.pool.num_available == 12


def test_nothing_is_preempted_where_all_growth_is_reserved() -> None:
    engine, collector = make_engine(HashRunner(12), max_num_seqs=32, reserved_growth=1), Collector()
    for index in range(16):
        engine.submit(request(f"r{index}", prompt(30, index), max_tokens=60), collector)
    run_all(engine)
    assert engine.stats().num_preemptions == 0
    assert engine.stats().num_finished == 16


def test_urgent_requests_take_the_place_of_others() -> None:
    engine, collector = make_engine(HashRunner(8), max_num_seqs=2), Collector()
    for name in ("a", "b"):
        engine.submit(request(name, prompt(60, ord(name)), max_tokens=60), collector)
    engine.step()
    engine.submit(request("urgent", prompt(90), priority=-1), collector)
    engine.step()
    assert ("urgent", 0) in collector.answers
    run_all(engine)
    for name, length in (("a", 60), ("b", 60)):
        expected = solo(prompt(length, ord(name)), request("", [], max_tokens=60).params)
        assert collector.answers[name, 0].token_ids == expected[0].token_ids


def test_requests_are_admitted_in_order_of_priority_then_arrival() -> None:
    engine, collector = make_engine(HashRunner(64), max_num_seqs=1), Collector()
    for name, priority in (("late", 1), ("first", 0), ("second", 0)):
        engine.submit(request(name, prompt(5), priority=priority, max_tokens=2), collector)
    run_all(engine)
    assert list(collector.answers) == [("first", 0), ("second", 0), ("late", 0)]


def test_cancelling_frees_the_blocks_at_once() -> None:
    engine, collector = make_engine(HashRunner(64)), Collector()
    engine.submit(request("r", prompt(70), n=3, temperature=1.0, max_tokens=100), collector)
    engine.submit(request("other", prompt(9)), collector)
    engine.step()
    free = engine.pool.num_available
    assert engine.cancel("r")
    assert engine.pool.num_available > free
    assert [collector.answers["r", i].finish_reason for i in range(3)] == ["cancelled"] * 3
    assert not engine.cancel("r")
    run_all(engine)
    assert collector.answers["other", 0].finish_reason == "length"
    assert engine.stats().num_cancelled == 1


def test_cancelling_a_request_that_waits_or_whose_prompt_is_half_read() -> None:
    engine = make_engine(HashRunner(64), max_num_seqs=1, max_batch_tokens=64)
    collector = Collector()
    engine.submit(request("half", prompt(200), n=3), collector)
    engine.submit(request("waits", prompt(9)), collector)
    engine.step()
    assert engine.cancel("waits") and engine.cancel("half")
    assert not engine.has_work
    assert engine.pool.num_available == 64
    assert {answer.finish_reason for answer in collector.answers.values()} == {"cancelled"}


def test_a_request_that_can_never_fit_is_refused() -> None:
    engine, collector = make_engine(HashRunner(4, context=512)), Collector()
    with pytest.raises(CapacityError, match="needs 5 cache blocks, the engine has 4"):
        engine.submit(request("big", prompt(100), max_tokens=50), collector)
    with pytest.raises(RequestError, match="prompt of 600 tokens"):
        engine.submit(request("long", prompt(600)), collector)
    with pytest.raises(RequestError, match="prompt of 0 tokens"):
        engine.submit(request("empty", []), collector)
    with pytest.raises(RequestError, match="outside 0 to 39"):
        engine.submit(request("foreign", [3, 40]), collector)
    with pytest.raises(RequestError, match="logit_bias: token id 99"):
        engine.submit(request("bias", [3], logit_bias={99: 1.0}), collector)
    with pytest.raises(RequestError, match="stop needs the text"):
        engine.submit(request("stop", [3], stop=("x",)), collector)
    assert not engine.has_work and not collector.answers


def test_without_max_tokens_an_answer_fills_what_there_is() -> None:
    engine, collector = make_engine(HashRunner(4, context=512)), Collector()
    engine.submit(request("r", prompt(10), max_tokens=None), collector)
    run_all(engine)
    assert len(collector.answers["r", 0].token_ids) == 4 * BLOCK_TOKENS + 1 - 10


def test_a_full_queue_refuses() -> None:
    engine, collector = make_engine(HashRunner(64), max_waiting_requests=2), Collector()
    engine.submit(request("a", prompt(5)), collector)
    engine.submit(request("b", prompt(5)), collector)
    with pytest.raises(CapacityError, match="2 requests are waiting"):
        engine.submit(request("c", prompt(5)), collector)
    with pytest.raises(RequestError, match="still being served"):
        engine.submit(request("a", prompt(5)), collector)
    run_all(engine)
    assert engine.stats().num_finished == 2


def test_a_crashed_step_fails_everything_in_flight_and_the_engine_goes_on() -> None:
    runner = HashRunner(64)
    engine, collector = make_engine(runner), Collector()
    engine.submit(request("a", prompt(40), n=2), collector)
    engine.submit(request("b", prompt(5)), collector)
    engine.step()
    runner.fail_at = 3
    engine.step()
    with pytest.raises(EngineError, match="the machine is on fire"):
        engine.step()
    for key in (("a", 0), ("a", 1), ("b", 0)):
        last = collector.answers[key].last
        assert last.finish_reason == "error" and isinstance(last.error, EngineError)
    assert "on fire" in (engine.stats().last_error or "")
    assert engine.stats().num_failed == 2
    engine.submit(request("after", prompt(40)), collector)
    run_all(engine)
    expected = solo(prompt(40), request("", []).params)[0].token_ids
    assert collector.answers["after", 0].token_ids == expected


def test_what_ended_in_the_step_that_crashed_is_still_told() -> None:
    class Broken:
        def feed(self, token_ids: object) -> None:
            raise ValueError("no text")

    engine, collector = make_engine(HashRunner(64)), Collector()
    engine.submit(request("ends", prompt(5), max_tokens=3), collector)
    engine.submit(request("breaks", prompt(6)), collector)
    engine.step()
    engine.step()
    engine.scheduler.running[1].output = Broken()  # type: ignore[assignment]
    with pytest.raises(EngineError, match="no text"):
        engine.step()
    assert collector.answers["ends", 0].finish_reason == "length"
    assert collector.answers["breaks", 0].finish_reason == "error"


def test_logits_that_are_no_numbers_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = HashRunner(64)
    engine, collector = make_engine(runner), Collector()
    engine.submit(request("r", prompt(5)), collector)
    engine.step()
    step = runner.step

    def damaged(batch: StepBatch, **options: bool) -> StepOutput:
        return replace(step(batch, **options), logits=np.full((1, VOCAB), np.nan, np.float32))

    monkeypatch.setattr(runner, "step", damaged)
    with pytest.raises(EngineError, match="logits that are no numbers"):
        engine.step()
    assert collector.answers["r", 0].finish_reason == "error"


def test_scored_prompts_share_the_room_for_logits() -> None:
    runner = HashRunner(64)
    engine, collector = make_engine(runner), Collector()
    engine._scored_tokens = 50
    for index in range(3):
        engine.submit(request(f"r{index}", prompt(60, index), prompt_logprobs=0), collector)
    run_all(engine)
    assert max(len(batch.output_rows) for batch in runner.steps) <= 50 + 3
    for index in range(3):
        alone = solo(prompt(60, index), request("", [], prompt_logprobs=0).params)[0]
        mine = collector.answers[f"r{index}", 0]
        assert mine.token_ids == alone.token_ids
        assert mine.deltas[0].prompt_logprobs == alone.deltas[0].prompt_logprobs


def test_a_taker_that_raises_loses_its_own_request_only() -> None:
    engine, collector = make_engine(HashRunner(64)), Collector()

    def broken(deltas: object) -> None:
        raise ValueError("no")

    engine.submit(request("broken", prompt(5)), broken)
    engine.submit(request("fine", prompt(5)), collector)
    run_all(engine)
    assert collector.answers["fine", 0].finish_reason == "length"
    assert engine.stats().num_failed == 1
    assert engine.pool.num_available == 64


def test_end_tokens_stop_and_min_tokens_hold_them_back() -> None:
    params = {"ignore_eos": False, "temperature": 1.0, "seed": 1, "max_tokens": 400}
    ends = solo(prompt(5), request("", [], **params).params)[0]
    assert ends.finish_reason == "stop" and ends.token_ids[-1] == 1
    count = len(ends.token_ids)
    longer = solo(prompt(5), request("", [], **params, min_tokens=count + 5).params)[0]
    assert len(longer.token_ids) > count + 5
    assert 1 not in longer.token_ids[:-1]
    by_id = solo(prompt(5), request("", [], **params, stop_token_ids=(ends.token_ids[0],)).params)[
        0
    ]
    assert by_id.token_ids == ends.token_ids[:1]
    assert by_id.last.stop_reason == ends.token_ids[0]


def test_one_call_a_step_and_request() -> None:
    engine, collector = make_engine(HashRunner(64)), Collector()
    engine.submit(request("r", prompt(5), n=3, temperature=1.0, max_tokens=7), collector)
    run_all(engine)
    assert collector.num_calls["r"] == 7


def test_routes_of_the_answer_are_kept_whatever_happens() -> None:
    engine, collector = make_engine(HashRunner(6), max_num_seqs=8, reserved_growth=0), Collector()
    for index in range(5):
        engine.submit(
            Request(id=f"r{index}", prompt_ids=prompt(20, index), record_routes=True,
                    params=request("", [], max_tokens=60).params), collector)  # fmt: skip
    run_all(engine)
    assert engine.stats().num_preemptions > 0
    for index in range(5):
        answer = collector.answers[f"r{index}", 0]
        routes = answer.last.routes
        assert routes is not None and routes.shape == (59, 2, 2)
        assert routes[:, 0, 0].tolist() == answer.token_ids[:-1]  # the fake's route is the token


def test_new_weights_recompute_what_is_in_flight() -> None:
    runner = HashRunner(64)
    engine, collector = make_engine(runner), Collector()
    engine.submit(request("r", prompt(70), max_tokens=20), collector)
    for _ in range(5):
        engine.step()
    engine.update(lambda name: np.array([7.0], dtype=np.float32))
    assert engine.stats().prefix_blocks == 0
    run_all(engine)
    written = collector.answers["r", 0].token_ids
    other = HashRunner(64)
    other.salt = 7
    expected, fresh = Collector(), make_engine(other)
    fresh.submit(request("r", prompt(70) + written[:5], max_tokens=15), expected)
    run_all(fresh)
    assert written[5:] == expected.answers["r", 0].token_ids
