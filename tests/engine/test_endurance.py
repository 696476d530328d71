"""Thousands of requests of every kind on a tiny network: nothing leaks, hangs or ends unnamed.

The long forms run in `make soak`; the short ones are the same code with fewer requests.
"""

import gc
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rorqual.checkpoint.weights import open_weights
from rorqual.engine import Delta, Request, SamplingParams
from rorqual.engine.llm import LLM
from rorqual.engine.loading import block_bytes
from rorqual.engine.structure import Structure
from rorqual.errors import CapacityError, RequestError, RorqualError
from rorqual.kernels.step import BLOCK_TOKENS

pytest.importorskip("llguidance")

OPTIONS: dict[str, Any] = {
    "precision": "fp32",
    "num_threads": 1,
    "max_num_seqs": 12,
    "max_batch_tokens": 128,
    "max_waiting_requests": 64,
    "reserved_growth": 0.0,
    "check_invariants": True,
    "seed": 0,
}
CACHE_BLOCKS = 14  # the longest context needs 16
CONTEXT = 500
OVERSUBSCRIBED = 16
VOCABULARY = 900  # ids that the small tokenizer has
MOST_LEAKED_BYTES = 16 << 20
MOST_LEAKED_OBJECTS = 2_000  # that the collector follows; one kept per request would be 9,000
REGEX = r"[0-9]{2}-[a-f]{1,3}"
CHOICES = ["yes", "no", "perhaps"]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": [1, 2]}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
STRUCTURES = {
    "regex": Structure.regex(REGEX),
    "choice": Structure.choice(CHOICES),
    "schema": Structure.json_schema(SCHEMA),
    "impossible": Structure.regex(r"(?=look)ahead"),  # the library knows no look-around
}
STOPS = ["e", " ", "\n", "return", "的", ">>"]


@dataclass
class Served:
    """A request with what came back. NOTE: the engine takes what a taker raises as its failure."""

    request: Request
    kind: str | None
    deltas: list[Delta] = field(default_factory=list)
    num_ended: int = 0
    cancelled: bool = False

    def __call__(self, deltas: list[Delta]) -> None:
        self.deltas += deltas
        self.num_ended += sum(delta.finish_reason is not None for delta in deltas)

    @property
    def ended(self) -> bool:
        return self.num_ended >= self.request.params.n

    def check(self) -> list[str]:
        """How its sequences ended; each in a result or a named error."""
        assert self.num_ended == self.request.params.n
        return [self._check_sequence(index) for index in range(self.request.params.n)]

    def _check_sequence(self, index: int) -> str:
        params = self.request.params
        deltas = [delta for delta in self.deltas if delta.index == index]
        num_tokens = sum(len(delta.token_ids) for delta in deltas)
        assert all(delta.request_id == self.request.id for delta in deltas)
        assert all(delta.finish_reason is None for delta in deltas[:-1]), "a delta after the end"
        if params.logprobs is not None:
            found = [one for delta in deltas for one in delta.logprobs or ()]
            assert len(found) == num_tokens
            assert all(len(one.top) == params.logprobs for one in found)
        last = deltas[-1]
        if last.finish_reason == "error":
            assert isinstance(last.error, RorqualError) and str(last.error)
            return "error"
        assert last.error is None and last.usage is not None
        assert last.usage.completion_tokens == num_tokens
        if last.finish_reason == "cancelled":
            assert self.cancelled
            return "cancelled"
        if last.finish_reason == "length":
            room = min(CONTEXT, CACHE_BLOCKS * BLOCK_TOKENS) + 1 - len(self.request.prompt_ids)
            assert num_tokens == (room if params.max_tokens is None else params.max_tokens)
            return "length"
        assert last.finish_reason == "stop"
        self._check_form("".join(delta.text for delta in deltas), last.stop_reason)
        return "stop"

    def _check_form(self, text: str, stop_reason: object) -> None:
        params = self.request.params
        if isinstance(stop_reason, str):
            assert stop_reason in params.stop
            if params.include_stop_str_in_output:
                assert text.endswith(stop_reason)
            else:
                assert not any(stop in text for stop in params.stop)
        elif isinstance(stop_reason, int):
            assert stop_reason in params.stop_token_ids
        elif self.kind == "regex":
            assert re.fullmatch(REGEX, text)
        elif self.kind == "choice":
            assert text in CHOICES
        elif self.kind == "schema":
            assert set(json.loads(text)) == {"a", "b"}


BEGINNINGS = [
    random.Random(f"beginning {number}").choices(range(10, VOCABULARY), k=150)
    for number in range(3)
]


def random_request(rng: random.Random, name: str) -> Served:
    """A request of any kind; one in forty or so cannot be served."""
    own = [rng.randrange(10, VOCABULARY) for _ in range(rng.randint(1, 60))]
    prompt = rng.choice(BEGINNINGS)[: rng.choice([0, 0, 40, 100, 150])] + own
    if rng.random() < 0.02:
        prompt = rng.choice([[], BEGINNINGS[0] * 4, [*own, 10**9], (BEGINNINGS[0] * 4)[:470]])
    kind = rng.choice([None] * 8 + ["regex", "choice", "schema"])
    if rng.random() < 0.01:
        kind = "impossible"
    params = SamplingParams(
        n=rng.choice([1, 1, 1, 1, 2, 5]),
        temperature=rng.choice([0.0, 0.7, 1.0, 2.0]),
        top_p=rng.choice([1.0, 0.9]),
        top_k=rng.choice([0, 0, 20]),
        min_p=rng.choice([0.0, 0.0, 0.05]),
        presence_penalty=rng.choice([0.0, 0.0, 1.5]),
        frequency_penalty=rng.choice([0.0, 0.0, -0.5]),
        repetition_penalty=rng.choice([1.0, 1.0, 1.3]),
        logit_bias={} if rng.random() < 0.9 else {rng.randrange(VOCABULARY): 5.0},
        stop=() if rng.random() < 0.6 else tuple(rng.sample(STOPS, rng.randint(1, 3))),
        stop_token_ids=() if rng.random() < 0.9 else (rng.randrange(VOCABULARY),),
        include_stop_str_in_output=rng.random() < 0.3,
        skip_special_tokens=kind is not None or rng.random() < 0.8,
        ignore_eos=rng.random() < 0.3,
        max_tokens=rng.choice([1, 5, 20, 40, None if rng.random() < 0.05 else 80]),
        min_tokens=0 if kind else rng.choice([0, 0, 3]),
        seed=rng.choice([None, rng.getrandbits(64)]),
        logprobs=rng.choice([None, None, 0, 3]),
        prompt_logprobs=rng.choice([None, None, None, 1]),
        thinking_budget=rng.choice([None, None, 4]),
        structure=STRUCTURES[kind] if kind else None,
    )
    request = Request(
        id=name,
        prompt_ids=prompt,
        params=params,
        priority=rng.choice([0, 0, 0, -1, 2]),
        cache_salt=rng.choice([b"", b"", b"key"]),
        record_routes=rng.random() < 0.1,
    )
    return Served(request, kind)


@pytest.fixture
def llm(tiny_model: Path) -> Iterator[LLM]:
    """A cache of CACHE_BLOCKS blocks: three requests of the longer kinds fill it."""
    size = CACHE_BLOCKS * block_bytes(open_weights(tiny_model).config, "fp32")
    with LLM(tiny_model, **OPTIONS, max_model_len=CONTEXT, max_cache_bytes=size) as made:
        assert made.engine.runner.num_blocks == CACHE_BLOCKS
        yield made


def serve(tiny_model: Path, num_blocks: int, growth: float) -> tuple[list[Served], LLM, int]:
    """OVERSUBSCRIBED requests at once on a cache of so many blocks; the most that waited."""
    size = num_blocks * block_bytes(open_weights(tiny_model).config, "fp32")
    options = OPTIONS | {
        "max_num_seqs": OVERSUBSCRIBED,
        "max_batch_tokens": 64 * OVERSUBSCRIBED,  # all prompts in the first step, room given
        "reserved_growth": growth,
    }
    llm = LLM(tiny_model, **options, max_cache_bytes=size)
    assert llm.engine.runner.num_blocks == num_blocks
    # Prompts of 40 tokens and answers of 89, whose last one needs no room: four blocks each.
    params = SamplingParams(max_tokens=89, ignore_eos=True, seed=1, logprobs=0)
    prompts = [BEGINNINGS[0][number : number + 40] for number in range(OVERSUBSCRIBED)]
    served = [
        Served(Request(id=str(number), prompt_ids=prompt, params=params), None)
        for number, prompt in enumerate(prompts)
    ]
    for one in served:
        llm.engine.submit(one.request, one)
    most_waiting = 0
    while llm.engine.step():
        most_waiting = max(most_waiting, llm.stats().num_waiting)
    return served, llm, most_waiting


@pytest.mark.parametrize("growth", [0.0, 0.25, 1.0])
def test_a_cache_four_times_too_small_only_makes_them_wait(tiny_model: Path, growth: float) -> None:
    """What is asked at once needs 4 x the cache: all end as they do with room, none is refused."""
    wanted = OVERSUBSCRIBED * 4
    roomy, wide, waited = serve(tiny_model, wanted, 1.0)
    assert waited == 0 and wide.stats().num_preemptions == 0
    tight, llm, waited = serve(tiny_model, wanted // 4, growth)
    for one, other in zip(tight, roomy, strict=True):
        assert one.check() == ["length"]
        assert [d.token_ids for d in one.deltas] == [d.token_ids for d in other.deltas]
        assert [d.logprobs for d in one.deltas] == [d.logprobs for d in other.deltas]
    stats = llm.stats()
    assert waited > 0 and stats.num_failed == 0
    assert stats.free_blocks == stats.total_blocks
    if growth != 0.25:
        assert (stats.num_preemptions == 0) == (growth == 1.0)
    # Queueing, not thrashing: less is computed twice than once.
    assert stats.recomputed_tokens < stats.prompt_tokens + stats.completion_tokens
    for one in (wide, llm):
        one.close()


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Tally:
    """How requests ended, and what memory held on the way."""

    ends: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    bytes_held: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)

    def weigh(self) -> None:
        gc.collect()
        self.bytes_held.append(resident_bytes())
        self.objects.append(len(gc.get_objects()))


def endure(llm: LLM, count: int, weigh_every: int) -> Tally:
    """Submit and cancel at random, stepping in between; the engine must come to rest each time."""
    engine, rng, tally = llm.engine, random.Random(count), Tally()
    open_requests: dict[str, Served] = {}
    idle_steps = 0
    room = OPTIONS["max_waiting_requests"] * 3 // 4

    def collect() -> bool:
        ended = [name for name, one in open_requests.items() if one.ended]
        for name in ended:
            tally.ends.update(open_requests.pop(name).check())
        return bool(ended)

    def step() -> None:
        nonlocal idle_steps
        written = engine.stats().completion_tokens
        engine.step()
        ended = collect()
        # A prompt takes a few steps to read; nothing else may keep every answer waiting.
        idle_steps = 0 if ended or engine.stats().completion_tokens > written else idle_steps + 1
        assert idle_steps < 50, f"{len(open_requests)} requests are open and none moves"

    def submit(name: str) -> None:
        one = random_request(rng, name)
        try:
            engine.submit(one.request, one)
            open_requests[name] = one
        except (RequestError, CapacityError) as error:
            tally.refused[type(error).__name__] += 1

    def cancel_one() -> None:
        victim = open_requests[rng.choice(list(open_requests))]
        victim.cancelled = True
        before = engine.pool.num_available
        assert engine.cancel(victim.request.id)
        assert victim.ended and engine.pool.num_available >= before
        collect()

    for number in range(count):
        submit(str(number))
        for _ in range(rng.choice([0, 0, 1, 2, 6])):
            step()
        while len(open_requests) > room:
            step()
        if open_requests and rng.random() < 0.15:
            cancel_one()
        if (number + 1) % weigh_every == 0:
            while open_requests:
                step()
            assert engine.pool.num_available == engine.pool.num_blocks
            assert not engine.has_work and not engine.scheduler.waiting
            tally.weigh()
    assert not open_requests
    return tally


def check(llm: LLM, tally: Tally, count: int) -> None:
    """Every kind of end occurred, and the engine worked under pressure."""
    assert set(tally.ends) >= {"stop", "length", "cancelled"}
    assert set(tally.refused) == {"RequestError", "CapacityError"}
    stats = llm.stats()
    assert stats.num_preemptions > 0 and stats.cached_tokens > 0
    assert stats.last_error is None
    assert sum(tally.refused.values()) < count // 10


def test_random_requests_end_and_leave_nothing(llm: LLM) -> None:
    check(llm, endure(llm, 300, 100), 300)


@pytest.mark.soak
def test_ten_thousand_random_requests(llm: LLM) -> None:
    tally = endure(llm, 10_000, 1_000)
    check(llm, tally, 10_000)
    print(f"ends {tally.ends}, refused {tally.refused}")
    print(f"MB {[round(b / 1e6, 1) for b in tally.bytes_held]}, objects {tally.objects}")
    assert tally.bytes_held[-1] - tally.bytes_held[0] <= MOST_LEAKED_BYTES
    assert tally.objects[-1] - tally.objects[0] <= MOST_LEAKED_OBJECTS
