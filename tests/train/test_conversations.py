"""Packed conversations: masked by role, isolated, whole, each as often as its weight says."""

from collections import Counter

import numpy as np
import pytest
import torch

from rorqual.config.run import load_run_config
from rorqual.model import IGNORED, PackedTokens, Transformer, initialize, loss_terms
from rorqual.tokenizer import Tokenizer, train_tokenizer
from rorqual.train.conversations import (
    Conversation,
    ConversationLoader,
    encode_samples,
    fill_rows,
    split_held_out,
    validation_batches,
)
from rorqual.train.samples import Sample

ROW = 65


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = ["How many krill does Ann have? 3+4=7, so \\boxed{7}. 几只？七只。"] * 30
    return train_tokenizer(texts, vocab_size=400, digits="single")


def talk(*texts: str, thinking: str | None = None) -> Sample:
    """User and assistant in turn; the last reply thinks."""
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    if thinking is not None:
        messages[-1]["reasoning_content"] = thinking
    return Sample(messages)


def samples(count: int) -> list[Sample]:
    return [
        talk(f"How many krill? {n}+{n % 7}", f"\\boxed{{{n + n % 7}}}", thinking=f"{n}" * (n % 5))
        for n in range(count)
    ]


def conversations(tokenizer: Tokenizer, count: int = 40) -> list[Conversation]:
    return encode_samples(tokenizer, samples(count), "assistant", ROW).conversations


def test_targets_are_exactly_what_the_assistant_wrote(tokenizer: Tokenizer) -> None:
    sample = talk("3+4?", "7", "And 几只？", "七只。", thinking="3+4=7")
    (found,) = encode_samples(tokenizer, [sample], "assistant", 200).conversations
    end = "<｜end▁of▁sentence｜>"
    assert tokenizer.decode(found.ids[found.learn]) == (
        f"7{end}<think>\n3+4=7\n</think>\n\n七只。{end}"
    )
    rows = fill_rows([[found]], 1, 200, tokenizer.pad_token_id)
    targets = rows.targets()[0]
    assert targets[targets != IGNORED].tolist() == found.ids[found.learn].tolist()


def test_all_tokens_are_targets_if_asked(tokenizer: Tokenizer) -> None:
    (found,) = encode_samples(tokenizer, [talk("3+4?", "7")], "all", 200).conversations
    targets = fill_rows([[found]], 1, 200, tokenizer.pad_token_id).targets()[0]
    assert targets[targets != IGNORED].tolist() == found.ids[1:].tolist()


def test_what_cannot_be_used_is_counted(tokenizer: Tokenizer) -> None:
    unanswered = Sample([{"role": "user", "content": "anyone?"}])
    given = [talk("a", "b"), talk("a", "long " * 100), unanswered, Sample([], weight=0.0)]
    encoded = encode_samples(tokenizer, given, "assistant", ROW)
    assert len(encoded.conversations) == 1
    assert (encoded.too_long, encoded.nothing_to_learn, encoded.unused) == (1, 1, 1)


def test_packed_losses_are_those_of_each_conversation_alone(tokenizer: Tokenizer) -> None:
    config = load_run_config("tiny").model
    model = Transformer(config)
    initialize(model, 0)
    chosen = conversations(tokenizer, 3)

    def losses(rows: PackedTokens) -> torch.Tensor:
        terms = loss_terms(model, rows, document_mask=True, with_mtp=True)
        return torch.stack((terms.main, *terms.mtp)).detach()

    pad = tokenizer.pad_token_id
    packed = losses(fill_rows([chosen], 1, 200, pad))
    alone = sum(losses(fill_rows([[item]], 1, len(item.ids), pad)) for item in chosen)
    assert torch.allclose(packed, alone, rtol=1e-5)
    batch = fill_rows([chosen], 1, 200, pad)
    unmasked = losses(PackedTokens(batch.tokens, batch.document_idx))
    assert not torch.allclose(unmasked, alone, rtol=1e-2)  # the role mask is what made them equal


def seen(loader: ConversationLoader, rows_per_step: int) -> Counter[bytes]:
    """How often each conversation comes out of the rest of the stream, read back from the rows."""
    found: Counter[bytes] = Counter()
    while loader.rows_seen < loader.num_rows:
        batch = loader.next_batch(rows_per_step)
        for tokens, documents in zip(batch.tokens, batch.document_idx, strict=True):
            for number in range(int(documents.max()) + 1):
                found[tokens[documents == number].numpy().astype(np.int32).tobytes()] += 1
    return found


def make_loader(
    items: list[Conversation], *, epochs: int = 1, seed: int = 0, row_tokens: int = ROW
) -> ConversationLoader:
    return ConversationLoader(
        items, row_tokens=row_tokens, pad_token_id=2, seed=seed, epochs=epochs
    )


def test_every_conversation_comes_whole_once_an_epoch(tokenizer: Tokenizer) -> None:
    items = conversations(tokenizer)
    wanted = Counter(item.ids.tobytes() for item in items)
    assert seen(make_loader(items), 3) == wanted
    assert seen(make_loader(items, epochs=3), 4) == Counter(dict.fromkeys(wanted, 3))
    loader = make_loader(items)
    total = sum(len(item.ids) for item in items)
    assert loader.num_rows <= 1.1 * total / ROW + 1


def test_weights_are_copies_over_the_epochs(tokenizer: Tokenizer) -> None:
    items = conversations(tokenizer, 30)
    weights = (1.0, 2.0, 0.5)
    weighted = [Conversation(item.ids, item.learn, weights[n % 3]) for n, item in enumerate(items)]
    found = seen(make_loader(weighted, epochs=4), 5)
    for item in weighted:
        assert found[item.ids.tobytes()] == 4 * item.weight
    first = seen(make_loader(weighted, epochs=1), 5)
    halves = sum(first[item.ids.tobytes()] for item in weighted[2::3])
    assert 0 < halves < 10  # some in the first epoch, the others in the second


def test_ranks_share_the_rows_and_seeds_and_epochs_differ(tokenizer: Tokenizer) -> None:
    items = conversations(tokenizer)
    whole, ranks = make_loader(items), [make_loader(items) for _ in range(2)]
    while whole.rows_seen < whole.num_rows:
        expected = whole.next_batch(4)
        parts = [loader.next_batch(4, rank, 2) for rank, loader in enumerate(ranks)]
        assert parts[0].tokens.shape == parts[1].tokens.shape
        for row in range(len(expected.tokens)):
            part = parts[row % 2]
            assert torch.equal(expected.tokens[row], part.tokens[row // 2])
    assert parts[1].tokens.shape[0] * 2 >= len(expected.tokens)

    def order(seed: int, skip: int) -> list[list[int]]:
        loader = make_loader(items, epochs=2, seed=seed)
        loader.rows_seen = skip * loader.num_rows // 2
        return loader.next_batch(loader.num_rows // 2).tokens.tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0) and order(0, 0) != order(0, 1)


def test_a_blank_row_has_no_target() -> None:
    rows = fill_rows([], 2, 8, 2)
    assert bool((rows.targets() == IGNORED).all()) and bool((rows.document_idx == -1).all())


def test_held_out_conversations_are_never_trained_on(tokenizer: Tokenizer) -> None:
    items = conversations(tokenizer) * 2
    train, held_out = split_held_out(items, 0.25)
    apart = {item.digest for item in held_out}
    assert len(held_out) == len(apart) == 10 and len(train) == 60
    assert apart.isdisjoint(item.digest for item in train)
    assert split_held_out(items, 0.0) == (items, [])
    assert len(split_held_out(items[:2], 0.01)[1]) == 1
    assert split_held_out(items[:1], 0.5) == (items[:1], [])


def test_validation_rows_are_the_held_out_ones_up_to_the_limit(tokenizer: Tokenizer) -> None:
    items = conversations(tokenizer, 20)

    def num_documents(max_tokens: int) -> int:
        batches = validation_batches(
            items, row_tokens=ROW, pad_token_id=2, max_tokens=max_tokens, rows_per_batch=2
        )
        return sum(int((batch.document_idx.max(dim=1).values + 1).sum()) for batch in batches)

    assert num_documents(10**6) == 20
    assert 0 < num_documents(1) <= num_documents(2 * ROW) < 20
