"""`LLM` over a tiny checkpoint on the runner that this machine has."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import rorqual
from rorqual.checkpoint import load_model
from rorqual.engine.llm import LLM
from rorqual.engine.requests import SamplingParams
from rorqual.engine.structure import Structure
from rorqual.errors import CapacityError, ConfigError, RequestError
from rorqual.model.sample import sample_completions

OPTIONS = {"precision": "fp32", "max_cache_bytes": 4 << 20, "check_invariants": True}


@pytest.fixture(scope="module")
def llm(tiny_model: Path) -> Iterator[LLM]:
    with LLM(tiny_model, **OPTIONS) as made:
        yield made


def test_the_package_offers_it_lazily() -> None:
    assert rorqual.LLM is LLM and rorqual.SamplingParams is SamplingParams
    code = "import sys, rorqual; assert not [m for m in sys.modules if m.startswith('rorqual.')]"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_serving_needs_no_torch(tiny_model: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from rorqual import LLM, SamplingParams\n"
        "import rorqual.engine.thread\n"
        f"with LLM({str(tiny_model)!r}, max_cache_bytes=1 << 22) as llm:\n"
        "    params = SamplingParams(max_tokens=3, ignore_eos=True)\n"
        "    print(len(llm.generate('a', params)[0].outputs[0].token_ids))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["3"]


def test_draws_what_training_draws_from_the_same_seeds(llm: LLM, tiny_model: Path) -> None:
    model = load_model(tiny_model)
    prompts = [llm.tokenizer.encode(text) for text in ("def main(", "import ", "北京今天")]
    theirs = sample_completions(model, prompts, seeds=[3, 4, 5], max_new_tokens=40)
    params = [
        SamplingParams(seed=seed, max_tokens=40, policy_stats=True, logprobs=0)
        for seed in (3, 4, 5)
    ]
    for mine, other in zip(llm.generate(prompts, params), theirs, strict=True):
        found = mine.outputs[0]
        assert found.token_ids == other.ids
        assert found.policy_stats is not None and found.logprobs is not None
        assert np.allclose([s.logprob for s in found.policy_stats], other.logprobs, atol=1e-4)
        assert np.allclose([s.logprob for s in found.logprobs], other.logprobs, atol=1e-4)
        assert np.mean([s.entropy for s in found.policy_stats]) == pytest.approx(
            other.entropy, abs=1e-4
        )


def test_scores_equal_the_training_forward(llm: LLM, tiny_model: Path) -> None:
    model = load_model(tiny_model)
    ids = llm.tokenizer.encode("for name in names:\n    print(name)\n" * 8)
    scores = llm.score([ids, ids[:7]])
    with torch.no_grad():
        logprobs = model.logits(torch.tensor([ids]))[0].log_softmax(-1)
    expected = logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()
    assert np.abs(scores[0] - expected).max() < 1e-4
    assert np.abs(scores[1] - expected[:6]).max() < 1e-4


def test_prompt_logprobs_come_with_the_likeliest(llm: LLM) -> None:
    ids = llm.tokenizer.encode("return None")
    (output,) = llm.generate([ids], SamplingParams(max_tokens=1, prompt_logprobs=3, seed=1))
    assert output.prompt_logprobs is not None and output.prompt_logprobs[0] is None
    for token, found in zip(ids[1:], output.prompt_logprobs[1:], strict=True):
        assert found is not None and found.token_id == token
        assert len(found.top) == 3 and found.top[0][1] >= found.logprob
    assert len(output.outputs[0].token_ids) == 1


def test_streamed_pieces_add_up_to_the_whole(llm: LLM) -> None:
    params = SamplingParams(max_tokens=60, seed=8, n=2)
    (whole,) = llm.generate("class Parser", params)
    for index in range(2):
        text = "".join(d.text for d in llm.stream("class Parser", params) if d.index == index)
        assert text == whole.outputs[index].text
    assert whole.outputs[0].text != whole.outputs[1].text


def test_leaving_a_stream_early_cancels_it(llm: LLM) -> None:
    stream = llm.stream("class Parser", SamplingParams(max_tokens=60, ignore_eos=True))
    next(stream)
    stream.close()
    assert not llm.engine.has_work
    assert llm.engine.pool.num_available == llm.engine.pool.num_blocks


def test_a_stop_string_cuts_the_text_and_is_named(llm: LLM) -> None:
    params = SamplingParams(max_tokens=80, seed=2, ignore_eos=True)
    text = llm.generate("def ", params)[0].outputs[0].text
    stop = text[20:23]
    output = llm.generate(
        "def ", SamplingParams(max_tokens=80, seed=2, ignore_eos=True, stop=(stop,))
    )[0].outputs[0]
    assert output.finish_reason == "stop" and output.stop_reason == stop
    assert output.text == text[: text.index(stop)]


def test_a_thinking_budget_ends_the_thinking(llm: LLM) -> None:
    message = [{"role": "user", "content": "hello"}]
    params = SamplingParams(max_tokens=40, seed=3, thinking_budget=7, ignore_eos=True)
    output = llm.chat(message, params, thinking=True)[0].outputs[0]
    end = llm.tokenizer.special_tokens["</think>"]
    assert output.token_ids[7] == end or end in output.token_ids[:7]
    assert output.usage is not None and output.usage.reasoning_tokens <= 7
    assert output.reasoning or output.usage.reasoning_tokens < 7
    assert "</think>" not in output.text + output.reasoning


def test_a_structure_is_kept_to(llm: LLM) -> None:
    pytest.importorskip("llguidance")
    params = SamplingParams(
        max_tokens=60, seed=1, n=3, structure=Structure.regex(r"[0-9]{3}-[a-f]{2}")
    )
    outputs = llm.generate("number ", params)[0].outputs
    assert len({output.text for output in outputs}) == 3
    for output in outputs:
        assert output.finish_reason == "stop"
        digits, letters = output.text.split("-")
        assert len(digits) == 3 and digits.isdecimal()
        assert len(letters) == 2 and set(letters) <= set("abcdef")


def test_a_structure_waits_for_the_end_of_the_thinking(llm: LLM) -> None:
    pytest.importorskip("llguidance")
    params = SamplingParams(
        max_tokens=60, seed=1, thinking_budget=5, structure=Structure.choice(["yes", "no"])
    )
    message = [{"role": "user", "content": "hello"}]
    output = llm.chat(message, params, thinking=True)[0].outputs[0]
    assert output.text in ("yes", "no")
    assert output.usage is not None and output.usage.reasoning_tokens == 5


def test_wrong_calls_are_refused(llm: LLM) -> None:
    with pytest.raises(RequestError, match="2 sampling_params for 1 prompts"):
        llm.generate("a", [SamplingParams()] * 2)
    with pytest.raises(RequestError, match="temperature=-1"):
        SamplingParams(temperature=-1)
    with pytest.raises(RequestError, match="top_p=nan"):
        SamplingParams(top_p=float("nan"))
    with pytest.raises(RequestError, match="n=0"):
        SamplingParams(n=0)
    with pytest.raises(RequestError, match="prompt of 600 tokens"):
        llm.generate([[5] * 600])
    assert not llm.engine.has_work


def test_wrong_options_and_too_little_memory_are_named(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="max_seqs"):
        LLM(tiny_model, max_seqs=4)
    with pytest.raises(CapacityError, match="lower max_cache_bytes"):
        LLM(
            tiny_model, max_cache_bytes=1 << 50, max_num_seqs=1 << 40,
        )  # fmt: skip
    with pytest.raises(CapacityError, match="raise max_cache_bytes"):
        LLM(tiny_model, max_cache_bytes=100)


def test_recommended_sampling_comes_from_generation_config(
    tiny_model: Path, tmp_path: Path
) -> None:
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    recommended = {"temperature": 0.6, "top_p": 0.95, "eos_token_id": [1, 7]}
    (tmp_path / "generation_config.json").write_text(json.dumps(recommended))
    with LLM(tmp_path, **OPTIONS) as other:
        params = other.get_default_sampling_params()
        assert (params.temperature, params.top_p) == (0.6, 0.95)
        assert other.engine.admission.end_ids[:2] == (1, 7)


def test_new_weights_in_place(tiny_model: Path) -> None:
    with LLM(tiny_model, **OPTIONS) as llm:
        ids = llm.tokenizer.encode("for name in names")
        before = llm.score([ids])[0]
        read = llm._source.read
        llm.update_weights(lambda name: read(name) * (0.5 if name == "lm_head.weight" else 1.0))
        changed = llm.score([ids])[0]
        assert np.abs(changed - before).max() > 1e-3
        llm.update_weights(read)
        assert np.array_equal(llm.score([ids])[0], before)
