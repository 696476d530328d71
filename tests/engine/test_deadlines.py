"""Requests end at their deadline, queued or running, with what they have; their room is free."""

from dataclasses import replace

from rorqual.engine import Request, SamplingParams
from tests.engine.fakes import Collector, HashRunner, make_engine, run_all

ASK = Request(
    id="first",
    prompt_ids=[2, 3, 4],
    params=SamplingParams(ignore_eos=True, max_tokens=100, temperature=0.0),
)


def test_a_running_request_ends_with_what_it_wrote() -> None:
    runner = HashRunner(64)
    engine, collector = make_engine(runner), Collector()
    engine.submit(replace(ASK, deadline=0.02), collector)
    engine.submit(replace(ASK, id="free"), collector)
    run_all(engine)
    late, free = collector.answers["first", 0], collector.answers["free", 0]
    assert late.finish_reason == "deadline" and 5 < len(late.token_ids) < 20
    usage = late.deltas[-1].usage
    assert usage is not None and usage.completion_tokens == len(late.token_ids)
    assert free.finish_reason == "length" and free.token_ids[: len(late.token_ids)] == (
        late.token_ids
    )
    assert engine.stats().free_blocks == engine.stats().total_blocks


def test_a_queued_request_and_its_samples_end_without_a_token() -> None:
    engine, collector = make_engine(HashRunner(64), max_num_seqs=1), Collector()
    engine.submit(ASK, collector)
    late = replace(ASK, id="late", deadline=0.01, params=replace(ASK.params, n=2))
    engine.submit(late, collector)
    run_all(engine)
    for index in range(2):
        answer = collector.answers["late", index]
        assert (answer.finish_reason, answer.token_ids) == ("deadline", [])
    assert collector.answers["first", 0].finish_reason == "length"


def test_ended_requests_leave_nothing_behind() -> None:
    """A deadline is a day away in local mode: it must not be remembered for a day."""
    engine = make_engine(HashRunner(64))
    for number in range(1000):
        engine.submit(
            replace(ASK, id=f"r{number}", deadline=86_400.0, params=SamplingParams(max_tokens=1)),
            Collector(),
        )
        run_all(engine)
    assert len(engine._deadlines) < 100


def test_an_id_that_is_used_again_has_its_own_deadline() -> None:
    engine, collector = make_engine(HashRunner(64)), Collector()
    engine.submit(replace(ASK, deadline=0.01), collector)
    engine.cancel("first")
    again = Collector()
    engine.submit(ASK, again)
    run_all(engine)
    assert again.answers["first", 0].finish_reason == "length"
