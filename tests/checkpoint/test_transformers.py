"""Against transformers' DeepSeek models, weights saved by either side and loaded by the other.

Where transformers departs from DeepSeek's published code we follow DeepSeek; each known departure
is a test that says so, and fails when transformers changes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import DeepseekV2ForCausalLM, DeepseekV3ForCausalLM

from rorqual.checkpoint import CheckpointReader, load_model, save_model
from rorqual.config import YarnConfig, model_config_to_hf
from rorqual.model import Transformer

Make = Callable[..., Transformer]

TOLERANCE = 1e-4
YARN = YarnConfig(
    factor=8.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=1.0, beta_fast=4
)
V2: dict[str, Any] = {
    "model_type": "deepseek_v2",
    "scoring_func": "softmax",
    "topk_method": "greedy",
    "norm_topk_prob": False,
    "n_group": 1,
    "topk_group": 1,
    "num_nextn_predict_layers": 0,
}
V3_CASES: dict[str, dict[str, Any]] = {
    "published": {},
    "no_q_lora": {"q_lora_rank": None, "num_nextn_predict_layers": 0},
    "one_group": {"n_group": 1, "topk_group": 1},
    "eps": {"rms_norm_eps": 1e-5, "num_nextn_predict_layers": 0},
    "large_eps": {"rms_norm_eps": 1e-2},
    "yarn": {"rope_scaling": YARN, "max_position_embeddings": 128},
    "yarn_two_mscales": {
        "rope_scaling": YARN.model_copy(update={"mscale": 1.0, "mscale_all_dim": 0.5}),
        "max_position_embeddings": 128,
    },
    "unnormed_weights": {"norm_topk_prob": False},
    "all_moe_and_two_mtp": {"first_k_dense_replace": 0, "num_nextn_predict_layers": 2},
    "tied": {"tie_word_embeddings": True},
}
V2_CASES: dict[str, dict[str, Any]] = {
    "greedy": V2,
    "lite": {**V2, "q_lora_rank": None, "routed_scaling_factor": 1.0, "rms_norm_eps": 1e-5},
    "grouped": {
        **V2,
        "topk_method": "group_limited_greedy",
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 16.0,
    },
    "yarn": {
        **V2,
        "rope_scaling": YARN.model_copy(update={"mscale": 0.707, "mscale_all_dim": 0.707}),
        "max_position_embeddings": 128,
    },
}
CASES = [
    *(pytest.param(fields, id=f"v3_{name}") for name, fields in V3_CASES.items()),
    *(pytest.param(fields, id=f"v2_{name}") for name, fields in V2_CASES.items()),
]


@pytest.fixture(autouse=True)
def _no_progress_bars() -> None:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _peer(path: Path) -> Any:
    """The model that config.json names, in transformers."""
    name = json.loads((path / "config.json").read_text())["architectures"][0]
    family = {c.__name__: c for c in (DeepseekV2ForCausalLM, DeepseekV3ForCausalLM)}[name]
    return family.from_pretrained(path, dtype=torch.float32).eval()


@torch.no_grad()
def _distance(model: Transformer, peer: Any) -> float:
    """max |difference| over max |logit| on rows longer than YaRN's original context."""
    tokens = torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(7))
    theirs = peer(tokens).logits
    return float((model.logits(tokens) - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("fields", CASES)
def test_our_checkpoints_load_in_transformers(
    make_model: Make, tmp_path: Path, fields: dict[str, Any]
) -> None:
    model = make_model(**fields)
    save_model(model, None, tmp_path / "m", max_shard_bytes=60_000)
    assert _distance(model, _peer(tmp_path / "m")) <= TOLERANCE


@pytest.mark.parametrize("fields", CASES)
def test_transformers_checkpoints_load_here(
    make_model: Make, tmp_path: Path, fields: dict[str, Any]
) -> None:
    config = make_model(**{**fields, "num_nextn_predict_layers": 0}).config
    raw = model_config_to_hf(config, dtype="float32")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/config.json").write_text(json.dumps(raw))
    v3 = config.model_type == "deepseek_v3"
    family: Any = DeepseekV3ForCausalLM if v3 else DeepseekV2ForCausalLM
    torch.manual_seed(5)
    peer = family(transformers.AutoConfig.from_pretrained(tmp_path / "raw")).eval()
    with torch.no_grad():
        for name, tensor in peer.state_dict().items():
            if name.endswith("e_score_correction_bias"):
                tensor.normal_(0.0, 0.1)
            elif name.endswith("norm.weight"):
                tensor.uniform_(0.5, 1.5)
    peer.save_pretrained(tmp_path / "m")
    model = load_model(tmp_path / "m")
    assert _distance(model, peer) <= TOLERANCE
    read = model.config.model_dump(exclude={"bos_token_id", "eos_token_id"})
    assert read == config.model_dump(exclude={"bos_token_id", "eos_token_id"})


def test_bfloat16_checkpoints_load_in_transformers(make_model: Make, tmp_path: Path) -> None:
    save_model(make_model(), None, tmp_path / "m", dtype=torch.bfloat16)
    model = load_model(tmp_path / "m", dtype=torch.float32)
    assert _distance(model, _peer(tmp_path / "m")) <= TOLERANCE


def test_transformers_passes_over_the_mtp_module(make_model: Make, tmp_path: Path) -> None:
    save_model(make_model(), None, tmp_path / "m")
    peer, report = DeepseekV3ForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not report["missing_keys"]
    assert all(name.startswith("model.layers.2.") for name in report["unexpected_keys"])
    # It saves without the module but leaves it in config.json; we name the way out.
    peer.save_pretrained(tmp_path / "again")
    assert load_model(tmp_path / "again", with_mtp=False).config.num_hidden_layers == 2


def test_transformers_splits_experts_on_disk_as_we_do(make_model: Make, tmp_path: Path) -> None:
    model = make_model(num_nextn_predict_layers=0)
    save_model(model, None, tmp_path / "m")
    _peer(tmp_path / "m").save_pretrained(tmp_path / "theirs")
    ours, theirs = CheckpointReader(tmp_path / "m"), CheckpointReader(tmp_path / "theirs")
    assert ours.names() == theirs.names()
    assert all((ours.read(name) == theirs.read(name)).all() for name in ours.names())


def test_v2_norm_topk_prob_is_ignored_by_transformers(make_model: Make, tmp_path: Path) -> None:
    """DeepSeek's V2 code divides the chosen weights by their sum; transformers never does."""
    fields = {**V2, "routed_scaling_factor": 1.0}
    plain, normed = make_model(**fields), make_model(**{**fields, "norm_topk_prob": True})
    save_model(normed, None, tmp_path / "m")
    peer = _peer(tmp_path / "m")
    assert _distance(normed, peer) > 100 * TOLERANCE
    assert _distance(plain, peer) <= TOLERANCE


def test_yarn_mscale_alone_is_ignored_by_transformers(make_model: Make, tmp_path: Path) -> None:
    """DeepSeek scales the rotated parts by mscale also where mscale_all_dim is 0."""
    one, other = (
        {"rope_scaling": YARN.model_copy(update={"mscale": mscale, "mscale_all_dim": 0.0})}
        for mscale in (1.0, 0.5)
    )
    save_model(make_model(**other), None, tmp_path / "m")
    peer = _peer(tmp_path / "m")
    assert _distance(make_model(**other), peer) > 100 * TOLERANCE
    assert _distance(make_model(**one), peer) <= TOLERANCE
