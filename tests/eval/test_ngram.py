"""Kneser-Ney by hand and by its defining property: probabilities sum to one."""

import numpy as np
import pytest

from rorqual.errors import ConfigError, DataError
from rorqual.eval import KneserNey


def test_bigram_by_hand() -> None:
    # Bigrams 01 01 12: counts {01: 2, 12: 1, 10: 1}; n1 = 2, n2 = 1, D = 2 / 4.
    document = np.array([0, 1, 0, 1, 2])
    model = KneserNey([document], vocab_size=4, order=2)
    # Continuation counts: 0 after {1}: 1, 1 after {0}: 1, 2 after {1}: 1; n2 = 0, so D = 0.5.
    unigram = dict.fromkeys((0, 1, 2), 0.5 / 3 + 0.5 * 3 / 3 / 4) | {3: 0.5 / 4}
    after_1 = {w: 0.5 / 2 + 0.5 * 2 / 2 * unigram[w] for w in (0, 2)}
    after_1 |= {w: 0.5 * unigram[w] for w in (1, 3)}
    for word, expected in after_1.items():
        assert 2 ** model.log2_probabilities(np.array([1, word]))[0] == pytest.approx(expected)
    # A context that was never seen leaves the lower order.
    assert 2 ** model.log2_probabilities(np.array([3, 2]))[0] == pytest.approx(unigram[2])


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_sum_to_one(order: int) -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 7, size=n) for n in (50, 1, 30, 4)]
    model = KneserNey(documents, vocab_size=7, order=order)
    for history in ([0], [1, 2], [3, 3, 3], [6, 5, 4, 3, 2]):
        total = sum(
            2 ** model.log2_probabilities(np.array([*history, word]))[-1] for word in range(7)
        )
        assert total == pytest.approx(1.0)


def test_higher_orders_learn_a_pattern_that_lower_ones_cannot() -> None:
    pattern = np.tile([0, 0, 1, 1], 200)
    bits = [-KneserNey([pattern], 2, n).log2_probabilities(pattern).mean() for n in (1, 2, 3)]
    assert bits[0] > 0.9 and bits[1] > 0.9 and bits[2] < 0.1


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match="use an order from 1 to 5"):
        KneserNey([np.arange(9)], vocab_size=4096, order=6)
    with pytest.raises(DataError, match="no tokens"):
        KneserNey([np.array([], dtype=int)], vocab_size=16, order=2)
