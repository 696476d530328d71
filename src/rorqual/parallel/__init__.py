"""Many processes, one model: process groups and FSDP2 (torch)."""

from rorqual.parallel.fsdp import settle, shard_model
from rorqual.parallel.processes import Processes, join_processes, threads_per_process

__all__ = ["Processes", "join_processes", "settle", "shard_model", "threads_per_process"]
