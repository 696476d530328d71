"""A function on a GPU as one CUDA graph: all of its kernels in a single launch.

A step of a small model is thousands of kernels of a few microseconds, and launching them one by one
takes four times as long as running them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UPS = 2


class Graphed:
    """A function of tensors of fixed shapes, recorded once and then replayed.

    The function must not wait for the GPU, and may change tensors that stay where they are
    (gradients, if they exist). Results are overwritten by the next call.
    """

    def __init__(
        self, function: Callable[..., tuple[Tensor, ...]], arguments: Sequence[Tensor]
    ) -> None:
        self._arguments = [argument.clone() for argument in arguments]
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):  # libraries choose their kernels and take their memory
            for _ in range(_WARM_UPS):
                function(*self._arguments)
        current.wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._results = function(*self._arguments)

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Replay on these arguments."""
        torch._foreach_copy_(self._arguments, list(arguments))  # pyright: ignore[reportPrivateImportUsage]
        self._graph.replay()
        return self._results
