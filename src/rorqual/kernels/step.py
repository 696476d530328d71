"""What one engine step takes and gives: plain arrays, shared by every runner.

A step feeds T tokens of S sequences at once, prompts and single decoded tokens mixed. Keys and
values live in physical blocks of BLOCK_TOKENS tokens; a sequence's table maps its logical blocks to
physical ones. Letters: V vocabulary, H hidden size, K experts a token, L wanted rows.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCK_TOKENS: Final = 32


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One engine step over S sequences, T fed tokens in all.

    token_ids [T] sequence after sequence; first_rows [S+1]: sequence s feeds rows
    first_rows[s]:first_rows[s+1], at least one; num_cached [S] tokens already in the cache, which
    is the position of the first fed one; block_tables [S, B] physical block of each logical block,
    -1 where unused; output_rows [L] the rows whose logits are wanted, ascending.
    """

    token_ids: NDArray[np.int32]
    first_rows: NDArray[np.int32]
    num_cached: NDArray[np.int32]
    block_tables: NDArray[np.int32]
    output_rows: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step computed.

    logits [L, V]; hidden [T, H] the residual stream before the final norm (the MTP module's
    input), if asked for; routes [T, MoE layers, K] the experts of each token, if asked for.
    """

    logits: NDArray[np.float32]
    hidden: NDArray[np.float32] | None
    routes: NDArray[np.int16] | None
