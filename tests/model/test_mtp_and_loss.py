"""Targets of packed rows, MTP's shifts, and what the loss counts."""

import torch

from rorqual.model import IGNORED, MTPLayer, PackedTokens, Transformer, initialize, loss_terms
from rorqual.model.attention import Sight
from tests.conftest import small_config


def batch_of(tokens: list[int], documents: list[int]) -> PackedTokens:
    return PackedTokens(torch.tensor([tokens]), torch.tensor([documents], dtype=torch.int32))


def test_targets_stop_at_document_borders_and_padding() -> None:
    batch = batch_of([10, 11, 12, 20, 21, 22, 0], [0, 0, 0, 1, 1, 1, -1])
    x = IGNORED
    assert batch.targets(0).tolist() == [[11, 12, x, 21, 22, x]]
    assert batch.targets(1).tolist() == [[12, x, x, 22, x, x]]
    assert batch.targets(2).tolist() == [[x, x, x, x, x, x]]
    assert batch.document_start().tolist() == [[0, 0, 0, 3, 3, 3]]


def test_loss_mask_chooses_targets() -> None:
    batch = batch_of([10, 11, 12, 13], [0, 0, 0, 0])
    masked = PackedTokens(
        batch.tokens, batch.document_idx, torch.tensor([[False, False, True, True]])
    )
    assert masked.targets(0).tolist() == [[IGNORED, 12, 13]]
    assert masked.targets(1).tolist() == [[12, 13, IGNORED]]


def test_mtp_sees_only_earlier_tokens_of_its_target() -> None:
    config = small_config(num_nextn_predict_layers=2)
    model = Transformer(config)
    initialize(model, 0)
    tokens = torch.randint(2, 300, (1, 21), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 12] += 1
    with torch.no_grad():
        before = model(tokens, with_mtp=True).mtp_hidden
        after = model(changed, with_mtp=True).mtp_hidden
    for depth in (1, 2):
        # Position i of depth k predicts token i+k+1 and may read tokens up to i+k.
        same = (before[depth - 1] == after[depth - 1]).all(dim=-1)[0]
        assert same[: 12 - depth].all()
        assert not same[12 - depth]


def test_mtp_reads_the_embedding_first() -> None:
    config = small_config(num_nextn_predict_layers=1)
    model = Transformer(config)
    initialize(model, 0)
    layer = model.model.layers[config.num_hidden_layers]
    assert isinstance(layer, MTPLayer)
    embedding, hidden = torch.randn(1, 4, 64), torch.randn(1, 4, 64)
    sight = Sight((model.model.rope_cos[:4], model.model.rope_sin[:4]), None, None)
    with torch.no_grad():
        layer.eh_proj.weight[:, config.hidden_size :] = 0
        state = layer(embedding, hidden, sight)[0]
        assert torch.equal(layer(embedding, hidden + 1, sight)[0], state)
        assert not torch.equal(layer(embedding + torch.randn(64), hidden, sight)[0], state)


def test_mtp_routing_is_reported_beside_the_main_layers() -> None:
    config = small_config(num_nextn_predict_layers=1)
    model = Transformer(config)
    initialize(model, 0)
    tokens = torch.randint(2, 300, (2, 33))
    documents = torch.zeros(2, 33, dtype=torch.int32)
    terms = loss_terms(model, PackedTokens(tokens, documents), document_mask=True, with_mtp=True)
    assert [statistics.layer_idx for statistics in terms.routing] == [1, 2, 3]
    for statistics in terms.routing:
        assert int(statistics.tokens_per_expert.sum()) == 2 * 32 * config.num_experts_per_tok


def test_every_parameter_learns() -> None:
    config = small_config(num_nextn_predict_layers=1)
    model = Transformer(config)
    initialize(model, 0)
    tokens = torch.randint(2, 300, (4, 65))
    batch = PackedTokens(tokens, torch.zeros(4, 65, dtype=torch.int32))
    terms = loss_terms(model, batch, document_mask=True, with_mtp=True)
    (terms.main + terms.mtp[0]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    small, large = Transformer(small_config()), Transformer(small_config(num_hidden_layers=4))
    initialize(small, 7)
    initialize(large, 7)
    name = "model.layers.1.self_attn.o_proj.weight"
    torch.testing.assert_close(small.state_dict()[name], large.state_dict()[name])
    std = small.state_dict()["model.layers.1.mlp.experts.gate_up_proj"].std()
    assert abs(float(std) / 0.1 - 1) < 0.02
    assert torch.equal(small.state_dict()["model.norm.weight"], torch.ones(64))
