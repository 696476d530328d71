"""The native runtime against transformers and against a plain numpy network."""

import json
from ctypes import string_at
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from rorqual.config import DenseConfig, ModelConfig, dense_config_to_hf, model_config_to_hf
from rorqual.errors import ConfigError
from rorqual.kernels.library import Library
from rorqual.kernels.runtime_layout import Precision, model_shape
from rorqual.model import Transformer
from tests.conftest import small_config
from tests.kernels.runtime_cases import (
    CONFIGS,
    Model,
    batch_of,
    blocks_for,
    dense_config,
    distance,
    one_layer,
    random_model,
    random_tokens,
)
from tests.kernels.runtime_reference import SPLIT_TOKENS, forward, round_int4

# Where one rounding step of an activation may fall to either side.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 2e-3, "int8": 2e-2, "int4": 4e-2}
LENGTH = 70


def tolerance_of(library: Library, precision: Precision) -> float:
    """With rows rounded to bf16 one such step also shifts those of later tokens and layers."""
    return 8e-3 if precision == "bf16" and library.rounds_rows else TOLERANCE[precision]


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", CONFIGS)
def test_matches_the_numpy_network(library: Library, name: str, precision: Precision) -> None:
    model, tokens = random_model(CONFIGS[name]), random_tokens(LENGTH)
    runtime = model.runtime(library, precision)
    batch = batch_of([tokens], [0], [blocks_for(LENGTH, first=5)])
    out = runtime.step(batch, record_routes=True)
    expected = forward(
        model.config, model.read, tokens, precision, out.routes, rounds_rows=library.rounds_rows
    )
    assert distance(out.logits, expected) <= tolerance_of(library, precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", CONFIGS)
def test_one_layer_rounds_where_the_numpy_network_does(
    library: Library, name: str, precision: Precision
) -> None:
    # Two splits of attention. In one layer a rounding that falls to the other side shifts a row or
    # two; an operand that is rounded where the other is not shifts all of them by some 5e-3.
    length = SPLIT_TOKENS + 44
    model, tokens = random_model(one_layer(CONFIGS[name])), random_tokens(length)
    batch = batch_of([tokens], [0], [blocks_for(length)])
    for isa in ("portable", "avx2", library.isa):
        if isa not in library.instruction_sets():
            continue
        chosen = library.using(isa=isa)
        out = model.runtime(chosen, precision).step(batch, record_routes=True)
        expected = forward(
            model.config, model.read, tokens, precision, out.routes, rounds_rows=chosen.rounds_rows
        )
        most = np.abs(out.logits - expected).max(axis=-1) / np.abs(expected).max()
        assert np.quantile(most, 0.95) <= 1e-3, isa


@pytest.mark.parametrize("precision", TOLERANCE)
def test_every_instruction_set_agrees(library: Library, precision: Precision) -> None:
    for name in ("v3", "qwen3 yarn", "v3 odd sizes"):
        model, tokens = random_model(CONFIGS[name]), random_tokens(LENGTH)
        batch = batch_of([tokens], [0], [blocks_for(LENGTH)])
        first = model.runtime(library.using(isa="portable"), precision)
        wanted = first.step(batch, record_routes=True)
        for isa in library.instruction_sets():
            runtime = model.runtime(library.using(isa=isa), precision)
            got = runtime.step(batch, replay_routes=wanted.routes)
            expected = wanted.logits
            if precision != "fp32" and library.using(isa=isa).rounds_rows:
                # To bf16, which the portable path does not.
                expected = forward(
                    model.config, model.read, tokens, precision, wanted.routes, rounds_rows=True
                )
            tolerance = tolerance_of(library.using(isa=isa), precision)
            assert distance(got.logits, expected) <= tolerance


def test_int4_weights_are_the_same_bits_on_every_instruction_set(library: Library) -> None:
    model = random_model(CONFIGS["v3 odd sizes"])
    packed = []
    for isa in library.instruction_sets():
        runtime = model.runtime(library.using(isa=isa), "int4")
        shape = model_shape(model.config, "int4", runtime.num_blocks, runtime.max_batch_tokens)
        weights = runtime._packed_pieces(shape)[0]
        packed.append(string_at(weights.address, weights.num_bytes))
        runtime.close()
    assert len(packed) > 1
    assert len(set(packed)) == 1


def test_int4_keeps_weights_that_lie_on_16_even_levels() -> None:
    rng = np.random.default_rng(0)
    steps = rng.uniform(0.5, 2, (8, 12, 1)).astype(np.float32)
    levels = rng.integers(0, 16, (8, 12, 32)).astype(np.float32)
    levels[..., :2] = 0, 15
    weights = (steps * (levels - rng.integers(5, 11, (8, 12, 1)))).reshape(8, -1)
    apart = np.abs(round_int4(weights) - weights).reshape(8, 12, 32)
    assert (apart / steps).max() <= 0.1


def _peer(model: Model, folder: Path) -> Any:
    """The same network in transformers."""
    config = model.config
    if isinstance(config, DenseConfig):
        raw = dense_config_to_hf(config, dtype="float32")
        family = getattr(transformers, raw["architectures"][0])
    else:
        raw = model_config_to_hf(config, dtype="float32")
        family = getattr(transformers, raw["architectures"][0])
    (folder / "config.json").write_text(json.dumps(raw))
    peer = family(transformers.AutoConfig.from_pretrained(folder)).eval()
    state = {name: torch.from_numpy(tensor) for name, tensor in model.tensors.items()}
    if isinstance(config, ModelConfig):
        state = _stack_experts(state, config)
    report = peer.load_state_dict(state, strict=False)
    assert not report.unexpected_keys
    assert set(report.missing_keys) <= {"lm_head.weight"}
    peer.tie_weights()
    return peer


def _stack_experts(state: dict[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """transformers keeps the experts of a layer in two tensors."""
    state = dict(state)
    for layer in range(config.num_hidden_layers + config.num_nextn_predict_layers):
        name = f"model.layers.{layer}.mlp.experts."
        if not config.is_moe_layer(layer):
            continue
        parts: dict[str, list[torch.Tensor]] = {"gate_proj": [], "up_proj": [], "down_proj": []}
        for expert in range(config.num_experts):
            for kind, found in parts.items():
                found.append(state.pop(f"{name}{expert}.{kind}.weight"))
        gate, up, down = (torch.stack(found) for found in parts.values())
        state[f"{name}gate_up_proj"] = torch.cat((gate, up), dim=1)
        state[f"{name}down_proj"] = down
    return state


PEERS: dict[str, ModelConfig | DenseConfig] = {
    **{name: CONFIGS[name] for name in ("v3", "v3 yarn, no q-lora", "v2 grouped", "v2 lite")},
    **{name: CONFIGS[name] for name in ("llama", "llama3 rope, tied", "qwen2", "qwen3 yarn")},
    "v3, other eps": small_config(rms_norm_eps=1e-5),
    "smollm2's heads": dense_config(
        "llama", hidden_size=54, num_attention_heads=9, num_key_value_heads=3
    ),
}


@pytest.mark.parametrize("name", PEERS)
@torch.no_grad()
def test_equals_transformers_in_fp32(library: Library, tmp_path: Path, name: str) -> None:
    model, tokens = random_model(PEERS[name]), random_tokens(80)
    theirs = _peer(model, tmp_path)(torch.from_numpy(tokens)[None].long()).logits[0].numpy()
    runtime = model.runtime(library)
    whole = runtime.step(batch_of([tokens], [0], [blocks_for(80)])).logits
    assert distance(whole, theirs) <= 1e-4
    # Token by token through the paged cache, as decoding does.
    blocks = [30, 7, 12]
    runtime.step(batch_of([tokens[:50]], [0], [blocks], []))
    for position in range(50, 80):
        batch = batch_of([tokens[position : position + 1]], [position], [blocks])
        assert distance(runtime.step(batch).logits[0], theirs[position]) <= 1e-4


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@torch.no_grad()
def test_mtp_modules_draft_what_the_trained_model_predicts(
    library: Library, precision: Precision
) -> None:
    # Rounding may send a token to another expert, so only fp32 is compared with experts.
    experts = {"fp32": 8, "bf16": None, "int8": None}[precision]
    config = small_config(num_nextn_predict_layers=2, n_routed_experts=experts)
    model, tokens = random_model(config), random_tokens(42)
    trained = Transformer(config)
    state = {name: torch.from_numpy(tensor) for name, tensor in model.tensors.items()}
    trained.load_state_dict(_stack_experts(state, config))
    out = trained(torch.from_numpy(tokens)[None].long(), with_mtp=True)
    expected = [trained.lm_head(hidden)[0].numpy() for hidden in out.mtp_hidden]

    runtime = model.runtime(library, precision)
    rough = 8e-2 if library.rounds_rows else 6e-2
    tolerance = {"fp32": 1e-4, "bf16": 3e-2, "int8": rough}[precision]
    length = len(tokens) - 2
    batch = batch_of([tokens[:length]], [0], [[4, 2]])
    state_below = runtime.step(batch, want_hidden=True).hidden
    for depth in range(2):
        assert state_below is not None
        following = tokens[depth + 1 : depth + 1 + length]
        # In two chunks: a module has a cache of its own.
        first = batch_of([following[:30]], [0], [[4, 2]])
        second = batch_of([following[30:]], [30], [[4, 2]])
        parts = [
            runtime.draft_step(first, state_below[:30], depth),
            runtime.draft_step(second, np.ascontiguousarray(state_below[30:]), depth),
        ]
        logits = np.concatenate([part.logits for part in parts])
        assert distance(logits, expected[depth][:length]) <= tolerance
        state_below = np.concatenate([part.hidden for part in parts if part.hidden is not None])


def test_drafting_needs_a_module(library: Library) -> None:
    runtime = random_model(CONFIGS["v3"]).runtime(library)
    batch = batch_of([random_tokens(3)], [0], [[0]])
    with pytest.raises(ConfigError, match="0 MTP modules"):
        runtime.draft_step(batch, np.zeros((3, 64), np.float32))
    deeper = random_model(small_config(num_nextn_predict_layers=1)).runtime(library)
    with pytest.raises(ConfigError, match="expected float32"):
        deeper.draft_step(batch, np.zeros((2, 64), np.float32))
