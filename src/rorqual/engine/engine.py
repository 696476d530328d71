"""The engine: requests in, steps of a runner, deltas out. Synchronous and single-threaded.

A step admits what fits, feeds every decoding sequence its last token (with drafts behind it, see
speculation.py) and prompts a piece each, draws the next tokens and tells each request once what it
got. thread.py runs it beside a server;
llm.py drives it directly.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rorqual.config.engine import EngineConfig
from rorqual.engine.admission import Admission
from rorqual.engine.batch import Piece, StepTables
from rorqual.engine.blocks import BlockPool, blocks_for
from rorqual.engine.deltas import last_delta, step_delta
from rorqual.engine.invariants import check_blocks
from rorqual.engine.pace import Pace
from rorqual.engine.picker import Pick, Picker, score_prompt
from rorqual.engine.prefix_cache import PrefixCache
from rorqual.engine.progress import drop_drafts, fork_siblings, keep_routes, register_blocks
from rorqual.engine.requests import (
    Delta,
    EngineStats,
    FinishReason,
    OnDelta,
    Request,
    SequenceState,
)
from rorqual.engine.runner import ReadTensor, Runner
from rorqual.engine.scheduler import Plan, Scheduler
from rorqual.engine.sequence import Group, Uniforms
from rorqual.engine.sequence import Sequence as Running
from rorqual.engine.speculation import Speculation, num_drafts
from rorqual.engine.texts import Texts
from rorqual.engine.totals import Totals
from rorqual.engine.verify import draw_along_drafts
from rorqual.errors import CapacityError, EngineError, RequestError, RorqualError
from rorqual.kernels.library import native_library
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch, StepOutput

_FEWEST_PROMPT_TOKENS: Final = 32  # that a step reads of prompts, however slow the machine
_LOGIT_BYTES: Final = 64 << 20  # of a step's prompts whose logits are all wanted

Deltas = dict[Group, list[Delta]]


class Engine:
    """Continuous batching over one runner.

    end_ids: the tokens that end an answer. texts: text out of tokens and grammars over them; None
    without a tokenizer. clock: seconds, for the pace and for arrivals.
    """

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        *,
        end_ids: Sequence[int],
        texts: Texts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.runner, self.config = runner, config
        context = runner.config.max_position_embeddings
        self.max_model_len = min(config.max_model_len or context, context)
        self.admission = Admission(runner, self.max_model_len, tuple(end_ids), texts)
        self._end_ids = frozenset(end_ids)
        self._clock = clock
        self._pace = Pace(
            config.target_step_seconds, _FEWEST_PROMPT_TOKENS, config.max_batch_tokens
        )
        self._scored_tokens = max(1, _LOGIT_BYTES // (4 * runner.config.vocab_size))
        self._seeds = np.random.default_rng(
            secrets.randbits(128) if config.seed is None else config.seed
        )
        self._groups: dict[str, Group] = {}
        self._deadlines: list[tuple[float, str]] = []  # a heap; some have ended since
        self._num_submitted = 0
        self._totals = Totals()
        self._reset()

    def _reset(self) -> None:
        """An empty cache and an empty queue."""
        config = self.config
        prefixes = PrefixCache(enabled=config.prefix_caching)
        self.pool = BlockPool(self.runner.num_blocks, prefixes)
        self.scheduler = Scheduler(self.pool, config.max_num_seqs, config.reserved_growth)
        longest = min(self.runner.num_blocks, blocks_for(self.max_model_len))
        self._tables = StepTables(config.max_num_seqs, longest, config.max_batch_tokens)
        library = native_library()
        if library is not None:
            library = library.using(num_threads=config.num_threads)
        most_rows = config.max_num_seqs + config.max_batch_tokens
        self._picker = Picker(
            config.max_num_seqs, self.runner.config.vocab_size, library, most_rows
        )
        self._counting = list(range(config.max_num_seqs))
        self._speculation: Speculation | None = None
        if num_drafts(self.runner, config):
            self._speculation = Speculation(
                self.runner, self.scheduler, self._tables, self._picker, config, self._clock
            )

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._groups)

    @property
    def num_requests(self) -> int:
        """Requests that have not ended."""
        return len(self._groups)

    def submit(self, request: Request, on_delta: OnDelta) -> None:
        """Queue a request. RequestError or CapacityError if it cannot be served at all."""
        self.enter(self.admission.prepare(request, on_delta))

    def enter(self, group: Group) -> None:
        """Queue a request that `admission.prepare` has accepted."""
        request = group.request
        if request.id in self._groups:
            raise RequestError(
                f"request id {request.id!r} is still being served; give each request its own",
                code="duplicate_id",
                param="id",
            )
        if len(self.scheduler.waiting) >= self.config.max_waiting_requests:
            raise CapacityError(
                f"{len(self.scheduler.waiting)} requests are waiting, max_waiting_requests is "
                f"{self.config.max_waiting_requests}; try again later"
            )
        self._num_submitted += 1
        arrival = self._clock() if request.arrival is None else request.arrival
        params = request.params
        seed = params.seed
        if seed is None:
            seed = int(self._seeds.integers(0, 2**64 - 1, dtype=np.uint64, endpoint=True))
        for sequence in group.sequences:
            sequence.order = (request.priority, arrival, self._num_submitted, sequence.index)
            if params.temperature > 0 or params.policy_stats:
                sequence.uniforms = (
                    Uniforms(seed, sequence.index)
                    if params.seeds is None
                    else Uniforms(params.seeds[sequence.index], 0)
                )
        self._groups[request.id] = group
        if request.deadline is not None:
            self._watch(request.deadline, request.id)
        self._totals.prompt_tokens += group.sequences[0].num_prompt
        self.scheduler.enqueue(group.sequences[0])

    def enter_or_refuse(self, group: Group) -> None:
        """Queue a prepared request; a refusal is told as its last delta instead of raised."""
        try:
            self.enter(group)
        except RorqualError as error:
            found = [last_delta(s, "error", error=error) for s in group.sequences]
            self._totals.num_failed += 1
            self._tell(group, found)

    def cancel(self, request_id: str) -> bool:
        """End a request now; its blocks are free at once. False if it is not (or no more) known."""
        group = self._groups.get(request_id)
        if group is None:
            return False
        self._totals.num_cancelled += 1
        self._tell(group, self._end_all(group, "cancelled"))
        return True

    def step(self) -> bool:
        """Compute one step; whether there was anything to do.

        If it fails, every request in flight ends with an error and the engine starts afresh.
        """
        if not self._groups:
            return False
        started = self._clock()
        deltas: Deltas = {}
        if self._deadlines and self._end_late(started):
            return True
        try:
            self._step(deltas)
            if self.config.check_invariants:
                check_blocks(self.scheduler)
        except BaseException as error:
            self._tell_all(deltas)  # some may have ended before the failure
            self.fail_all(f"a step of the engine failed: {type(error).__name__}: {error}")
            if not isinstance(error, Exception) or isinstance(error, EngineError):
                raise
            raise EngineError(str(self._totals.last_error)) from error
        self._totals.num_steps += 1
        self._totals.step_seconds += self._clock() - started
        self._tell_all(deltas)
        return True

    def _watch(self, deadline: float, name: str) -> None:
        if len(self._deadlines) > 2 * len(self._groups) + 64:  # most have ended long before
            self._deadlines = [one for one in self._deadlines if one[1] in self._groups]
            heapify(self._deadlines)
        heappush(self._deadlines, (deadline, name))

    def _end_late(self, now: float) -> bool:
        """Ends what is past its deadline; whether that leaves nothing to compute."""
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, name = heappop(self._deadlines)
            group = self._groups.get(name)
            # An id may be in use again, by a request with another deadline.
            if group is not None and group.request.deadline == deadline:
                self._totals.num_cancelled += 1
                self._tell(group, self._end_all(group, "deadline"))
        return not self._groups

    def _step(self, deltas: Deltas) -> None:
        began, num_written = self._clock(), self._totals.completion_tokens
        self.scheduler.make_way()
        speculation = self._speculation
        if speculation is not None:
            speculation.begin()
        plan = self.scheduler.plan(self._budget(), self._scored_tokens)
        assert plan.decoding or plan.reading, "requests are open, but none can move"
        batch, pieces = self._tables.build(plan)
        wants_routes = any(s.group.request.record_routes for s in plan.decoding) or any(
            piece.sequence.group.request.record_routes for piece in pieces
        )
        wants_states = speculation is not None and speculation.wants_states(plan)
        started = self._clock()
        output = self.runner.step(batch, want_hidden=wants_states, record_routes=wants_routes)
        if speculation is not None and output.hidden is not None:
            speculation.read_prompts(pieces, output.hidden)
        seconds = self._clock() - started
        self._pace.observe(len(batch.token_ids), seconds)
        self._totals.runner_seconds += seconds
        num_fed_drafts = sum(len(sequence.drafts) for sequence in plan.decoding)
        self._totals.drafted_tokens += num_fed_drafts
        drawn, rows = self._commit(plan, pieces, batch, output, deltas)
        if speculation is None:
            return
        drafted = False
        if output.hidden is not None and drawn:
            started = self._clock()
            drafted = speculation.draft(drawn, batch.output_rows[rows].tolist(), output.hidden)
            self._totals.runner_seconds += self._clock() - started
        if not pieces:
            speculation.payoff.observe(
                len(plan.decoding),
                self._totals.completion_tokens - num_written,
                self._clock() - began,
                verified=num_fed_drafts > 0,
                drafted=drafted,
            )

    def _budget(self) -> int:
        """Tokens of the next step: unhurried where nobody is decoding."""
        num_decoding = self.scheduler.num_decoding_rows()
        if not num_decoding:
            return self.config.max_batch_tokens
        most = self.config.max_batch_tokens + self.config.max_num_seqs  # what the runner takes
        return min(max(self._pace.budget(), num_decoding + self._pace.fewest_tokens), most)

    def _commit(
        self,
        plan: Plan,
        pieces: list[Piece],
        batch: StepBatch,
        output: StepOutput,
        deltas: Deltas,
    ) -> tuple[list[Running], list[int]]:
        """Take in what the step computed; draw the next tokens. Who drew, from which logit row."""
        drawing: list[Running] = []
        rows: list[int] = []
        for number, sequence in enumerate(plan.decoding):
            row = int(batch.first_rows[number])
            keep_routes(sequence, output.routes, row, 1)
            sequence.num_cached += 1
            self._computed(sequence, row, drawing, rows, deltas)
        for piece in pieces:
            sequence, count = piece.sequence, piece.num_tokens
            keep_routes(sequence, output.routes, piece.first_row, count)
            if sequence.prompt_logprobs is not None and piece.logit_row >= 0:
                score_prompt(sequence, count, output.logits[piece.logit_row :])
            if sequence.num_preemptions:
                self._totals.recomputed_tokens += count
            sequence.num_cached += count
            if sequence.num_cached == sequence.num_tokens:
                last = piece.logit_row
                if sequence.prompt_logprobs is not None:
                    last += count - 1
                self._computed(sequence, last, drawing, rows, deltas)
            else:
                register_blocks(self.scheduler, self._tables, sequence)
        if drawing:
            self._draw(drawing, rows, output.logits, deltas)
        return drawing, rows

    def _draw(
        self,
        drawing: list[Running],
        rows: list[int],
        logits: NDArray[np.float32],
        deltas: Deltas,
    ) -> None:
        """Draw each one's next token from its row, and those that its drafts foretold behind."""
        if not any(sequence.drafts for sequence in drawing):
            plain = rows == self._counting[: len(logits)]
            picks = self._picker.pick(drawing, logits, None if plain else rows)
            for sequence, pick in zip(drawing, picks, strict=True):
                delta = self._take(sequence, pick)
                deltas.setdefault(sequence.group, []).append(delta)
            return
        told = draw_along_drafts(self._picker, drawing, rows, logits, self._take, self._foretold)
        for sequence, delta in told.items():
            deltas.setdefault(sequence.group, []).append(delta)
            if sequence.state is SequenceState.RUNNING:
                drop_drafts(self.scheduler, self._tables, sequence)

    def _foretold(self, sequence: Running, token_id: int) -> bool:
        """Whether the token just drawn was fed as a draft, so that its row counts."""
        drafts = sequence.drafts
        if sequence.state is not SequenceState.RUNNING or not drafts or drafts[0] != token_id:
            return False
        del drafts[0]
        self._totals.accepted_tokens += 1
        sequence.num_cached += 1
        if sequence.num_cached >= (sequence.num_registered + 1) * BLOCK_TOKENS:
            register_blocks(self.scheduler, self._tables, sequence)
        return True

    def _computed(
        self,
        sequence: Running,
        row: int,
        drawing: list[Running],
        rows: list[int],
        deltas: Deltas,
    ) -> None:
        """All of a sequence's tokens are in the cache: its next one can be drawn from the row."""
        if sequence.num_cached >= (sequence.num_registered + 1) * BLOCK_TOKENS:
            register_blocks(self.scheduler, self._tables, sequence)
        if sequence.num_tokens == sequence.num_prompt:
            group = sequence.group
            if sequence.index == 0:
                self._totals.cached_tokens += sequence.cached_prompt_tokens or 0
            if sequence.num_tokens == sequence.max_tokens_total:
                found = self._end_all(group, "length")
                deltas.setdefault(group, []).extend(found)
                return
            drawing.append(sequence)
            rows.append(row)
            for sibling in fork_siblings(self.scheduler, self.runner, sequence):
                drawing.append(sibling)
                rows.append(row)
            return
        drawing.append(sequence)
        rows.append(row)

    def _take(self, sequence: Running, pick: Pick) -> Delta:
        """One drawn token: the sequence goes on or ends."""
        params, token = sequence.group.request.params, pick.token_id
        self._totals.completion_tokens += 1
        sequence.append(token)
        if token in self._end_ids and not params.ignore_eos:
            return self._end(sequence, "stop", pick=pick)
        if token in params.stop_token_ids:
            return self._end(sequence, "stop", token, pick=pick)
        output, adjuster = sequence.output, sequence.adjuster
        text = reasoning = ""
        if output is not None:
            text, reasoning, _, stopped = output.feed((token,))
            if stopped:
                return self._end(sequence, "stop", output.stop_string, text, reasoning, pick)
        if adjuster is not None:
            adjuster.advance(token, thinking=output is not None and output.splitter.in_reasoning)
            if adjuster.failed is not None:
                error = RequestError(
                    f"structure: {adjuster.failed}; simplify it", param="structure"
                )
                return self._end(sequence, "error", None, text, reasoning, pick, error)
            if adjuster.finished:
                return self._end(sequence, "stop", None, text, reasoning, pick)
        if sequence.num_tokens == sequence.max_tokens_total:
            return self._end(sequence, "length", None, text, reasoning, pick)
        return step_delta(sequence, pick, text, reasoning)

    def _end(
        self,
        sequence: Running,
        reason: FinishReason,
        stop_reason: int | str | None = None,
        text: str = "",
        reasoning: str = "",
        pick: Pick | None = None,
        error: RorqualError | None = None,
    ) -> Delta:
        """A sequence's last delta; its blocks are free."""
        delta = last_delta(sequence, reason, stop_reason, text, reasoning, pick, error)
        self._release(sequence)
        if not sequence.group.num_open and reason in ("stop", "length"):
            self._totals.num_finished += 1
        return delta

    def _release(self, sequence: Running) -> None:
        """Take a sequence out of wherever it is; with the last one its request is done."""
        group = sequence.group
        if sequence.state is SequenceState.RUNNING:
            self.scheduler.stop(sequence)
        elif sequence in group.unforked:
            group.unforked.remove(sequence)
        else:
            self.scheduler.withdraw(sequence)
        sequence.state = SequenceState.FINISHED
        group.num_open -= 1
        if not group.num_open:
            del self._groups[group.request.id]

    def _end_all(
        self, group: Group, reason: FinishReason, error: RorqualError | None = None
    ) -> list[Delta]:
        """End every sequence of a request that is still open."""
        return [
            self._end(sequence, reason, error=error)
            for sequence in group.sequences
            if sequence.state is not SequenceState.FINISHED
        ]

    def _tell_all(self, deltas: Deltas) -> None:
        for group, found in deltas.items():
            self._tell(group, found)

    def _tell(self, group: Group, deltas: list[Delta]) -> None:
        """Hand a request its deltas. One whose taker fails is dropped; the others go on."""
        try:
            group.on_delta(deltas)
        except Exception as error:
            name = group.request.id
            self._totals.last_error = f"request {name}: on_delta raised {error!r}; dropped"
            if self._groups.get(name) is group:
                self._totals.num_failed += 1
                for sequence in group.sequences:
                    if sequence.state is not SequenceState.FINISHED:
                        self._release(sequence)

    def fail_all(self, reason: str) -> None:
        """End every request with an EngineError and start over with an empty cache."""
        self._totals.last_error = reason
        groups, self._groups = list(self._groups.values()), {}
        self._totals.num_preemptions += self.scheduler.num_preemptions
        self._reset()
        for group in groups:
            self._totals.num_failed += 1
            error = EngineError(reason)
            cut_off = [s for s in group.sequences if s.state is not SequenceState.FINISHED]
            for sequence in cut_off:
                sequence.state = SequenceState.FINISHED
            name = group.request.id
            deltas = [Delta(name, s.index, [], finish_reason="error", error=error) for s in cut_off]
            group.num_open = 0
            self._tell(group, deltas)

    def update(self, read: ReadTensor) -> None:
        """Take new weights. Cached prefixes are dropped; requests in flight are recomputed."""
        for sequence in reversed(list(self.scheduler.running)):
            self.scheduler.preempt(sequence)
        self.pool.forget_prefixes()
        self.runner.update(read)

    def stats(self) -> EngineStats:
        """The present load and the totals; may be called from any thread."""
        gain = None if self._speculation is None else self._speculation.payoff.gain
        return self._totals.stats(
            self.scheduler, self._pace.budget(), self._picker.draw_seconds, gain
        )
