"""One request from admission to its bill: the only way to the backends.

    prepare (count, check) -> admission.enter -> ledger.reserve -> the turn comes: submit
    -> chunks, each handed on after its tokens are committed -> settle

In local mode nothing is billed and the ledger is left out; admission stays. Whoever opens a
`Generation` closes it, which cancels what still runs, settles what was delivered and frees the
place, whatever happened.

The engine never waits for a reader: when the last token has come the place is free, and the next
request is submitted by the event that says so, before anybody is told.

A request has one deadline, from its arrival to its last token. In the queue, or before the first
token, it ends with DeadlineExceeded and costs nothing; later its answer ends as too long ones do,
and the books call it `expired`.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import CancelledError as TicketCancelled
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Literal

from rorqual.engine import Usage
from rorqual.errors import CapacityError, RorqualError
from rorqual.platform import (
    DeadlineExceeded,
    Job,
    NotAllowed,
    NotAuthenticated,
    Place,
    QueueFull,
    Refused,
    RequestClosed,
    Settlement,
    Ticket,
    TokenCounts,
)
from rorqual.server.backends import Backend, Chunk, GenerationRequest, Prepared
from rorqual.server.backends.base import joined, num_characters
from rorqual.server.deadlines import deadline_of, too_late
from rorqual.server.inbox import Inbox
from rorqual.server.models import state_once_loaded
from rorqual.server.services import Asker, Services, outcome_of
from rorqual.server.tally import Tally

_MAX_PENDING_CHUNKS: Final = 4096  # of a reader that takes nothing; then the request is cut off
_MARGIN_SECONDS: Final = 60.0
_LOADING_SECONDS: Final = 120.0  # that a local request waits for its model
_PIECE_SECONDS: Final = 0.02  # between two pieces of a stream: faster than that nobody reads
_CANCEL_SECONDS: Final = 5.0  # for a backend to say what a cancelled request has used
Outcome = Literal["finished", "expired", "cancelled", "failed"]
Commit = Callable[[list[Chunk], TokenCounts | None], Awaitable[None]]
"""Writes chunks down together with the counts (None where nothing is billed)."""


class Generation:
    """Some prompts on one model under one admission ticket and one bill.

    Choices are numbered over all prompts: choice i of prompt p is p * n + i.
    """

    def __init__(
        self, services: Services, asker: Asker, prepared: Sequence[Prepared], opened_seconds: float
    ) -> None:
        self._services = services
        self._asker = asker
        self._prepared = list(prepared)
        first = prepared[0].request
        self.request_id = first.id
        self.model = first.model
        self._n = first.sampling.get("n", 1)
        self._backend: Backend = services.models.get(self.model)
        self._metrics = services.metrics.of_model(self.model)
        self._tally = Tally(prepared, self._n)
        self.prompt_tokens = self._tally.prompt_tokens
        self._ticket: Ticket | None = None
        self._reserving: Future[Any] | None = None  # None where nothing is billed
        self._submitted = False
        self._starts = False  # whether its turn submits it
        self._failure: Exception | None = None
        self._inbox = Inbox()
        self._gathered_seconds = 0.0
        self._generated_tokens = 0
        self._open = {p * self._n + i for p in range(len(prepared)) for i in range(self._n)}
        self._logged = TokenCounts()
        self._settled = False
        self._outcome: Outcome = "cancelled"
        self._is_late = False
        self.was_cut_off = False
        self.opened_seconds = opened_seconds
        self._deadline = deadline_of(services, asker, opened_seconds)
        self.started_seconds: float | None = None
        self.first_token_seconds: float | None = None
        self.settlement: Settlement | None = None
        self.commit: Commit | None = None
        self.is_whole = False

    # Opening

    @classmethod
    async def open(
        cls, services: Services, asker: Asker, requests: Sequence[GenerationRequest]
    ) -> "Generation":
        """A generation in the queue, its worst cost reserved; a RorqualError says why not."""
        opened_seconds = time.monotonic()
        if services.draining:
            raise Refused("the server is shutting down; ask another or later", 5.0)
        model = requests[0].model
        if asker.key is not None:
            asker.key.require_model(model)
        services.check_room(sum(num_characters(request.input) for request in requests))
        served = services.platform.admission.ladder.model(model)
        backend = services.models.get(served)
        state = backend.stats().state
        if services.is_local:  # one user, who has just started it
            state = await state_once_loaded(backend, _LOADING_SECONDS)
        if state != "ready":
            raise Refused(f"model {served} is {state}; try again shortly", 5.0)
        deadline = deadline_of(services, asker, opened_seconds)
        named = [replace(request, model=served, deadline=deadline) for request in requests]
        prepared = [await backend.prepare(_scaled(services, request)) for request in named]
        generation = cls(services, asker, prepared, opened_seconds)
        try:
            await generation._enter()
        except BaseException:
            await generation.close()
            raise
        return generation

    async def _enter(self) -> None:
        services = self._services
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise too_late()
        job = Job(
            account_id=self._asker.user.id,
            address=self._asker.address,
            prompt_tokens=self.prompt_tokens,
            max_output_tokens=self._tally.max_output_tokens,
            max_wait_seconds=left,
        )
        self._ticket = services.platform.admission.enter(job)
        if not services.is_local:
            await self._reserve(left)

    async def _reserve(self, left_seconds: float) -> None:
        """Takes the worst cost out of the balance, or raises what is wrong with that."""
        self._reserving = self._services.platform.ledger.submit_reserve(
            self.request_id,
            self._asker.user.id,
            self.model,
            prompt_tokens=self.prompt_tokens,
            max_output_tokens=self._tally.max_output_tokens,
            key_id=self._asker.key_id,
            expires_in_seconds=left_seconds + _MARGIN_SECONDS,
        )
        try:
            await outcome_of(self._reserving)
        except (NotAuthenticated, NotAllowed):  # revoked or locked since it was looked up
            if self._asker.key_id is not None:
                self._services.known_keys.forget(self._asker.key_id)
            raise

    # Waiting

    async def wait_started(self, timeout_seconds: float) -> bool:
        """Whether its turn has come, waiting for at most so long; then it runs.

        Raises a Refused when its deadline passed in the queue.
        """
        if self._submitted:
            return True
        assert self._ticket is not None
        started = self._ticket.started
        if not self._starts and not started.done():
            self._starts = True
            started.add_done_callback(self._submitter(asyncio.get_running_loop()))
        try:
            if started.done():
                started.result()
            else:
                async with asyncio.timeout(timeout_seconds):
                    await outcome_of(started)
        except TimeoutError:
            return self._submitted
        except TicketCancelled:
            raise QueueFull("the request left the queue", 1.0) from None
        self._submit_once()
        return True

    def _submitter(self, loop: asyncio.AbstractEventLoop) -> Callable[[Future[None]], None]:
        """For whoever gives it its turn: on the loop's own thread it is submitted at once."""

        def submit(_: Future[None]) -> None:
            try:
                is_here = asyncio.get_running_loop() is loop
            except RuntimeError:
                is_here = False
            if is_here:
                self._submit_once()
                return
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._submit_once)

        return submit

    @property
    def place(self) -> Place:
        """Where it stands in the queue."""
        assert self._ticket is not None
        return self._services.platform.admission.place(self._ticket)

    def _submit_once(self) -> None:
        """Hands it to the backend, if its turn has come and nobody has given it up."""
        ticket = self._ticket
        if self._submitted or self._settled or ticket is None or ticket.started.exception():
            return
        self._submitted = True
        self.started_seconds = time.monotonic()
        waited = self.started_seconds - self.opened_seconds
        self._metrics.queue_seconds.observe(waited)
        try:
            for number, prepared in enumerate(self._prepared):
                offset = number * self._n
                self._backend.submit(
                    prepared, lambda found, offset=offset: self._take(found, offset)
                )
        except Exception as error:  # raised to the reader, who may not be here
            self._failure, self._outcome = error, "failed"
            self.cancel()
            self._open.clear()
            asyncio.get_running_loop().call_soon(self._free_place)
            self._inbox.wake(at_once=True)

    def _take(self, chunks: list[Chunk], offset: int) -> None:
        """The backend's chunks, on the event loop."""
        if self._settled:
            return
        for chunk in chunks:
            whole = chunk.error is not None or (chunk.finish == "cancelled" and not chunk.usage)
            chunk.index += offset
            self._inbox.put(chunk)
            self._generated_tokens += chunk.num_tokens
            if chunk.finish is not None:
                ended = range(offset, offset + self._n) if whole else (chunk.index,)
                self._open.difference_update(ended)
        if len(self._inbox) > _MAX_PENDING_CHUNKS:
            self.cancel()
        self._inbox.wake(at_once=not self._open)
        if not self._open:
            self._free_place()

    # Reading

    async def chunks(self, quiet_seconds: float = math.inf) -> AsyncIterator[list[Chunk]]:
        """Chunks as they come, committed before they are handed out; the last ones are settled.

        An empty list says that nothing came for quiet_seconds. A failure of the backend raises its
        error; text before it has been handed out.
        """
        assert self._submitted, "wait_started comes first"
        if self._failure is not None:
            raise self._failure
        while self._open or self._inbox:
            while not await self._gather(quiet_seconds):
                yield []
            # Committed together: no more than one flush, however much has gathered.
            metering = self._services.config.metering
            chunks = self._inbox.take(metering.flush_tokens if self._logs else math.inf)
            is_last = not self._open and not self._inbox  # else more may come meanwhile
            error = next((chunk.error for chunk in chunks if chunk.error is not None), None)
            kept = joined(chunk for chunk in chunks if chunk.error is None)
            self._count(kept)
            self._name_ends(kept)
            if is_last and self.was_cut_off and not self._tally.num_handed:
                error, kept = too_late(), []
            if kept and (self.commit is not None or not is_last or error is not None):
                await self._log(kept)
            if is_last and error is None:
                self._outcome = "expired" if self.was_cut_off else "finished"
                await self._settle()
                self._check_bill()
            if kept:
                yield kept
            if error is not None:
                self._outcome = "expired" if isinstance(error, DeadlineExceeded) else "failed"
                raise error

    async def _gather(self, quiet_seconds: float) -> bool:
        """Waits for chunks; when billed, for as many as share one commit well, else for as many
        as come in a moment: what an event of its own costs each token, the engine would lack.

        False if nothing came for so long, and the deadline has not passed either.
        """
        while not self._inbox:
            left = self._deadline - time.monotonic()
            if await self._inbox.wait(min(left, quiet_seconds)):
                continue
            if quiet_seconds < left:
                return False
            if self._is_late:  # cancelled, and still nothing came: the backend is stuck
                self._open.clear()
                self._outcome = "expired"
                raise too_late()
            self._is_late = True
            self._deadline = time.monotonic() + _CANCEL_SECONDS
            self.cancel()
        if self._logged.total_tokens:  # the first goes at once
            await self._gather_more()
        self._gathered_seconds = time.monotonic()
        return True

    async def _gather_more(self) -> None:
        most: float = math.inf
        until = self._gathered_seconds + _PIECE_SECONDS
        if self._logs:
            metering = self._services.config.metering
            most = metering.flush_tokens
            # At the next beat of a clock that all share: so one synced commit carries them all.
            until = (time.monotonic() // metering.flush_seconds + 1) * metering.flush_seconds
        await self._inbox.fill(most, until, lambda: bool(self._open))

    @property
    def _logs(self) -> bool:
        """Whether chunks are committed before they are handed out.

        A whole answer is not: it is delivered, and billed, all at once or not at all.
        """
        return self.commit is not None or (self._reserving is not None and not self.is_whole)

    def _count(self, chunks: list[Chunk]) -> None:
        self._tally.add(chunks)
        if not any(chunk.num_tokens for chunk in chunks):
            return
        if self.first_token_seconds is None:
            self.first_token_seconds = time.monotonic()
            waited = self.first_token_seconds - (self.started_seconds or self.opened_seconds)
            self._metrics.first_token_seconds.observe(waited)
        if self._ticket is not None:
            used = self.prompt_tokens + self._tally.num_handed
            self._services.platform.admission.progress(self._ticket, used)

    def _name_ends(self, chunks: list[Chunk]) -> None:
        """An answer that its deadline cut off is one that was too long."""
        for chunk in chunks:
            if chunk.finish == "deadline" or (self._is_late and chunk.finish == "cancelled"):
                chunk.finish = "length"
                self.was_cut_off = True

    @property
    def usage(self) -> Usage:
        """Tokens of all choices together; a prompt counts once, however many answers it has."""
        return self._tally.usage

    @property
    def account_id(self) -> str:
        """Who pays."""
        return self._asker.user.id

    @property
    def has_ended(self) -> bool:
        """Whether every choice has come to its end and was handed out."""
        return not self._open and not self._inbox

    @property
    def deadline_seconds(self) -> float:
        """How long it may still take."""
        return max(0.0, self._deadline - time.monotonic())

    @property
    def is_complete(self) -> bool:
        """Whether it has come to its end without a failure, and was settled."""
        return self.has_ended and self._outcome in ("finished", "expired")

    @property
    def seconds(self) -> float:
        """Since it started to run."""
        return time.monotonic() - (self.started_seconds or self.opened_seconds)

    # Ending

    def cancel(self) -> None:
        """End it; what was generated so far is still handed out and billed."""
        for prepared in self._prepared:
            self._backend.cancel(prepared.request.id)

    async def close(self) -> None:
        """Cancels what runs, settles, frees the place. Again does nothing."""
        try:
            if not self._submitted:
                self.leave()
            elif self._open and not self._settled:
                await self._end_early()
        finally:
            try:
                await self._settle()
            finally:
                self.leave()

    async def _end_early(self) -> None:
        """Cancels, and waits a moment for the backend to end, so that the place is free."""
        self.cancel()
        until = time.monotonic() + _CANCEL_SECONDS
        while self._open and (left := until - time.monotonic()) > 0:
            await self._inbox.wait(left)

    def _free_place(self) -> None:
        """The backend is done with it; its reader may not be."""
        if self._ticket is not None:
            used = self.prompt_tokens + self._generated_tokens
            self._services.platform.admission.finish(self._ticket, used, is_read=False)

    def leave(self) -> None:
        """Its reader has all of it, or it is given up: it counts no more. Again does nothing."""
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return
        if self._submitted:
            used = self.prompt_tokens + self._generated_tokens
            self._services.platform.admission.finish(ticket, used)
        else:
            self._services.platform.admission.leave(ticket)

    async def _log(self, chunks: list[Chunk]) -> None:
        """Commits the counts, in a transaction of our own or in that of `commit`."""
        counts = self._tally.handed
        if self.commit is not None:
            await self.commit(chunks, None if self._reserving is None else counts)
        elif self._logs and counts != self._logged:
            await outcome_of(self._services.platform.ledger.submit_log(self.request_id, counts))
        self._logged = counts

    async def _settle(self) -> None:
        """Charges what was delivered, once."""
        if self._settled:
            return
        self._settled = True
        counts = TokenCounts()
        cut_off = self._outcome == "expired" and self.was_cut_off and self._tally.num_handed > 0
        if self._outcome == "finished" or cut_off:
            counts = self._tally.final
        elif not self.is_whole:
            counts = self._tally.partial
        if counts.total_tokens:
            self._metrics.bill(counts)
        if self._reserving is None:
            return
        if not self._reserving.done():  # cancelled while it waited for that
            charging = self._charge(self._reserving, counts)
            self.settlement = await asyncio.shield(charging)
        elif self._reserving.exception() is None:
            self.settlement = await outcome_of(self._submit_settle(counts))

    def _check_bill(self) -> None:
        """Raises RequestClosed if somebody else, who took this server for dead, was faster: what
        is left was not billed, so it is not delivered."""
        if self.settlement is not None and self.settlement.repeated:
            raise RequestClosed(f"request {self.request_id} was settled; deliver no more")

    async def _charge(self, reserving: Future[Any], counts: TokenCounts) -> Settlement | None:
        try:
            await outcome_of(reserving)
        except RorqualError:  # nothing was taken, and nothing was handed out
            return None
        return await outcome_of(self._submit_settle(counts))

    def _submit_settle(self, counts: TokenCounts) -> Future[Settlement]:
        ledger = self._services.platform.ledger
        return ledger.submit_settle(self.request_id, counts, outcome=self._outcome)

    async def __aenter__(self) -> "Generation":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, DeadlineExceeded):
            self._outcome = "expired"
        elif isinstance(error, RorqualError) and not isinstance(error, CapacityError):
            self._outcome = "failed"
        await self.close()


def _scaled(services: Services, request: GenerationRequest) -> GenerationRequest:
    """The request with the thinking that the overload ladder leaves it."""
    budget = request.sampling.get("thinking_budget")
    if not budget:
        return request
    left = services.platform.admission.ladder.thinking_tokens(budget)
    return replace(request, sampling={**request.sampling, "thinking_budget": left})
