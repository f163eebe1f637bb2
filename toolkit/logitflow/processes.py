"""Several processes that share the work, started by PyTorch's own launcher.

    torchrun --standalone --nproc-per-node 2 -m logitflow refine 25gaussians-wgan-gp --out refined

Without it there is one process, and nothing here does anything. With it, work is a sequence of items that do
not need one another: `share` deals them out, and `gathered` puts everybody's results back in their order, so
that nothing depends on how many processes there are:

    results = gathered([work(item) for item in share(items)])

All processes must come by every `gathered`, `average` and `copy_first` alike. A part that one of them does by
itself is put under `alone`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")

PATIENCE = timedelta(days=7)
"""How long a process waits for the others' share. One that dies is noticed at once."""

_ALONE = ContextVar("alone", default=False)


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _together() else 0


def world_size() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if _together() else 1


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def is_silent() -> bool:
    """Whether another process shows progress in this one's place, also in what each does alone."""
    return dist.is_available() and dist.is_initialized() and dist.get_rank() > 0


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and not _ALONE.get()


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that `torchrun` started together with this one; without it, do nothing.

    Messages between GPUs go by NCCL, others by gloo. On a node with GPUs each process takes the one of its
    number on that node as the current device.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _speaking():
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
        gathered([None])  # nobody leaves while another may still need it
    finally:
        dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works as if there were no other."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's share of the items: every `world_size()`-th, from the one of its rank on."""
    return items[rank() :: world_size()]


def gathered(results: Sequence[Any]) -> list[Any]:
    """All processes' results, each with one for each item of its `share`, in the order of all the items.

    Raises:
        ConnectionError: another process has ended.
    """
    if world_size() == 1:
        return list(results)
    parts: list[list[Any]] = [[]] * world_size()
    with _speaking():
        dist.all_gather_object(parts, list(results))
    return [part[k] for k in range(len(parts[0])) for part in parts if k < len(part)]


def part(x: Tensor) -> Tensor:
    """This process's part of the rows of x, which follow one another; each has as many, or one fewer."""
    return x.tensor_split(world_size())[rank()]


def average(tensors: Sequence[Tensor]) -> None:
    """Put in each tensor's place its mean over the processes, the same in all of them.

    Raises:
        ConnectionError: another process has ended.
    """
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with _speaking():
        dist.all_reduce(flat)
    means = (flat / world_size()).split([tensor.numel() for tensor in tensors])
    for tensor, mean in zip(tensors, means, strict=True):
        tensor.copy_(mean.view(tensor.shape))


def copy_first(tensors: Sequence[Tensor]) -> None:
    """Put in each tensor's place that of the first process.

    Raises:
        ConnectionError: another process has ended.
    """
    if world_size() > 1:
        with _speaking():
            for tensor in tensors:
                dist.broadcast(tensor, 0)


@contextmanager
def _speaking() -> Iterator[None]:
    """Say in a sentence that the processes have lost one another."""
    try:
        yield
    except RuntimeError as error:  # of gloo, of NCCL or of the launcher's store
        raise ConnectionError(
            "another process has ended, or cannot be reached: see what it says; then the same command, with "
            f"any number of processes, goes on from here ({str(error).splitlines()[0]})"
        ) from error
