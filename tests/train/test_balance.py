"""Loss-free balancing: the rule by hand, and that it mends a skewed router."""

import torch

from rorqual.config import TrainConfig
from rorqual.model import PackedTokens, Transformer, initialize
from rorqual.parallel import join_processes
from rorqual.train import TrainStep
from rorqual.train.balance import LoadCounter, max_violation, move_bias
from tests.conftest import small_config

PROCESSES = join_processes()


def step_for(model: Transformer, **changes: object) -> TrainStep:
    config = TrainConfig(token_budget=10**6, learning_rate=1e-6, **changes)  # type: ignore[arg-type]
    return TrainStep(model, config, PROCESSES, torch.float32)


def random_batch(rows: int, seed: int) -> PackedTokens:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, 300, (rows, 65), generator=generator)
    return PackedTokens(tokens, torch.zeros(rows, 65, dtype=torch.int32))


def test_bias_moves_by_sign_and_stays_centred() -> None:
    bias = torch.zeros(4)
    move_bias(bias, torch.tensor([10, 0, 2, 4]), gamma=0.01)
    # Mean load 4: over, under, under, even; then the mean 0.0025 is taken out.
    torch.testing.assert_close(bias, torch.tensor([-0.0125, 0.0075, 0.0075, -0.0025]))
    assert abs(float(bias.sum())) < 1e-9


def test_max_violation_by_hand() -> None:
    assert max_violation(torch.tensor([[2, 2, 2, 2], [1, 1, 2, 4]])) == 1.0
    assert max_violation(torch.zeros(0, 4)) == 0.0


def test_bias_moves_once_per_step_from_the_counts_of_all_micro_batches() -> None:
    config = small_config(num_nextn_predict_layers=1)
    model = Transformer(config)
    initialize(model, 0)
    step = step_for(model, bias_update_speed=0.01)
    batches = [random_batch(2, seed) for seed in range(3)]
    expected = LoadCounter(model)
    for batch in batches:
        with torch.no_grad():
            output = model(batch.tokens, batch.document_start(), with_mtp=True)
            expected.add(expected.of(output.routing))
    step.run(batches, progress=0.5)
    assert list(step.load.layers) == [1, 2, 3]  # layer 3 is the MTP module
    for row, layer in enumerate(step.load.layers.values()):
        wanted = torch.zeros(8)
        move_bias(wanted, expected.counts[row], 0.01)
        torch.testing.assert_close(layer.gate.e_score_correction_bias, wanted)


def test_balancing_none_and_late_gamma_leave_the_bias_alone() -> None:
    for changes, progress in (
        ({"balancing": "none"}, 0.5),
        ({"balancing": "aux_loss"}, 0.5),
        ({}, 0.99),
    ):
        model = Transformer(small_config())
        initialize(model, 0)
        step_for(model, **changes).run([random_batch(2, 0)], progress)
        for name, buffer in model.named_buffers():
            if name.endswith("correction_bias"):
                assert not buffer.any()


def test_skewed_router_comes_back() -> None:
    model = Transformer(small_config(n_group=1, topk_group=1))
    initialize(model, 0)
    skew = torch.tensor([0.3, 0.3, 0, 0, 0, 0, 0, 0])
    for layer in LoadCounter(model).layers.values():
        layer.gate.e_score_correction_bias.copy_(skew)
    step = step_for(model, bias_update_speed=0.01)
    overload = [step.run([random_batch(8, seed)], progress=0.5).max_violation for seed in range(60)]
    assert overload[0] > 2.0
    assert sum(overload[-5:]) / 5 < 0.7
