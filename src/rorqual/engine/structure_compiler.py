"""Structures compiled into matchers by llguidance, off the caller's thread, and cached.

llguidance (the `serve` extra) walks the vocabulary as a tree beside a lexer and an Earley parser;
compiling takes milliseconds and a step tens to hundreds of microseconds. It reads no files and
fetches no references.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from rorqual.engine.structure import Structure
from rorqual.engine.tool_calls import FENCE_CLOSE, FENCE_OPEN
from rorqual.errors import CapacityError, RequestError
from rorqual.tokenizer import Tokenizer
from rorqual.tokenizer.special import (
    TOOL_CALL_BEGIN,
    TOOL_CALL_END,
    TOOL_CALLS_BEGIN,
    TOOL_CALLS_END,
    TOOL_SEP,
)

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

COMPILE_SECONDS: Final = 5.0
MAX_COMPILING: Final = 2
MAX_CACHED: Final = 64
# Runs of white space in JSON are bounded: a model that likes line breaks would never end.
JSON_SPACE: Final = r"[ \n\t]{0,80}"
LIMITS: Final = {
    "max_items_in_row": 2_000,
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 20_000,
    "max_lexer_states": 10_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,  # else messages hold the schema and the text so far
}


class StructureState:
    """Which tokens may come next in one sequence.

    Inactive (while the model thinks) it allows everything and follows nothing. `failed` says why
    the matcher gave up (a limit, or a token that was not allowed); from then on only an end token
    is allowed, so that the sequence ends.
    """

    def __init__(self, matcher: "LLMatcher", layout: "_BitLayout", *, active: bool):
        self._matcher = matcher
        self._bits: NDArray[np.uint32] = np.zeros(layout.num_words, dtype=np.uint32)  # [ceil(V/32)]
        self._written = self._bits[: layout.num_tokenizer_words]
        self._is_fresh = False  # whether the bits are those of the present state
        self.active = active

    def activate(self) -> None:
        """Constrain from the next token on: thinking is over."""
        self.active = True

    def allowed(self) -> NDArray[np.uint32] | None:
        """Bit i % 32 of word i // 32: may token i come next? None: any; overwritten by the next."""
        if not self.active:
            return None
        if not self._is_fresh:
            self._matcher.unsafe_compute_mask_ptr(self._written.ctypes.data, self._written.nbytes)
            self._is_fresh = True
        return self._bits

    def advance(self, token_id: int) -> None:
        """Follow a token that was taken."""
        if self.active:
            self._is_fresh = False
            self._matcher.consume_token(token_id)

    def num_allowed(self, token_ids: Sequence[int]) -> int:
        """How many of these tokens, from the first on, could follow (a draft); changes nothing."""
        return self._matcher.validate_tokens(list(token_ids)) if self.active else len(token_ids)

    def rollback(self, num_tokens: int) -> None:
        """Take back the last tokens that it followed (a draft that was rejected)."""
        if self.active and num_tokens:
            self._is_fresh = False
            self._matcher.rollback(num_tokens)

    @property
    def finished(self) -> bool:
        """Whether the structure is complete and nothing but an end token can follow."""
        return self.active and self._matcher.is_stopped()

    @property
    def complete(self) -> bool:
        """Whether the text so far is a whole structure, though more may follow."""
        return self.active and self._matcher.is_accepting() and not self._matcher.is_error()

    @property
    def failed(self) -> str | None:
        """Why the matcher gave up, None if it has not."""
        return _first_line(self._matcher.get_error()) if self._matcher.is_error() else None


class _BitLayout:
    """Words of the bit set: the model's vocabulary may be padded beyond the tokenizer's."""

    def __init__(self, vocab_size: int, tokenizer_size: int):
        self.num_words = -(-vocab_size // 32)
        self.num_tokenizer_words = -(-tokenizer_size // 32)


class StructureCompiler:
    """Compiles structures for one tokenizer; may be called from any thread.

    `vocab_size` is the width of the model's logits. Ids that the tokenizer does not have, and its
    special tokens, are never allowed inside a structure; an id of `eos_token_ids` ends it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        compile_seconds: float = COMPILE_SECONDS,
    ):
        self._tokenizer = tokenizer
        self._eos_token_ids = list(eos_token_ids)
        self._layout = _BitLayout(vocab_size, min(vocab_size, tokenizer.vocab_size))
        self._num_tokens = min(vocab_size, tokenizer.vocab_size)
        self._compile_seconds = compile_seconds
        self._lock = threading.Lock()
        self._tokenizer_lock = threading.Lock()
        self._ll_tokenizer: LLTokenizer | None = None
        self._compiling: dict[bytes, Future[LLMatcher]] = {}
        self._compiled: OrderedDict[bytes, LLMatcher] = OrderedDict()

    def warm(self) -> "LLTokenizer":
        """Build the tree of the vocabulary (a second for 128k tokens), unless it was built."""
        llguidance = _llguidance()
        with self._tokenizer_lock:
            built = self._ll_tokenizer
            if built is None:
                ends = self._eos_token_ids
                vocabulary = _Vocabulary(self._tokenizer, self._num_tokens, ends)
                built = self._ll_tokenizer = llguidance.LLTokenizer(vocabulary, eos_token=ends)
            return cast("LLTokenizer", built)

    def state(self, structure: Structure, *, active: bool = True) -> StructureState:
        """A new state; compiles if needed, waiting for at most the time limit.

        RequestError if the structure is wrong or too complex, CapacityError if the compiler is
        busy with others.
        """
        self.warm()  # outside of the time limit, which is the structure's own
        future = self.submit(structure)
        try:
            matcher = future.result(self._compile_seconds)
        except FutureTimeout as error:
            raise RequestError(
                f"{structure.param} was not compiled within {self._compile_seconds:g} seconds; "
                "simplify it",
                code="structure_too_complex",
                param=structure.param,
            ) from error
        return StructureState(matcher.deep_copy(), self._layout, active=active)

    def submit(self, structure: Structure) -> "Future[LLMatcher]":
        """Compile in another thread, once for all that ask meanwhile; `state` then has it ready."""
        llguidance = _llguidance()
        key = structure.key
        with self._lock:
            matcher = self._compiled.get(key)
            if matcher is not None:
                self._compiled.move_to_end(key)
                done: Future[LLMatcher] = Future()
                done.set_result(matcher)
                return done
            future = self._compiling.get(key)
            if future is not None:
                return future
            if len(self._compiling) >= MAX_COMPILING:
                raise CapacityError(
                    f"{MAX_COMPILING} structures are being compiled; expected a free place, "
                    "try again shortly"
                )
            future = self._compiling[key] = Future()
        # A daemon: a compilation that outlives its time limit must not keep the process alive.
        threading.Thread(
            target=self._run, args=(llguidance, structure, key, future), daemon=True
        ).start()
        return future

    def _run(
        self, llguidance: Any, structure: Structure, key: bytes, future: "Future[LLMatcher]"
    ) -> None:
        try:
            matcher = self._compile(llguidance, structure)
        except BaseException as error:  # whatever it is, the one who waits must get it
            with self._lock:
                del self._compiling[key]
            future.set_exception(error)
            return
        with self._lock:
            del self._compiling[key]
            self._compiled[key] = matcher
            while len(self._compiled) > MAX_CACHED:
                self._compiled.popitem(last=False)
        future.set_result(matcher)

    def _compile(self, llguidance: Any, structure: Structure) -> "LLMatcher":
        tokenizer = self.warm()
        try:
            grammar = _grammar(llguidance.LLMatcher, structure, self._tokenizer.special_tokens)
        except ValueError as error:
            raise _invalid(structure, str(error)) from error
        limits = llguidance.LLParserLimits(**LIMITS)
        matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise _invalid(structure, matcher.get_error())
        # The first step does the lexer's groundwork; every copy then begins with it.
        matcher.compute_bitmask()
        if matcher.is_error() or (matcher.is_stopped() and not matcher.is_accepting()):
            raise _invalid(structure, matcher.get_error() or "nothing can satisfy it")
        return matcher


class _Vocabulary:
    """A tokenizer as llguidance reads one: bytes of each id, and ids of a text."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, num_tokens: int, eos_token_ids: Sequence[int]):
        self._tokenizer = tokenizer
        self.tokens = tokenizer.token_bytes[:num_tokens]
        self.special_token_ids = [
            token_id for token_id in tokenizer.special_tokens.values() if token_id < num_tokens
        ]
        self.eos_token_id = eos_token_ids[0]

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenizer.encode(text if isinstance(text, str) else text.decode("utf-8"))


def _grammar(
    matcher: "type[LLMatcher]", structure: Structure, special_tokens: Mapping[str, int]
) -> str:
    if structure.kind == "regex":
        return matcher.grammar_from_regex(structure.source)
    if structure.kind == "grammar":
        return matcher.grammar_from_lark(structure.source)
    if structure.kind == "choice":
        # Lark's strings are JSON's; ASCII, since its lexer refuses some characters as they are.
        options = (json.dumps(option) for option in json.loads(structure.source))
        return matcher.grammar_from_lark("start: " + " | ".join(options))
    if structure.kind == "tool_calls":
        return matcher.grammar_from_lark(_tool_call_grammar(structure, special_tokens))
    return matcher.grammar_from_json_schema(
        structure.source, overrides={"whitespace_pattern": JSON_SPACE, "lenient": False}
    )


def _tool_call_grammar(structure: Structure, special_tokens: Mapping[str, int]) -> str:
    """Lark of V3's and R1's tool calls; the markers are given by id, which no text encodes to."""
    strings = (TOOL_CALLS_BEGIN, TOOL_CALL_BEGIN, TOOL_SEP, TOOL_CALL_END, TOOL_CALLS_END)
    if not all(string in special_tokens for string in strings):
        raise RequestError(
            f"{structure.param} requires a tool call, but this model's tokenizer lacks the markers "
            "of DeepSeek's calls; leave it out or use a model with them",
            code="unsupported_parameter",
            param=structure.param,
        )
    calls_begin, call_begin, separator, call_end, calls_end = (
        f"<[{special_tokens[string]}]>" for string in strings
    )
    wish = json.loads(structure.source)
    more = ' ("\\n" call)*' if wish["parallel"] else ""
    rules: list[str] = []
    for number, (name, schema) in enumerate(wish["parameters"].items()):
        schema["x-guidance"] = {"whitespace_pattern": JSON_SPACE, "lenient": False}
        head = json.dumps(f"{name}\n{FENCE_OPEN}")
        rules.append(f"f{number}: {head} a{number}\na{number}: %json {json.dumps(schema)}")
    functions = " | ".join(f"f{number}" for number in range(len(rules)))
    fence = json.dumps(FENCE_CLOSE)
    start = f"start: {calls_begin} call{more} {calls_end}"
    call = f'call: {call_begin} "function" {separator} ({functions}) {fence} {call_end}'
    return "\n".join([start, call, *rules])


def _invalid(structure: Structure, problem: str) -> RequestError:
    return RequestError(
        f"{structure.param}: {_first_line(problem)}; correct or simplify it",
        code="invalid_structure",
        param=structure.param,
    )


def _first_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return (lines[0] if lines else "unknown problem")[:200]


def _llguidance() -> Any:
    """The library, or an error that says what to install."""
    try:
        return import_module("llguidance")
    except ImportError as error:
        raise RequestError(
            "structured output was asked for, but llguidance is not installed; install "
            "rorqual[serve] or leave the structure out",
            code="unsupported_parameter",
        ) from error
