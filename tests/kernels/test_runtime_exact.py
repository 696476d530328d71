"""A row's bits depend on its own tokens and cache alone; bad input is a clear error."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rorqual.config import DenseConfig, ModelConfig
from rorqual.errors import CapacityError, CheckpointError, ConfigError, RequestError
from rorqual.kernels import runtime as runtime_module
from rorqual.kernels.library import Library
from rorqual.kernels.runtime import Runtime
from rorqual.kernels.runtime_layout import Precision
from rorqual.kernels.step import StepBatch
from tests.conftest import small_config
from tests.kernels.runtime_cases import (
    CONFIGS,
    batch_of,
    blocks_for,
    dense_config,
    random_model,
    random_tokens,
)

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "int4")
NAMES = ("v3", "v3 yarn, no q-lora", "v2 grouped", "qwen3 yarn", "llama3 rope, tied")
LENGTHS = (330, 5, 64, 97)


def alone(runtime: Runtime, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    return runtime.step(batch_of([tokens], [0], [blocks_for(len(tokens))])).logits


def scheduled(
    runtime: Runtime, sequences: list[NDArray[np.int32]], rng: np.random.Generator
) -> list[NDArray[np.float32]]:
    """All sequences fed together in random chunks, over blocks in random places."""
    places = rng.permutation(runtime.num_blocks)
    tables, used = [], 0
    for tokens in sequences:
        count = len(blocks_for(len(tokens)))
        tables.append([int(place) for place in places[used : used + count]])
        used += count
    done = [0] * len(sequences)
    found: list[list[NDArray[np.float32]]] = [[] for _ in sequences]
    while any(done[s] < len(tokens) for s, tokens in enumerate(sequences)):
        active = [s for s, tokens in enumerate(sequences) if done[s] < len(tokens)]
        chosen = [s for s in active if rng.random() < 0.7] or active[:1]
        rng.shuffle(chosen)
        sizes = [int(rng.choice([1, 1, 3, 40, 150])) for _ in chosen]
        fed = [
            sequences[s][done[s] : done[s] + size] for s, size in zip(chosen, sizes, strict=True)
        ]
        batch = batch_of(fed, [done[s] for s in chosen], [tables[s] for s in chosen])
        logits = runtime.step(batch).logits
        for i, s in enumerate(chosen):
            found[s].append(logits[batch.first_rows[i] : batch.first_rows[i + 1]])
            done[s] += len(fed[i])
    return [np.concatenate(parts) for parts in found]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_neighbours_chunks_and_blocks_change_nothing(
    library: Library, name: str, precision: Precision
) -> None:
    model = random_model(CONFIGS[name])
    sequences = [random_tokens(length, seed) for seed, length in enumerate(LENGTHS)]
    for isa in dict.fromkeys((library.isa, "avx512", "avx2", "portable")):
        if isa not in library.instruction_sets() or (isa != library.isa and name != "v3"):
            continue
        runtime = model.runtime(library.using(isa=isa, num_threads=2), precision)
        expected = [alone(runtime, tokens) for tokens in sequences]
        for seed in range(2):
            got = scheduled(runtime, sequences, np.random.default_rng(seed))
            for ours, wanted in zip(got, expected, strict=True):
                np.testing.assert_array_equal(ours, wanted)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "config",
    [
        # `down` has panels of 64 and 48 columns, of more than kFarWhole bytes (int8: the first).
        dense_config("llama", num_hidden_layers=1, hidden_size=112, intermediate_size=9003),
        # Panels over the hidden size, gate and up's too, have more than kNearWhole bytes.
        small_config(hidden_size=2100),
    ],
    ids=("deep down", "wide v3"),
)
def test_panels_cut_into_slices_give_many_rows_the_bits_of_one(
    library: Library, config: ModelConfig | DenseConfig, precision: Precision
) -> None:
    runtime = random_model(config).runtime(library, precision)
    tokens, blocks = random_tokens(60), blocks_for(60)
    singles = [
        runtime.step(batch_of([tokens[i : i + 1]], [i], [blocks])).logits
        for i in range(len(tokens))
    ]
    for count in (*range(6, 27), 50, 60):
        got = alone(runtime, tokens[:count])
        np.testing.assert_array_equal(got, np.concatenate(singles[:count]))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_change_nothing(library: Library, precision: Precision) -> None:
    for name in ("v3", "qwen2"):
        model, tokens = random_model(CONFIGS[name]), random_tokens(300)
        results = [
            alone(model.runtime(library.using(num_threads=threads), precision), tokens)
            for threads in (1, 2, 3)
        ]
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_block_held_before_is_never_read(library: Library, precision: Precision) -> None:
    model = random_model(CONFIGS["v3"])
    broken = {name: tensor * np.float32(np.nan) for name, tensor in model.tensors.items()}
    runtime = model.runtime(library, precision, num_blocks=4)
    tokens = random_tokens(70)
    expected = alone(runtime, tokens)
    runtime.update(lambda name: broken[name])
    assert np.isnan(alone(runtime, random_tokens(128, 3))).all()
    runtime.update(model.read)
    np.testing.assert_array_equal(alone(runtime, tokens), expected)


def test_update_repacks_in_place(library: Library) -> None:
    for precision in PRECISIONS:
        first, second = (random_model(CONFIGS["v3 odd sizes"], seed) for seed in (0, 1))
        tokens = random_tokens(40)
        runtime = first.runtime(library, precision)
        runtime.update(second.read)
        expected = alone(second.runtime(library, precision), tokens)
        np.testing.assert_array_equal(alone(runtime, tokens), expected)


def test_a_copied_block_continues_like_the_original(library: Library) -> None:
    model, tokens = random_model(CONFIGS["v3"]), random_tokens(60)
    runtime = model.runtime(library)
    expected = alone(runtime, tokens)
    runtime.step(batch_of([tokens[:50]], [0], [[0, 1]], []))
    runtime.copy_block(1, 9)
    got = runtime.step(batch_of([tokens[50:], tokens[50:]], [50, 50], [[0, 1], [0, 9]])).logits
    np.testing.assert_array_equal(got[:10], expected[50:])
    np.testing.assert_array_equal(got[10:], expected[50:])


def test_recorded_routes_replay_to_the_same_logits(library: Library) -> None:
    model, tokens = random_model(CONFIGS["v3"]), random_tokens(40)
    runtime = model.runtime(library)
    batch = batch_of([tokens], [0], [blocks_for(40)])
    recorded = runtime.step(batch, record_routes=True)
    assert recorded.routes is not None
    assert recorded.routes.shape == (40, 2, 2)
    shuffled = np.ascontiguousarray(recorded.routes[:, :, ::-1])
    replayed = runtime.step(batch, replay_routes=shuffled, record_routes=True)
    np.testing.assert_array_equal(replayed.logits, recorded.logits)
    np.testing.assert_array_equal(replayed.routes, recorded.routes)
    other = np.full_like(recorded.routes, 3)
    other[:, :, 1] = 6
    forced = runtime.step(batch, replay_routes=other, record_routes=True)
    np.testing.assert_array_equal(forced.routes, other)
    assert not np.array_equal(forced.logits, recorded.logits)


def test_hidden_and_selected_rows(library: Library) -> None:
    model, tokens = random_model(CONFIGS["llama"]), random_tokens(40)
    runtime = model.runtime(library)
    whole = runtime.step(batch_of([tokens], [0], [blocks_for(40)]), want_hidden=True)
    some = runtime.step(batch_of([tokens], [0], [blocks_for(40)], [3, 39]), want_hidden=True)
    assert whole.hidden is not None
    np.testing.assert_array_equal(some.logits, whole.logits[[3, 39]])
    np.testing.assert_array_equal(some.hidden, whole.hidden)  # of every fed row
    weight = model.read("model.norm.weight")
    normed = whole.hidden / np.sqrt((whole.hidden**2).mean(-1, keepdims=True) + 1e-6) * weight
    logits = normed @ model.read("lm_head.weight").T
    assert np.abs(logits - whole.logits).max() <= 1e-4 * np.abs(logits).max()


def test_bad_batches_are_named(library: Library) -> None:
    runtime = random_model(CONFIGS["v3"]).runtime(library, num_blocks=40, max_batch_tokens=700)
    tokens = random_tokens(40)

    def fails(batch: StepBatch, kind: type[Exception], message: str, **options: object) -> None:
        with pytest.raises(kind, match=message):
            runtime.step(batch, **options)  # type: ignore[arg-type]

    blocks = blocks_for(40)
    good = batch_of([tokens], [0], [blocks])
    fails(batch_of([tokens + 300], [0], [blocks]), RequestError, r"token_ids\[0\]=.* is outside")
    fails(batch_of([tokens], [0], [[0, 40]]), RequestError, "names a block outside")
    fails(batch_of([tokens], [30], [blocks]), RequestError, "too few columns")
    fails(batch_of([tokens], [0], [[0, -1]]), RequestError, "names a block outside")
    fails(batch_of([tokens], [610], [blocks_for(650)]), RequestError, "longest context")
    fails(batch_of([tokens], [-1], [blocks]), RequestError, "longest context")
    fails(batch_of([tokens], [0], [blocks], [5, 5]), RequestError, "output_rows: entry 1")
    fails(batch_of([tokens], [0], [blocks], [40]), RequestError, "output_rows: entry 0")
    fails(batch_of([random_tokens(701)], [0], [blocks_for(701)]), CapacityError, "takes 1 to 700")
    wide = StepBatch(
        tokens.astype(np.int64),  # type: ignore[arg-type]
        good.first_rows, good.num_cached, good.block_tables, good.output_rows,
    )  # fmt: skip
    fails(wide, ConfigError, "token_ids is int64")
    fails(good, ConfigError, "replay_routes", replay_routes=np.zeros((40, 1, 2), np.int16))
    routes = np.full((40, 2, 2), 8, np.int16)
    fails(good, RequestError, "an expert that the model does not have", replay_routes=routes)
    with pytest.raises(ConfigError, match="copy_block"):
        runtime.copy_block(0, 40)
    runtime.close()
    fails(good, ConfigError, "closed")


def test_a_model_that_does_not_fit_is_refused(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(CONFIGS["v3"])
    with pytest.raises(CapacityError, match="is available"):
        model.runtime(library, num_blocks=2**40)
    monkeypatch.setattr(runtime_module, "available_bytes", lambda: 1000)
    with pytest.raises(CapacityError, match="lower precision"):
        model.runtime(library)


def test_tensors_of_another_shape_are_refused(library: Library) -> None:
    model = random_model(CONFIGS["v3"])
    tensors = model.tensors | {"model.norm.weight": np.ones(63, np.float32)}
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight has shape \[63\]"):
        Runtime(model.config, tensors.__getitem__, precision="fp32", num_blocks=4, library=library)
    with pytest.raises(ConfigError, match="precision='fp8'"):
        model.runtime(library, "fp8")  # type: ignore[arg-type]
