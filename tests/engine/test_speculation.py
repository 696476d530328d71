"""Drafts change how soon a token comes, never which."""

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rorqual.checkpoint import save_model
from rorqual.checkpoint.weights import open_weights
from rorqual.config.engine import EngineConfig
from rorqual.engine import Request, SamplingParams
from rorqual.engine.engine import Engine
from rorqual.engine.llm import LLM
from rorqual.engine.outputs import CompletionOutput
from rorqual.engine.payoff import SETTLED_STEPS, TRIAL_STEPS
from rorqual.engine.requests import EngineStats
from rorqual.engine.structure import Structure
from rorqual.engine.torch_runner import TorchRunner
from rorqual.errors import ConfigError
from rorqual.kernels.library import native_library
from rorqual.kernels.runtime import Runtime
from rorqual.kernels.runtime_layout import Precision
from rorqual.kernels.step import BLOCK_TOKENS
from rorqual.model import Transformer, initialize
from tests.conftest import small_config
from tests.engine.drafting import DraftingHashRunner, Quality
from tests.engine.fakes import Answer, Collector, HashRunner, make_engine, run_all, solo
from tests.engine.tokenizers import small_tokenizer


def prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(2, 40, length).tolist()


PLAIN = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
KINDS = {
    "greedy": PLAIN,
    "drawn": replace(PLAIN, temperature=1.0, seed=3),
    "truncated": replace(PLAIN, temperature=0.8, top_p=0.9, top_k=9, min_p=0.02, seed=4),
    "figures": replace(PLAIN, temperature=1.0, seed=5, logprobs=2, prompt_logprobs=1),
    "policy": replace(PLAIN, temperature=0.9, seed=5, policy_stats=True),
    "penalties": replace(PLAIN, repetition_penalty=1.4, frequency_penalty=0.6, seed=6),
    "bias": replace(PLAIN, temperature=1.2, logit_bias={7: 3.0, 8: -100.0}, seed=7),
    "ends": replace(PLAIN, temperature=1.0, ignore_eos=False, min_tokens=6, seed=8),
    "stops": replace(PLAIN, temperature=1.0, stop_token_ids=(11, 12, 13), seed=9),
    "samples": replace(PLAIN, temperature=1.0, n=4, seed=10),
}


def flat(answer: Answer) -> tuple[Any, ...]:
    """What an answer says, however it was cut into deltas."""
    return (
        answer.token_ids,
        answer.finish_reason,
        answer.last.stop_reason,
        [one for delta in answer.deltas for one in delta.logprobs or ()],
        [one for delta in answer.deltas for one in delta.policy_stats or ()],
        answer.deltas[0].prompt_logprobs,
    )


@functools.cache
def alone(name: str) -> list[tuple[Any, ...]]:
    """A kind of request on an engine of its own, without drafts."""
    length = 50 + list(KINDS).index(name)
    return [flat(answer) for answer in solo(prompt(length), KINDS[name])]


@pytest.mark.parametrize("quality", ["right", "wrong", "mixed"])
@pytest.mark.parametrize("num_drafts", [1, 3])
def test_drafts_change_no_token(quality: Quality, num_drafts: int) -> None:
    runner = DraftingHashRunner(96, quality=quality)
    engine, collector = make_engine(runner, num_speculative_tokens=num_drafts), Collector()
    for number, (name, params) in enumerate(KINDS.items()):
        engine.submit(Request(id=name, prompt_ids=prompt(50 + number), params=params), collector)
    run_all(engine)
    for name in KINDS:
        for index, expected in enumerate(alone(name)):
            assert flat(collector.answers[name, index]) == expected, name
    stats = engine.stats()
    assert stats.drafted_tokens > 100 and engine.pool.num_available == 96
    share = stats.accepted_tokens / stats.drafted_tokens
    low, high = {"right": (0.9, 1.0), "wrong": (0.0, 0.1), "mixed": (0.2, 0.9)}[quality]
    assert low <= share <= high


@pytest.mark.parametrize("length", [1, BLOCK_TOKENS - 1, BLOCK_TOKENS, 3 * BLOCK_TOKENS + 1])
@pytest.mark.parametrize("num_drafts", [1, 2, 5])
def test_a_module_that_is_always_right_saves_its_steps(length: int, num_drafts: int) -> None:
    runner = DraftingHashRunner(64)
    engine, collector = make_engine(runner, num_speculative_tokens=num_drafts), Collector()
    params = replace(PLAIN, temperature=1.0, seed=1, max_tokens=61)
    engine.submit(Request(id="r", prompt_ids=prompt(length), params=params), collector)
    run_all(engine)
    assert collector.answers["r", 0].token_ids == solo(prompt(length), params)[0].token_ids
    stats = engine.stats()
    assert stats.accepted_tokens == stats.drafted_tokens
    # The first step reads the prompt. A draft is left out where its cell has no block yet.
    fewest = 1 + -(-60 // (1 + num_drafts))
    assert fewest <= stats.num_steps <= fewest + (0 if num_drafts == 1 else 4)
    # One delta a step, with all that the step brought.
    assert len(collector.answers["r", 0].deltas) == stats.num_steps


def test_prompts_in_pieces_and_prefix_hits_leave_no_gap_in_the_modules_cache() -> None:
    runner = DraftingHashRunner(64)
    engine = make_engine(runner, num_speculative_tokens=1, max_batch_tokens=40)
    collector = Collector()
    beginning = prompt(150)
    for name in ("first", "again"):
        engine.submit(Request(id=name, prompt_ids=[*beginning, 9], params=PLAIN), collector)
        run_all(engine)
    stats = engine.stats()
    assert stats.cached_tokens == 128
    assert stats.accepted_tokens == stats.drafted_tokens > 30


def test_a_prefix_that_the_module_has_not_read_is_not_drafted_from() -> None:
    runner = DraftingHashRunner(64)
    engine, collector = make_engine(runner, num_speculative_tokens=1), Collector()
    routed = Request(id="routed", prompt_ids=prompt(100), params=PLAIN, record_routes=True)
    engine.submit(routed, collector)
    run_all(engine)
    assert runner.num_draft_steps == 0  # rollouts that keep routes are not speculated
    engine.submit(Request(id="hit", prompt_ids=prompt(100), params=PLAIN), collector)
    run_all(engine)
    assert engine.stats().cached_tokens == 96 and engine.stats().drafted_tokens == 0
    engine.submit(Request(id="other", prompt_ids=prompt(100, 1), params=PLAIN), collector)
    run_all(engine)
    assert engine.stats().drafted_tokens == engine.stats().accepted_tokens > 0


def test_drafts_take_no_block_that_another_sequence_needs() -> None:
    runner = DraftingHashRunner(4, quality="mixed")
    engine = make_engine(runner, num_speculative_tokens=8, reserved_growth=0)
    collector = Collector()
    for number in range(4):
        request = Request(id=str(number), prompt_ids=prompt(30, number), params=PLAIN)
        engine.submit(request, collector)
    run_all(engine)
    assert engine.stats().num_preemptions > 0 and engine.stats().accepted_tokens > 0
    for number in range(4):
        expected = solo(prompt(30, number), PLAIN)[0]
        assert collector.answers[str(number), 0].token_ids == expected.token_ids


def test_a_cancelled_sequence_takes_its_drafts_with_it() -> None:
    engine = make_engine(DraftingHashRunner(16), num_speculative_tokens=3)
    collector = Collector()
    engine.submit(Request(id="r", prompt_ids=prompt(30), params=PLAIN), collector)
    for _ in range(4):
        engine.step()
    assert engine.stats().accepted_tokens > 0
    engine.cancel("r")
    assert engine.pool.num_available == 16 and not engine.has_work
    assert collector.answers["r", 0].finish_reason == "cancelled"


def serve_long(runner: DraftingHashRunner, engine: Engine, num_tokens: int, name: str) -> Answer:
    collector = Collector()
    params = replace(PLAIN, max_tokens=num_tokens)
    engine.submit(Request(id=name, prompt_ids=prompt(5), params=params), collector)
    run_all(engine)
    return collector.answers[name, 0]


@pytest.mark.parametrize("quality", ["right", "wrong"])
def test_speculation_stays_where_it_pays_and_goes_where_not(quality: Quality) -> None:
    # A step costs 1.1 ms, a second row 0.1, a draft 0.11: right drafts pay 1.6 times.
    runner = DraftingHashRunner(64, context=2000, quality=quality)
    engine = make_engine(runner, num_speculative_tokens="auto", prefix_caching=False)
    before = serve_long(runner, engine, 3 * TRIAL_STEPS, "trial")
    gain = engine.stats().speculation_gain
    assert gain is not None
    drafted = engine.stats().drafted_tokens
    after = serve_long(runner, engine, 200, "after")
    if quality == "right":
        assert 1.5 < gain < 1.8
        assert engine.stats().drafted_tokens - drafted >= 99
    else:
        assert 0.7 < gain < 0.9
        assert engine.stats().drafted_tokens == drafted
        calls = runner.num_draft_steps
        serve_long(runner, engine, 50, "prompt")
        assert runner.num_draft_steps == calls  # not even prompts are read for it
    assert before.token_ids == after.token_ids[: 3 * TRIAL_STEPS]
    assert after.token_ids == solo(prompt(5), replace(PLAIN, max_tokens=200))[0].token_ids


def test_what_did_not_pay_is_measured_again() -> None:
    runner = DraftingHashRunner(64, context=2000, quality="wrong")
    engine = make_engine(runner, num_speculative_tokens="auto", prefix_caching=False)
    serve_long(runner, engine, 2 * TRIAL_STEPS, "trial")
    assert engine.stats().speculation_gain is not None
    runner.quality = "right"
    num_steps, number = engine.stats().num_steps, 0
    while engine.stats().num_steps < num_steps + SETTLED_STEPS + 3 * TRIAL_STEPS:
        serve_long(runner, engine, 300, f"r{number}")
        number += 1
    gain = engine.stats().speculation_gain
    assert gain is not None and gain > 1.5


def test_only_what_can_draft_is_asked_to() -> None:
    with pytest.raises(ConfigError, match="num_speculative_tokens=2, but the model has no MTP"):
        make_engine(HashRunner(8), num_speculative_tokens=2)
    make_engine(HashRunner(8), num_speculative_tokens="auto")
    engine = make_engine(DraftingHashRunner(8), num_speculative_tokens="off")
    serve_long(DraftingHashRunner(8), engine, 20, "r")
    assert engine.stats().drafted_tokens == 0


@pytest.fixture(scope="module")
def drafting_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random V3 model with one MTP module."""
    tokenizer = small_tokenizer()
    config = small_config(
        vocab_size=tokenizer.vocab_size + 5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        num_nextn_predict_layers=1,
    )
    model = Transformer(config)
    initialize(model, 0)
    path = tmp_path_factory.mktemp("drafting") / "model"
    save_model(model, tokenizer, path)
    return path


def test_the_torch_path_refuses_to_draft(drafting_model: Path) -> None:
    weights = open_weights(drafting_model)
    runner = TorchRunner(weights.config, weights.read, precision="fp32", num_blocks=4)
    with pytest.raises(ConfigError, match="the torch path cannot draft"):
        Engine(runner, EngineConfig(num_speculative_tokens=1), end_ids=(1,))
    Engine(runner, EngineConfig(), end_ids=(1,))


def open_llm(path: Path, precision: str, num_drafts: int | str) -> LLM:
    return LLM(
        path,
        precision=precision,
        max_cache_bytes=4 << 20,
        check_invariants=True,
        num_speculative_tokens=num_drafts,
    )


@pytest.fixture(scope="module", params=["fp32", "int8"])
def pair(request: pytest.FixtureRequest, drafting_model: Path) -> Iterator[tuple[LLM, LLM]]:
    """The same model without drafts and with two a step."""
    if native_library() is None:
        pytest.skip("no native library")
    with (
        open_llm(drafting_model, request.param, "off") as plain,
        open_llm(drafting_model, request.param, 2) as drafting,
    ):
        yield plain, drafting


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
WISHES = {
    "drawn": SamplingParams(seed=1, max_tokens=60, logprobs=2, ignore_eos=True, n=2),
    "greedy": SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True),
    "json": SamplingParams(seed=2, max_tokens=60, structure=Structure.json_schema(SCHEMA)),
    "regex": SamplingParams(seed=3, max_tokens=60, structure=Structure.regex("(ab|cd){6,9}x")),
    "stop": SamplingParams(seed=4, max_tokens=80, stop=("e", "a ("), ignore_eos=True),
    "budget": SamplingParams(seed=5, max_tokens=40, thinking_budget=7, ignore_eos=True),
    "both": SamplingParams(
        seed=6, max_tokens=60, thinking_budget=5, structure=Structure.choice(["yes", "no"])
    ),
}


def said(output: CompletionOutput) -> tuple[Any, ...]:
    return (
        output.token_ids,
        output.text,
        output.reasoning,
        output.finish_reason,
        output.stop_reason,
        output.logprobs,
        output.usage,
    )


def test_every_feature_says_the_same_on_a_network(pair: tuple[LLM, LLM]) -> None:
    """Bit for bit: log-probabilities too."""
    plain, drafting = pair
    conversations = [[{"role": "user", "content": f"say {name}"}] for name in WISHES]
    answers = [
        llm.chat(conversations, list(WISHES.values()), thinking=True) for llm in (plain, drafting)
    ]
    for name, one, other in zip(WISHES, *answers, strict=True):
        assert [said(o) for o in one.outputs] == [said(o) for o in other.outputs], name
    assert drafting.stats().drafted_tokens > drafting.stats().accepted_tokens
    assert plain.stats().drafted_tokens == 0
    json.loads(answers[1][list(WISHES).index("json")].outputs[0].text or "{}")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_crowded_network_with_drafts_writes_what_each_request_writes_alone(
    drafting_model: Path, precision: Precision
) -> None:
    """Pre-emption, pieces, prefix hits and drafts together against none of them, bit for bit."""
    library = native_library()
    if library is None:
        pytest.skip("no native library")
    weights = open_weights(drafting_model)
    requests = [
        Request(
            id=str(index),
            prompt_ids=prompt(50)[: 25 * (index % 3)] + prompt(9, index),
            params=replace(PLAIN, n=1 + index % 2, seed=index, temperature=1.0, logprobs=1),
        )
        for index in range(8)
    ]

    def answers(num_blocks: int, **options: Any) -> tuple[dict[Any, Any], EngineStats]:
        config = EngineConfig(max_batch_tokens=64, max_num_seqs=4, reserved_growth=0, **options)
        runtime = Runtime(
            weights.config, weights.read, precision=precision, num_blocks=num_blocks,
            library=library,
        )  # fmt: skip
        engine, collector = Engine(runtime, config, end_ids=(1,)), Collector()
        for request in requests:
            engine.submit(request, collector)
            if num_blocks > 4:
                run_all(engine)
        run_all(engine)
        runtime.close()
        return {key: flat(one) for key, one in collector.answers.items()}, engine.stats()

    crowded, stats = answers(4, num_speculative_tokens=2, check_invariants=True)
    assert stats.num_preemptions > 0 and stats.drafted_tokens > stats.accepted_tokens
    assert crowded == answers(64, num_speculative_tokens="off", prefix_caching=False)[0]


def test_a_module_that_copies_the_model_is_accepted(drafting_model: Path) -> None:
    """Greedy drafts of a module whose logits are the model's next ones: counted and kept."""
    library = native_library()
    if library is None:
        pytest.skip("no native library")
    weights = open_weights(drafting_model)

    # Without its layer the module sees only the token that follows; so does a model whose
    # embedding of one token leads to the next whatever came before.
    def read(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        tensor = weights.read(name)
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            return np.zeros_like(tensor)
        if name.endswith("eh_proj.weight"):
            width = tensor.shape[0]
            return np.concatenate([np.eye(width), np.zeros((width, width))], 1).astype(np.float32)
        return tensor

    runtime = Runtime(weights.config, read, precision="fp32", num_blocks=16, library=library)
    engine = Engine(runtime, EngineConfig(num_speculative_tokens=3), end_ids=(1,))
    collector = Collector()
    engine.submit(Request(id="r", prompt_ids=[5, 6, 7], params=PLAIN), collector)
    run_all(engine)
    stats = engine.stats()
    assert stats.accepted_tokens == stats.drafted_tokens > 20
    runtime.close()
