"""What a step added to a sequence, as its request is told."""

from rorqual.engine.picker import Pick
from rorqual.engine.requests import Delta, FinishReason, Usage
from rorqual.engine.sequence import Sequence
from rorqual.errors import RorqualError


def step_delta(sequence: Sequence, pick: Pick | None, text: str, reasoning: str) -> Delta:
    """A drawn token (None: none was) and the text that became certain with it."""
    scores, sequence.prompt_logprobs = sequence.prompt_logprobs, None
    name, index = sequence.group.request.id, sequence.index
    if pick is None:
        return Delta(name, index, [], text, reasoning, prompt_logprobs=scores)
    is_first = sequence.num_written == 1
    return Delta(
        name,
        index,
        [pick.token_id],
        text,
        reasoning,
        None if pick.logprobs is None else [pick.logprobs],
        None if pick.policy is None else [pick.policy],
        prompt_logprobs=scores,
        cached_tokens=sequence.cached_prompt_tokens if is_first else None,
    )


def last_delta(
    sequence: Sequence,
    reason: FinishReason,
    stop_reason: int | str | None = None,
    text: str = "",
    reasoning: str = "",
    pick: Pick | None = None,
    error: RorqualError | None = None,
) -> Delta:
    """The end of a sequence: held back text, why it ended, what it used."""
    output = sequence.output
    if output is not None:
        rest = output.finish()
        text, reasoning = text + rest.text, reasoning + rest.reasoning
    delta = step_delta(sequence, pick, text, reasoning)
    delta.finish_reason, delta.stop_reason, delta.error = reason, stop_reason, error
    delta.usage = Usage(
        sequence.num_prompt,
        sequence.cached_prompt_tokens or 0,
        sequence.num_written,
        0 if output is None else output.splitter.num_reasoning_tokens,
    )
    if sequence.routes is not None:
        delta.routes = sequence.routes[: max(sequence.num_written - 1, 0)]
    return delta


def join_deltas(first: Delta, second: Delta) -> Delta:
    """What one step added to a sequence in two draws, as one delta: the first, changed."""
    first.token_ids += second.token_ids
    first.text += second.text
    first.reasoning += second.reasoning
    if first.logprobs is not None and second.logprobs is not None:
        first.logprobs += second.logprobs
    if first.policy_stats is not None and second.policy_stats is not None:
        first.policy_stats += second.policy_stats
    first.finish_reason, first.stop_reason = second.finish_reason, second.stop_reason
    first.usage, first.error, first.routes = second.usage, second.error, second.routes
    return first
