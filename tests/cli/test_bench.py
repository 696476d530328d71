"""`rorqual bench`: figures that add up, counts that agree with hand counts, and no torch."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import rorqual.kernels as kernels
from rorqual.cli.main import build_app
from rorqual.config import DenseConfig, ModelConfig
from rorqual.engine.benchmark import DECODE_WINDOW, Case, StepBench, text_ids
from rorqual.engine.random_model import SHAPES, RandomWeights, random_config
from rorqual.engine.workload import main_tensors, step_flops, touched_weight_bytes
from rorqual.errors import ConfigError
from rorqual.kernels.library import find_library, native_library
from rorqual.planner import count_parameters
from rorqual.tokenizer import train_tokenizer
from tests.conftest import IN_CI

SMALL = ["bench", "hidden96", "--context", "40", "--prompts", "2", "--seconds", "0.01"]


@pytest.fixture(autouse=True)
def native() -> None:
    if find_library(list(kernels.__path__)) is None:
        message = "the native kernels are not built; run `pip install -e .`"
        pytest.fail(message) if IN_CI else pytest.skip(message)


def run_json(*arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(build_app("bench"), [*SMALL, *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_figures_of_a_case_belong_together() -> None:
    found = run_json("--usd-per-hour", "3.6", "--threads", "1", "--isa", "portable")
    assert (found["isa"], found["threads"], found["precision"]) == ("portable", 1, "bf16")
    one, batch, prefill = found["cases"]
    names = [case["case"] for case in (one, batch, prefill)]
    assert names == ["decode 1 @ 40", "decode 16 @ 40", "prefill 2 x 40"]
    for case, tokens in ((one, 1), (batch, 16), (prefill, 80)):
        speed = case["tokens_per_second"]
        assert speed == pytest.approx(tokens / case["step_ms"] * 1e3)
        assert case["tokens_per_second_min"] <= speed <= case["tokens_per_second_max"]
        assert case["usd_per_million_tokens"] == pytest.approx(1e3 / speed)
        gemm = found["gemm"]["flops_per_second"]
        assert case["gemm_percent"] == pytest.approx(100 * case["flops_per_second"] / gemm)
    for case in (one, batch):
        share = case["bytes_per_second"] / case["read_bytes_per_second"]
        assert case["bandwidth_percent"] == pytest.approx(100 * share)
    assert one["experts_touched_per_layer"] == 2  # top-2 of one token
    assert 2 < batch["experts_touched_per_layer"] <= 8
    assert "touched_bytes" not in prefill


def test_the_table_names_every_case() -> None:
    result = CliRunner().invoke(build_app("bench"), [*SMALL, "--precision", "int8"])
    assert result.exit_code == 0, result.output
    for text in ("hidden96, int8", "decode 1 @ 40", "decode 16 @ 40", "prefill 2 x 40"):
        assert text in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--isa", "sse1"], "use one of portable"),
        (["--context", "9000"], "lower the context"),
        (["--prompts", "0"], "at least 1"),
        (["--seconds", "0"], "more than 0 seconds"),
    ],
)
def test_impossible_wishes_are_usage_errors(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(build_app("bench"), [*SMALL, *arguments])
    assert isinstance(result.exception, ConfigError) and result.exception.exit_code == 2
    assert said in str(result.exception)


def test_bench_runs_where_torch_cannot_be_imported() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['rorqual', *sys.argv[1:]]\n"
        "from rorqual.cli.main import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *SMALL, "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "hidden96"


def test_counts_of_m_small_agree_with_the_peers_study() -> None:
    """52.4 MB a token and 49 MFLOP a prompt token without the head, counted by hand there."""
    config = random_config("m_small")
    assert isinstance(config, ModelConfig)
    assert touched_weight_bytes(config, "bf16", 4) == pytest.approx(52.4e6, rel=0.01)
    head = 2 * 8 * config.vocab_size * config.hidden_size
    assert (step_flops(config, 8, 512, 0) - head) / 4096 == pytest.approx(49e6, rel=0.01)
    every_expert = touched_weight_bytes(config, "fp32", config.num_experts)
    embedding = config.vocab_size * config.hidden_size
    assert every_expert == 4 * (count_parameters(config).total - embedding)


def test_dense_decoding_counts_every_matrix_once() -> None:
    fields = SHAPES["smollm2-shape"] | {"num_hidden_layers": 1, "vocab_size": 100}
    config = DenseConfig.model_validate(fields)
    width, inner, key_width = 576, 1536, 192
    matrices = 2 * width * width + 2 * width * key_width + 3 * width * inner + 100 * width
    attention = 2 * 576 * 8  # scores and sums over 7 cached tokens and itself
    assert step_flops(config, 3, 1, 7) == 2 * 3 * (matrices + attention)
    assert touched_weight_bytes(config, "bf16", 0) == 2 * matrices + 4 * 3 * width


def test_mtp_modules_count_neither_as_read_nor_as_computed() -> None:
    plain = random_config("hidden96")
    assert isinstance(plain, ModelConfig)
    drafting = plain.model_copy(update={"num_nextn_predict_layers": 1})
    assert main_tensors(drafting) == main_tensors(plain)


def test_random_weights_are_the_same_wherever_they_are_made() -> None:
    config = random_config("hidden96")
    first, again = RandomWeights(config), RandomWeights(config)
    for name in first.names():
        values = first.read(name)
        assert values.shape == first.shape(name) and values.dtype == np.float32
        np.testing.assert_array_equal(values, again.read(name))
    experts = [first.read(f"model.layers.1.mlp.experts.{e}.gate_proj.weight") for e in range(2)]
    assert abs(np.corrcoef(experts[0].ravel(), experts[1].ravel())[0, 1]) < 0.05
    assert experts[0].std() == pytest.approx(96**-0.5, rel=0.05)


def test_text_is_varied_and_as_long_as_asked() -> None:
    tokenizer = train_tokenizer(["some words about numbers"] * 4, vocab_size=300)
    ids = text_ids(tokenizer, tokenizer.vocab_size, 3000)
    assert len(ids) == 3000 and ids.max() < tokenizer.vocab_size
    pairs = set(zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True))
    assert len(pairs) > 300  # no repeated loop


def test_decoding_is_fed_the_text_at_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    config = random_config("hidden96")
    library = native_library()
    assert library is not None
    case, ids = Case("decode", 2, 33), np.arange(500, dtype=np.int32)
    bench = StepBench(
        config, RandomWeights(config).read, precision="fp32", library=library, cases=[case],
        token_ids=ids,
    )  # fmt: skip
    fed: list[tuple[list[int], list[int]]] = []
    step = bench.runtime.step

    def spy(batch, **options):  # type: ignore[no-untyped-def]
        fed.append((batch.token_ids.tolist(), batch.num_cached.tolist()))
        return step(batch, **options)

    monkeypatch.setattr(bench.runtime, "step", spy)
    measured = bench.measure(case, 0.0)
    bench.close()
    tokens = [token for row, _ in fed for token in row]
    assert tokens == [i % 500 for i in range(len(tokens))]
    decoded = fed[2:]  # after the two contexts
    assert [len(row) for row, _ in decoded] == [2] * (DECODE_WINDOW + len(measured.seconds))
    assert [cached for _, cached in decoded[:3]] == [[33, 33], [34, 34], [35, 35]]
    assert {max(cached) for _, cached in decoded} <= set(range(33, 33 + DECODE_WINDOW))
