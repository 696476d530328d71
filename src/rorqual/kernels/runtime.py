"""The native whole-model runtime: weights packed once, one C call per engine step, no torch.

NOTE: a row's results depend on its own tokens and cache alone. Every sum runs in one fixed order,
so neither the rows beside it, nor chunking, nor threads, nor block placement change a bit.
"""

import weakref
from collections.abc import Callable
from ctypes import POINTER, Structure, byref, c_int, c_int64, c_void_p
from threading import Thread
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rorqual.config import DenseConfig, ModelConfig
from rorqual.errors import CapacityError, CheckpointError, ConfigError, RequestError
from rorqual.kernels.library import Library
from rorqual.kernels.memory import available_bytes
from rorqual.kernels.packed_cache import PackedCache, PackedEntry
from rorqual.kernels.packed_file import PackedFile, Piece
from rorqual.kernels.runtime_layout import (
    FORMATS,
    ModelShape,
    Precision,
    model_shape,
    num_moe_layers,
    published_tensors,
    rotation_tables,
)
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch, StepOutput
from rorqual.units import format_bytes

ReadTensor = Callable[[str], NDArray[np.float32]]

_MOST_EXPERTS: Final = 1024
_SHAPE: Final = POINTER(ModelShape)
_MEASURE: Final = (_SHAPE, c_void_p)
_CREATE: Final = (_SHAPE, c_void_p, c_void_p, POINTER(c_void_p))
_PACK: Final = (c_void_p, c_int, c_int64, c_int64, c_void_p)


class _StepArguments(Structure):
    """`rq::StepArguments`."""

    _fields_ = [
        *((name, c_int64) for name in ("tokens", "sequences", "table_width", "outputs")),
        *(
            (name, c_void_p)
            for name in (
                "token_ids", "first_rows", "num_cached", "block_tables", "output_rows", "logits",
                "hidden", "routes", "replay", "previous",
            )
        ),
        ("first_layer", c_int64),
        ("last_layer", c_int64),
    ]  # fmt: skip


_STEP: Final = (c_void_p, POINTER(_StepArguments), c_void_p)


class Runtime:
    """One model and its paged cache in native memory.

    `read(name)` gives a published tensor as float32 and is called once per tensor. The cache holds
    `num_blocks` blocks of BLOCK_TOKENS tokens; a step feeds at most `max_batch_tokens`. packed:
    where packed weights are kept between starts; then `read` is called only if they are not there.
    """

    def __init__(
        self,
        config: ModelConfig | DenseConfig,
        read: ReadTensor,
        *,
        precision: Precision,
        num_blocks: int,
        library: Library,
        max_batch_tokens: int = 2048,
        packed: PackedCache | None = None,
    ):
        _check_options(config, precision, num_blocks, max_batch_tokens)
        self.config, self.precision, self.num_blocks = config, precision, num_blocks
        self.max_batch_tokens = max_batch_tokens
        self._library, self._read = library, read
        self._num_moe_layers = num_moe_layers(config)
        self._tensors = tuple(published_tensors(config))
        shape = model_shape(config, precision, num_blocks, max_batch_tokens)
        sizes = np.zeros(3, np.int64)
        library.call("rq_runtime_measure", _MEASURE, byref(shape), sizes.ctypes.data)
        self.weight_bytes, cache_bytes, scratch_bytes = (int(size) for size in sizes)
        self.cache_bytes_per_block = cache_bytes // num_blocks
        _check_memory(self.weight_bytes, cache_bytes, scratch_bytes)
        entry = None if packed is None else packed.entry(config, precision, library)
        self._kept = None if entry is None else entry.open(self._packed_sizes(shape))
        # The native side keeps the addresses of both.
        self._rotations = _rotations(config, self._kept)
        cosines, sines = self._rotations
        handle = c_void_p()
        library.call(
            "rq_runtime_create", _CREATE, byref(shape), cosines.ctypes.data, sines.ctypes.data,
            byref(handle),
        )  # fmt: skip
        self._handle: c_void_p | None = handle
        self._release = weakref.finalize(
            self, library.call, "rq_runtime_destroy", (c_void_p,), handle
        )
        self._keeping: Thread | None = None
        try:
            if self._kept is None or entry is None:
                self.update(read)
            else:
                self._place_weights(self._kept.piece(0).ctypes.data)
                entry.check_beside(self._kept)
            if self._kept is None and entry is not None:
                # The thread holds `self` and so the arena; a process ends after it.
                self._keeping = Thread(target=self._keep, args=(entry, shape))
                self._keeping.start()
        except BaseException:
            self.close()
            raise

    def update(self, read: ReadTensor) -> None:
        """Take new weights in place; what the cache holds is invalid afterwards.

        Weights that are mapped from a file give way to memory of our own first.
        """
        self.wait_until_kept()
        mapped, self._kept = self._kept, None
        if mapped is not None:
            self._place_weights(None)
        for tensor in self._tensors:
            data = np.ascontiguousarray(read(tensor.name), np.float32)
            if data.shape != tensor.shape:
                raise CheckpointError(
                    f"{tensor.name} has shape {list(data.shape)}, config.json makes it "
                    f"{list(tensor.shape)}; config.json and weights do not belong together"
                )
            self._library.call(
                "rq_runtime_pack", _PACK, self._open(), tensor.slot, tensor.layer, tensor.expert,
                data.ctypes.data,
            )  # fmt: skip

    def _place_weights(self, address: int | None) -> None:
        types = (c_void_p, c_void_p)
        self._library.call("rq_runtime_place_weights", types, self._open(), address)

    def _packed_sizes(self, shape: ModelShape) -> tuple[int, int, int]:
        """Bytes of what is kept between starts: the arena and the rotation tables."""
        table_bytes = shape.max_positions * (shape.rope // 2) * 4
        return self.weight_bytes, table_bytes, table_bytes

    def _keep(self, entry: PackedEntry, shape: ModelShape) -> None:
        entry.keep(self._packed_pieces(shape))

    def wait_until_kept(self) -> None:
        """Until the packed weights have been written for the next start, or never will be."""
        if self._keeping is not None:
            self._keeping.join()
            self._keeping = None

    def _packed_pieces(self, shape: ModelShape) -> list[Piece]:
        arena = c_void_p()
        types = (c_void_p, POINTER(c_void_p))
        self._library.call("rq_runtime_weights", types, self._open(), byref(arena))
        assert arena.value is not None
        addresses = (arena.value, *(table.ctypes.data for table in self._rotations))
        return [Piece(*one) for one in zip(addresses, self._packed_sizes(shape), strict=True)]

    def step(
        self,
        batch: StepBatch,
        *,
        want_hidden: bool = False,
        record_routes: bool = False,
        replay_routes: NDArray[np.int16] | None = None,
    ) -> StepOutput:
        """Feed the batch, append it to the cache, compute the wanted logits.

        Recorded routes are in ascending order of the expert; replayed ones may be in any.
        """
        return self._run(batch, None, want_hidden, record_routes, replay_routes)

    def draft_step(
        self, batch: StepBatch, previous: NDArray[np.float32], depth: int = 0
    ) -> StepOutput:
        """The MTP module `depth` (V3 section 2.2): logits of one token further, and its state.

        Row i feeds the state `previous` [T, H] of a position and, as token id, the token that
        follows it. previous: what `step` (depth 0) or the draft_step before gave as `hidden`. The
        module has a cache layer of its own in the same blocks; num_cached counts its tokens.
        """
        num_modules = getattr(self.config, "num_nextn_predict_layers", 0)
        if not 0 <= depth < num_modules:
            raise ConfigError(
                f"draft_step: depth={depth}, the model has {num_modules} MTP modules; "
                "draft with fewer or train more"
            )
        expected = (len(batch.token_ids), self.config.hidden_size)
        if previous.shape != expected or previous.dtype != np.float32:
            raise ConfigError(
                f"draft_step: previous is {previous.dtype} {list(previous.shape)}, expected "
                f"float32 {list(expected)}"
            )
        layer = self.config.num_hidden_layers + depth
        return self._run(batch, (np.ascontiguousarray(previous), layer), True, False, None)

    def _run(
        self,
        batch: StepBatch,
        draft: tuple[NDArray[np.float32], int] | None,
        want_hidden: bool,
        record_routes: bool,
        replay_routes: NDArray[np.int16] | None,
    ) -> StepOutput:
        self._check_batch(batch, replay_routes)
        num_tokens, num_outputs = len(batch.token_ids), len(batch.output_rows)
        width = self.config.hidden_size
        logits = np.empty((num_outputs, self.config.vocab_size), np.float32)
        hidden = np.empty((num_tokens, width), np.float32) if want_hidden else None
        routes = np.empty(self._routes_shape(num_tokens), np.int16) if record_routes else None
        arguments = _StepArguments(
            num_tokens, len(batch.num_cached), batch.block_tables.shape[1], num_outputs,
            batch.token_ids.ctypes.data, batch.first_rows.ctypes.data,
            batch.num_cached.ctypes.data, batch.block_tables.ctypes.data,
            batch.output_rows.ctypes.data, logits.ctypes.data, _address(hidden), _address(routes),
            _address(replay_routes), _address(draft[0] if draft else None),
            draft[1] if draft else 0,
            draft[1] + 1 if draft else self.config.num_hidden_layers,
        )  # fmt: skip
        problem = np.zeros(2, np.int64)
        self._library.call(
            "rq_runtime_step", _STEP, self._open(), byref(arguments), problem.ctypes.data
        )
        if problem[0]:
            self._raise_problem(int(problem[0]), int(problem[1]), batch)
        return StepOutput(logits, hidden, routes)

    def copy_block(self, source: int, target: int) -> None:
        """Copy a block of every layer, for sequences that part in the middle of one."""
        for block in (source, target):
            if not 0 <= block < self.num_blocks:
                raise ConfigError(f"copy_block: block {block} is outside [0, {self.num_blocks})")
        types = (c_void_p, c_int64, c_int64)
        self._library.call("rq_runtime_copy_block", types, self._open(), source, target)

    def close(self) -> None:
        """Give back weights and cache; the runtime cannot be used afterwards."""
        self.wait_until_kept()
        self._handle = None
        self._release()

    def _open(self) -> c_void_p:
        if self._handle is None:
            raise ConfigError("this runtime is closed; make a new one")
        kept = self._kept
        if kept is not None and kept.failure is not None:
            self.update(self._read)
            raise CheckpointError(
                f"{kept.path}: the packed weights were damaged ({kept.failure}), have been removed "
                "and are packed anew; what they computed is void, ask again"
            )
        return self._handle

    def _routes_shape(self, num_tokens: int) -> tuple[int, int, int]:
        chosen = getattr(self.config, "num_experts_per_tok", 1)
        return num_tokens, self._num_moe_layers, chosen

    def _check_batch(self, batch: StepBatch, replay: NDArray[np.int16] | None) -> None:
        """Dtypes and shapes; the native side checks what the arrays hold."""
        num_tokens, num_sequences = len(batch.token_ids), len(batch.num_cached)
        if not 0 < num_tokens <= self.max_batch_tokens:
            raise CapacityError(
                f"step: {num_tokens} tokens, this runtime takes 1 to {self.max_batch_tokens}; "
                "feed them in chunks"
            )
        _check_array("token_ids", batch.token_ids, np.int32, (num_tokens,))
        _check_array("num_cached", batch.num_cached, np.int32, (num_sequences,))
        _check_array("first_rows", batch.first_rows, np.int32, (num_sequences + 1,))
        _check_array("output_rows", batch.output_rows, np.int32, (len(batch.output_rows),))
        width = batch.block_tables.shape[-1]
        _check_array("block_tables", batch.block_tables, np.int32, (num_sequences, width))
        if replay is not None:
            _check_array("replay_routes", replay, np.int16, self._routes_shape(num_tokens))

    def _raise_problem(self, code: int, where: int, batch: StepBatch) -> None:
        if code == 1:
            raise RequestError(
                f"token_ids[{where}]={batch.token_ids[where]} is outside [0, "
                f"{self.config.vocab_size}); the tokenizer does not belong to this model",
                param="token_ids",
            )
        if code == 3:
            raise RequestError(
                f"sequence {where} reaches past position {self.config.max_position_embeddings}, "
                "the model's longest context; shorten it",
                param="num_cached",
            )
        field, wrong = {
            2: ("first_rows", "must rise from 0 to the number of tokens"),
            4: ("block_tables", "has too few columns for the sequence"),
            5: ("block_tables", f"names a block outside [0, {self.num_blocks})"),
            6: ("output_rows", "must rise and stay below the number of tokens"),
            7: ("replay_routes", "names an expert that the model does not have"),
        }[code]
        raise RequestError(f"{field}: entry {where} {wrong}; rebuild the batch", param=field)


def _rotations(
    config: ModelConfig | DenseConfig, kept: PackedFile | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines, from the file if there is one. 2 x [P, R/2]"""
    if kept is None:
        return rotation_tables(config)
    shape = (config.max_position_embeddings, -1)
    return (
        kept.piece(1).view(np.float32).reshape(shape),
        kept.piece(2).view(np.float32).reshape(shape),
    )


def _address(array: NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data


def _check_array(
    name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]
) -> None:
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ConfigError(
            f"{name} is {array.dtype} {list(array.shape)}, expected contiguous "
            f"{np.dtype(dtype)} {list(shape)}"
        )


def _check_options(
    config: ModelConfig | DenseConfig, precision: Precision, num_blocks: int, max_tokens: int
) -> None:
    if precision not in FORMATS:
        raise ConfigError(f"precision={precision!r}, expected one of {', '.join(FORMATS)}")
    if num_blocks < 1 or max_tokens < 1:
        raise ConfigError(
            f"num_blocks={num_blocks} and max_batch_tokens={max_tokens} must be at least 1"
        )
    if getattr(config, "num_experts", 0) > _MOST_EXPERTS:
        raise ConfigError(f"n_routed_experts exceeds the {_MOST_EXPERTS} that the runtime takes")


def _check_memory(weights: int, cache: int, scratch: int) -> None:
    available = available_bytes()
    needed = weights + cache + scratch
    if available is not None and needed > available:
        blocks = f"{BLOCK_TOKENS}-token blocks"
        raise CapacityError(
            f"the model needs {format_bytes(needed)} (weights {format_bytes(weights)}, cache "
            f"{format_bytes(cache)}, buffers {format_bytes(scratch)}), {format_bytes(available)} "
            f"is available; take a lower precision or fewer {blocks}"
        )
