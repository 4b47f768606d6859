"""Data-parallel training by environment: a plain process, or one of several under torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """This process among its peers.

    Attributes:
        rank: 0 … size - 1.
        size: number of processes.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0


def join_workers(device: str) -> Workers:
    """Find the device and, under torchrun, join the process group (nccl on GPU, gloo on CPU).

    Args:
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: if cuda is asked for and there is none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no GPU; use --device cpu")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = torch.device(device, local) if device == "cuda" else torch.device(device)
    if size == 1:
        return Workers(0, 1, where)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    return Workers(dist.get_rank(), size, where)


def leave_workers(workers: Workers) -> None:
    """Leave the process group."""
    if workers.size > 1:
        dist.destroy_process_group()


def average(tensors: Iterable[Tensor], workers: Workers) -> None:
    """Replace each tensor by its mean over the processes (gradients, batch-norm statistics).

    An explicit mean of the summed gradients, one flat message a step: what
    DistributedDataParallel does, without its hooks, so that several micro-batches can be
    accumulated in one place and a run of two processes equals a run of one.
    """
    if workers.size == 1:
        return
    tensors = [tensor for tensor in tensors if tensor.is_floating_point()]
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= workers.size
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


def broadcast(tensors: Iterable[Tensor], workers: Workers) -> None:
    """Give every process the first one's values."""
    if workers.size > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)
