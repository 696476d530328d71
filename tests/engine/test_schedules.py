"""Random schedules: whatever comes together, each request gets what it gets alone."""

import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rorqual.checkpoint.weights import Weights, open_weights
from rorqual.config.engine import EngineConfig
from rorqual.engine import Request, SamplingParams
from rorqual.engine.blocks import blocks_for
from rorqual.engine.engine import Engine
from rorqual.engine.runner import Runner
from rorqual.engine.torch_runner import TorchRunner
from rorqual.errors import CapacityError
from rorqual.kernels.library import native_library
from rorqual.kernels.runtime import Runtime
from rorqual.kernels.runtime_layout import Precision
from tests.engine.drafting import DraftingHashRunner
from tests.engine.fakes import VOCAB, Answer, Collector, HashRunner, make_engine, run_all, solo

CONTEXT = 200
BEGINNINGS = [np.random.default_rng(seed).integers(2, VOCAB, 150).tolist() for seed in (1, 2)]


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """A request whose prompt may begin as others do."""
    shared = draw(st.integers(0, 130))
    own = draw(st.lists(st.integers(2, VOCAB - 1), min_size=1, max_size=40))
    temperature = draw(st.sampled_from([0.0, 1.0, 0.7]))
    return {
        "prompt": BEGINNINGS[draw(st.integers(0, 1))][:shared] + own,
        "priority": draw(st.integers(-1, 1)),
        "salt": draw(st.sampled_from([b"", b"", b"key"])),
        "wait": draw(st.integers(0, 4)),
        "cancel_after": draw(st.one_of(st.none(), st.none(), st.integers(0, 20))),
        "params": SamplingParams(
            n=draw(st.sampled_from([1, 1, 1, 2, 4])),
            temperature=temperature,
            top_p=draw(st.sampled_from([1.0, 0.8])),
            top_k=draw(st.sampled_from([0, 5])),
            repetition_penalty=draw(st.sampled_from([1.0, 1.3])),
            frequency_penalty=draw(st.sampled_from([0.0, 0.5])),
            max_tokens=draw(st.integers(1, 50)),
            min_tokens=draw(st.sampled_from([0, 0, 5])),
            seed=draw(st.integers(0, 2**64 - 1)),
            ignore_eos=draw(st.booleans()),
            logprobs=draw(st.sampled_from([None, None, 2])),
            prompt_logprobs=draw(st.sampled_from([None, None, 1])),
        ),
    }


schedules = st.fixed_dictionaries(
    {
        "requests": st.lists(requests(), min_size=1, max_size=12),
        "num_blocks": st.integers(2, 24),
        "max_num_seqs": st.integers(1, 6),
        "max_batch_tokens": st.sampled_from([33, 64, 512]),
        "target_step_seconds": st.sampled_from([0.001, 0.006, 1.0]),
        "reserved_growth": st.sampled_from([0.0, 0.25, 1.0]),
        "prefix_caching": st.booleans(),
        "num_speculative_tokens": st.sampled_from(["off", "auto", 1, 3]),
        "quality": st.sampled_from(["right", "wrong", "mixed"]),
    }
)


def play(schedule: dict[str, Any], runner: HashRunner) -> tuple[Engine, Collector]:
    """Submit and cancel as the schedule says; every step checks the blocks. All must end."""
    names = ("max_num_seqs", "max_batch_tokens", "target_step_seconds", "reserved_growth")
    options = {
        name: schedule[name] for name in (*names, "prefix_caching", "num_speculative_tokens")
    }
    engine, collector = make_engine(runner, **options), Collector()
    cancels: list[tuple[int, str]] = []
    num_steps = 0

    def advance(count: int) -> None:
        nonlocal num_steps
        for _ in range(count):
            for due, name in list(cancels):
                if num_steps >= due:
                    engine.cancel(name)
                    cancels.remove((due, name))
            engine.step()
            num_steps += 1

    for index, one in enumerate(schedule["requests"]):
        advance(one["wait"])
        request = Request(
            id=str(index),
            prompt_ids=one["prompt"],
            params=one["params"],
            priority=one["priority"],
            cache_salt=one["salt"],
        )
        longest = min(len(one["prompt"]) + one["params"].max_tokens, CONTEXT + 1) - 1
        if blocks_for(longest) > schedule["num_blocks"]:
            with pytest.raises(CapacityError, match="cache blocks"):
                engine.submit(request, collector)
            continue
        engine.submit(request, collector)
        if one["cancel_after"] is not None:
            cancels.append((num_steps + one["cancel_after"], str(index)))
    advance(30)
    run_all(engine)
    return engine, collector


def check(schedule: dict[str, Any], engine: Engine, collector: Collector) -> None:
    """Every accepted request has ended, with the tokens it writes alone; nothing leaks."""
    assert engine.pool.num_available == engine.pool.num_blocks
    answers: dict[str, list[Answer]] = {}
    for (name, _), answer in sorted(collector.answers.items()):
        answers.setdefault(name, []).append(answer)
    for name, found in answers.items():
        one = schedule["requests"][int(name)]
        expected = solo(one["prompt"], one["params"], context=CONTEXT)
        assert len(found) == one["params"].n
        for mine, alone in zip(found, expected, strict=True):
            if mine.finish_reason == "cancelled":
                assert one["cancel_after"] is not None
                assert mine.token_ids == alone.token_ids[: len(mine.token_ids)]
                continue
            assert mine.finish_reason == alone.finish_reason
            assert mine.token_ids == alone.token_ids
            usage = mine.last.usage
            assert usage is not None and usage.completion_tokens == len(mine.token_ids)
            assert usage.cached_tokens < usage.prompt_tokens == len(one["prompt"])
            # Drafts bring several tokens in one delta.
            assert [p for d in mine.deltas for p in d.logprobs or ()] == [
                p for d in alone.deltas for p in d.logprobs or ()
            ]
            prompts = [answer.deltas[0].prompt_logprobs for answer in (mine, alone)]
            assert prompts[0] == prompts[1]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(schedules)
def test_any_schedule_gives_what_each_request_gives_alone(schedule: dict[str, Any]) -> None:
    check(schedule, *play(schedule, open_fake(schedule)))


def open_fake(schedule: dict[str, Any]) -> DraftingHashRunner:
    return DraftingHashRunner(schedule["num_blocks"], context=CONTEXT, quality=schedule["quality"])


def random_schedule(rng: random.Random, count: int) -> dict[str, Any]:
    """A long schedule without hypothesis, for the soak test."""

    def one() -> dict[str, Any]:
        shared = rng.choice([0, 0, rng.randrange(130)])
        own = [rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 40))]
        return {
            "prompt": rng.choice(BEGINNINGS)[:shared] + own,
            "priority": rng.choice([0, 0, 0, -1, 1]),
            "salt": rng.choice([b"", b"", b"key"]),
            "wait": rng.choice([0, 0, 0, 1, 5]),
            "cancel_after": rng.choice([None, None, None, rng.randrange(40)]),
            "params": SamplingParams(
                n=rng.choice([1, 1, 1, 2, 4]),
                temperature=rng.choice([0.0, 1.0, 0.7]),
                top_p=rng.choice([1.0, 0.8]),
                repetition_penalty=rng.choice([1.0, 1.3]),
                max_tokens=rng.randint(1, 50),
                seed=rng.getrandbits(64),
                ignore_eos=rng.random() < 0.5,
            ),
        }

    return {
        "requests": [one() for _ in range(count)],
        "num_blocks": 24,
        "max_num_seqs": 16,
        "max_batch_tokens": 256,
        "target_step_seconds": 0.006,
        "reserved_growth": 0.0,
        "prefix_caching": True,
        "num_speculative_tokens": rng.choice(["off", "auto", 1, 3]),
        "quality": rng.choice(["right", "wrong", "mixed"]),
    }


def test_many_requests_on_a_small_cache() -> None:
    schedule = random_schedule(random.Random(0), 40) | {"num_speculative_tokens": "off"}
    engine, collector = play(schedule, HashRunner(24, context=CONTEXT))
    check(schedule, engine, collector)
    stats = engine.stats()
    assert stats.num_preemptions > 0 and stats.cached_tokens > 0 and stats.num_cancelled > 0


def test_many_requests_with_drafts_on_a_small_cache() -> None:
    schedule = random_schedule(random.Random(1), 40)
    schedule |= {"num_speculative_tokens": 3, "quality": "mixed"}
    engine, collector = play(schedule, open_fake(schedule))
    check(schedule, engine, collector)
    stats = engine.stats()
    assert stats.num_preemptions > 0 and stats.cached_tokens > 0 and stats.num_cancelled > 0
    assert stats.drafted_tokens > stats.accepted_tokens > 0


@pytest.mark.soak
def test_ten_thousand_requests() -> None:
    for seed in range(20):
        schedule = random_schedule(random.Random(seed), 500)
        check(schedule, *play(schedule, open_fake(schedule)))


def open_runner(weights: Weights, path: str, num_blocks: int) -> Runner:
    """The torch twin in fp32, or the native runtime in a precision."""
    if path == "torch":
        return TorchRunner(weights.config, weights.read, precision="fp32", num_blocks=num_blocks)
    library = native_library()
    assert library is not None
    return Runtime(
        weights.config,
        weights.read,
        precision=cast("Precision", path),
        num_blocks=num_blocks,
        library=library,
    )


@pytest.mark.parametrize("path", ["torch", "fp32", "bf16", "int8"])
def test_random_schedules_on_a_network(tiny_model: Path, path: str) -> None:
    """Natively bit for bit: the log-probabilities too are those of the solo run."""
    weights = open_weights(tiny_model)
    options: dict[str, Any] = {"max_batch_tokens": 64, "max_num_seqs": 4, "check_invariants": True}
    rng = random.Random(1)
    beginning = [rng.randrange(900) for _ in range(60)]
    requests = [
        Request(
            id=str(index),
            prompt_ids=beginning[: rng.choice([0, 30, 50])] + [rng.randrange(900)] * 9,
            params=SamplingParams(
                n=rng.choice([1, 2]), seed=index, max_tokens=24, ignore_eos=True, logprobs=2
            ),
        )
        for index in range(4 if path == "torch" else 12)
    ]

    def answers(num_blocks: int, together: bool) -> list[tuple[list[int], list[float]]]:
        config = EngineConfig(**options, prefix_caching=together, reserved_growth=0)
        engine = Engine(open_runner(weights, path, num_blocks), config, end_ids=(1,))
        collector = Collector()
        for request in requests:
            engine.submit(request, collector)
            if not together:
                run_all(engine)
        run_all(engine)
        assert not together or engine.stats().num_preemptions > 0
        engine.runner.close()
        found = [collector.answers[key] for key in sorted(collector.answers)]
        return [
            (one.token_ids, [p.logprob for d in one.deltas for p in d.logprobs or ()])
            for one in found
        ]

    mixed, alone = answers(4, together=True), answers(64, together=False)
    if path == "torch":
        assert [ids for ids, _ in mixed] == [ids for ids, _ in alone]
    else:
        assert mixed == alone
