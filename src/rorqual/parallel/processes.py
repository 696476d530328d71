"""The processes of a run: one on a laptop, many under `torchrun`, the same code for both."""

import os
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from rorqual.kernels.library import num_physical_cores

_SECONDS_TO_DROP = 0.2


@dataclass(frozen=True, slots=True)
class Processes:
    """Who this process is. mesh is None in a single process."""

    rank: int
    world_size: int
    device: torch.device
    mesh: DeviceMesh | None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum of `value` over all processes, in place; the same tensor."""
        if self.mesh is not None:
            dist.all_reduce(value, group=self.mesh.get_group())
        return value

    def any(self, flag: bool) -> bool:
        """Whether any process raised the flag."""
        return bool(self.sum(torch.tensor(int(flag), device=self.device)) > 0)

    def broadcast(self, value: object) -> object:
        """Rank 0's value on every process."""
        if self.mesh is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.mesh.get_group())
        return box[0]

    def barrier(self) -> None:
        """Wait for every process."""
        if self.mesh is not None:
            dist.barrier(group=self.mesh.get_group())

    def close(self) -> None:
        """Leave the process group, and let its threads drop what they still hold.

        A thread of Gloo that was put aside between telling us that a collective is done and
        dropping its tensor would need the interpreter for that; if it finds it gone, it aborts the
        process. Destroying the group does not wait for its threads (PyTorch's caches keep the group
        alive), so we give them the time.
        """
        if self.mesh is not None:
            dist.destroy_process_group()
            time.sleep(_SECONDS_TO_DROP)


def threads_per_process() -> int:
    """This process's share of the machine's cores: all of them, or an equal part under torchrun."""
    return max(1, num_physical_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def join_processes() -> Processes:
    """Read torchrun's environment; without it, a single process on the best device."""
    use_cuda = torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Processes(0, 1, device, None)
    if use_cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if use_cuda else "gloo", timeout=timedelta(minutes=10))
    mesh = init_device_mesh(device.type, (world_size,), mesh_dim_names=("data",))
    return Processes(dist.get_rank(), world_size, device, mesh)
