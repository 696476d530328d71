"""The engine on a GPU: what it says is what it says on the CPU.

`pytest -m gpu tests/engine/test_cuda.py` on a machine with CUDA.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rorqual.config.tasks import TaskShare
from rorqual.engine.llm import LLM
from rorqual.engine.requests import SamplingParams
from rorqual.errors import ConfigError
from rorqual.eval.problems import held_out_problems

pytestmark = pytest.mark.gpu

MODEL = Path(__file__).parents[2] / "models" / "rorqual-pocket"
NUM_PROMPTS = 24


def conversations() -> list[list[dict[str, Any]]]:
    shares = [TaskShare(name=name) for name in ("arithmetic", "running_state", "sorting")]
    problems = held_out_problems(shares, NUM_PROMPTS, seed=1)
    return [[{"role": "user", "content": problem.prompt}] for problem in problems]


def opened(device: str, precision: str, **options: Any) -> LLM:
    return LLM(MODEL, device=device, precision=precision, max_cache_bytes=64 << 20, **options)


def answers(llm: LLM, params: SamplingParams) -> list[str]:
    return [output.outputs[0].text for output in llm.chat(conversations(), params)]


@pytest.fixture(scope="module")
def on_the_cpu() -> list[str]:
    with opened("cpu", "fp32") as llm:
        return answers(llm, SamplingParams(temperature=0, max_tokens=200))


def test_greedy_answers_are_those_of_the_cpu(on_the_cpu: list[str]) -> None:
    with opened("cuda", "fp32", num_speculative_tokens="auto") as llm:
        found = answers(llm, SamplingParams(temperature=0, max_tokens=200))
    same = sum(a == b for a, b in zip(found, on_the_cpu, strict=True))
    assert same >= NUM_PROMPTS - 1  # a near tie may fall the other way


@pytest.mark.parametrize(("precision", "mean"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_prompts_are_scored_as_on_the_cpu(precision: str, mean: float) -> None:
    params = SamplingParams(max_tokens=0, prompt_logprobs=0)
    text = "<think>\n3 + 4 = 7, 7 * 2 = 14\n</think>\nThe answer is 14. 答案是十四。" * 4
    scored: list[np.ndarray] = []
    for device, kind in (("cpu", "fp32"), ("cuda", precision)):
        with opened(device, kind) as llm:
            (output,) = llm.generate(text, params)
            assert output.prompt_logprobs is not None
            scored.append(np.array([e.logprob for e in output.prompt_logprobs if e is not None]))
    assert len(scored[0]) > 50
    assert float(np.abs(scored[0] - scored[1]).mean()) < mean


def test_drafting_that_was_asked_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="the torch path cannot draft"):
        opened("cuda", "bf16", num_speculative_tokens=2)


def test_a_cancelled_batch_leaves_every_block_free() -> None:
    with opened("cuda", "bf16", prefix_caching=False, check_invariants=True) as llm:
        free = llm.engine.stats().free_blocks
        params = SamplingParams(temperature=1.0, max_tokens=40, n=4, seed=5)
        found = llm.chat(conversations()[:4], params)
        assert all(len(output.outputs) == 4 for output in found)
        assert llm.engine.stats().free_blocks == free
