"""FSDP2 data parallelism: parameters, gradients and moments sharded over all processes.

Parameters stay fp32 in the shards and are gathered as fp32; modules cast them to the activations'
dtype themselves, so the router stays fp32 and many processes compute what one does. Expert and
pipeline parallelism will add mesh dimensions here.
"""

from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from rorqual.model import DecoderLayer, Transformer
from rorqual.parallel.processes import Processes


def shard_model(model: Transformer, processes: Processes) -> None:
    """Shard layer by layer, then the rest, in place; nothing to do in a single process."""
    if processes.mesh is None:
        return
    for layer in model.model.layers:
        fully_shard(layer, mesh=processes.mesh)
        if isinstance(layer, DecoderLayer):
            register_fsdp_forward_method(layer, "forward_cached")
    fully_shard(model, mesh=processes.mesh)
    register_fsdp_forward_method(model, "decode")


def settle(model: Transformer) -> None:
    """Give back gathered parameters, so that what the module holds is its shards again."""
    if isinstance(model, FSDPModule):
        model.reshard()
