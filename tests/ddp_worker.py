"""One of two processes that train a network together; run by test_torch_integration.py.

python ddp_worker.py RANK FOLDER
"""

import sys

import torch
from torch import Tensor, nn

import kinkcheck.nn as knn
from kinkcheck.monitor import Monitor


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        knn.ReLU(selection="branch:0.5"),
        knn.MaxPool2d(3, 2, 1, selection="hybrid:10"),
        nn.Flatten(),
    )


def images() -> Tensor:
    return torch.randint(0, 3, (2, 3, 16, 16), generator=torch.Generator().manual_seed(1)).float()


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    model = nn.parallel.DistributedDataParallel(network())
    if rank == 0:  # measured by one process alone
        Monitor(model, lambda outputs, _: outputs.square().sum()).step(images()[:1])
    model(images()[rank : rank + 1]).square().sum().backward()
    torch.save(model.module[0].weight.grad, f"{folder}/gradient{rank}.pt")
    torch.distributed.barrier()
    del model
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
