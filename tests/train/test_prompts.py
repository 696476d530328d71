"""Prompts that are read, not learnt."""

import torch

from rorqual.model import IGNORED, PackedTokens
from rorqual.train.rows import without_prompts

USER, ASSISTANT = 8, 9


def test_only_what_users_wrote_stops_being_a_target() -> None:
    # text | chat of two turns | a chat cut inside its prompt | text
    row = [1, 20, 21, 1, 8, 30, 31, 9, 40, 2, 8, 32, 9, 41, 2, 1, 8, 33, 1, 22, 23]
    document = [0] * 3 + [1] * 12 + [2] * 3 + [3] * 3
    batch = PackedTokens(torch.tensor([row]), torch.tensor([document], dtype=torch.int32))
    targets = without_prompts(batch, USER, ASSISTANT).targets()[0].tolist()
    wanted = {1: 20, 2: 21, 8: 40, 9: 2, 13: 41, 14: 2, 19: 22, 20: 23}
    assert targets == [wanted.get(place + 1, IGNORED) for place in range(len(row) - 1)]
    assert len([t for t in batch.targets()[0].tolist() if t != IGNORED]) == 17
