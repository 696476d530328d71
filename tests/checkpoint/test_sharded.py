"""A model sharded by FSDP2 over two processes saves what the whole model saves."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from rorqual.checkpoint import CheckpointReader, load_model, load_training_state, save_model
from rorqual.model import Transformer

ONE_OF_TWO = """
import sys
from pathlib import Path
import torch
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from rorqual.checkpoint import (
    full_state_dict, full_tensors, load_model, on_first_process, save_model, save_training_state,
)
from rorqual.errors import CheckpointError, CapacityError
from rorqual.parallel import Processes

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
model = load_model(folder / "whole")
mesh = init_device_mesh("cpu", (2,))
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
parameters = dict(model.named_parameters())
assert all(isinstance(parameter, DTensor) for parameter in parameters.values())
state = full_state_dict(model)
assert not any(isinstance(tensor, DTensor) for tensor in state.values())
assert len(state) == (len(model.state_dict()) if rank == 0 else 0)  # only the writer holds it all
save_model(model, None, folder / "sharded")
assert (folder / "sharded/config.json").exists()  # on each process, once save_model returns
moments = full_tensors({name: 2 * p.detach() for name, p in parameters.items()})
on_first_process(lambda: save_training_state(folder / "sharded", moments, {}))

def fail():
    raise CapacityError("disk is full")

try:
    on_first_process(fail)
except (CapacityError, CheckpointError) as error:
    print(type(error).__name__, error)
Processes(rank, 2, torch.device("cpu"), mesh).close()
"""


def test_fsdp2_saves_what_the_whole_model_saves(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    save_model(make_model(), None, tmp_path / "whole")
    command = [sys.executable, "-c", ONE_OF_TWO, str(tmp_path)]
    processes = [
        subprocess.Popen(
            [*command, rank], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    assert outputs[0][0] == "CapacityError disk is full\n"
    assert outputs[1][0] == "CheckpointError rank 0 could not save: disk is full\n"
    whole, sharded = CheckpointReader(tmp_path / "whole"), CheckpointReader(tmp_path / "sharded")
    assert whole.names() == sharded.names()
    assert all((whole.read(name) == sharded.read(name)).all() for name in whole.names())
    moments, _ = load_training_state(tmp_path / "sharded")
    for name, parameter in load_model(tmp_path / "whole").named_parameters():
        assert torch.equal(moments[name], 2 * parameter), name
