"""What the loops of training share: a file to go on from, sentences for one that does not fit, other processes.

Under `torchrun` (see `logitflow.processes`) each process draws its share of every batch from a stream of its
own, and `descend` averages their gradients, so that all take the same step. The first process writes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from logitflow import processes
from logitflow.files import write_atomically
from logitflow.run import seeded_generator


def packed(tensors: dict[str, Tensor]) -> bytes:
    """A checkpoint's bytes."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, by the rest of their names."""
    return {key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)}


@contextmanager
def restoring(path: Path, others: str) -> Iterator[None]:
    """Says in a sentence what is wrong with a checkpoint that does not load.

    Args:
        path: the checkpoint.
        others: whose it is where its tensors do not fit, such as "other networks".

    Raises:
        ValueError: it is damaged, or of `others`.
    """
    try:
        yield
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged or no checkpoint: move it away to begin anew"
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"{path} is a checkpoint of {others}: move it away, or name another file"
        ) from error


def own_stream(seed: int, device: torch.device) -> torch.Generator:
    """The source of all that this process draws; the first's is that of one process alone."""
    if processes.is_first():
        return torch.Generator(device).manual_seed(seed)
    return seeded_generator(seed, 10_000 + processes.rank(), device)  # recipes use low numbers


def own_batch(batch_size: int) -> int:
    """How much of a batch this process draws: all draw as much, rounded up."""
    return -(-batch_size // processes.world_size())


def descend(
    optimizer: torch.optim.Optimizer, loss: Tensor, longest_gradient: float = math.inf
) -> None:
    """One step of an optimiser down the gradient of a loss, shortened to a norm where it is longer.

    Of several processes all step down the mean of their gradients.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    processes.average([p.grad for p in parameters if p.grad is not None])
    if longest_gradient < math.inf:
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], longest_gradient)
    optimizer.step()


def snapshot(
    step: int,
    networks: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Adam],
    streams: list[Tensor],
) -> bytes:
    """All that training goes on from: step, weights, Adam's moments and each process's generator's state."""
    tensors = {"step": torch.tensor(step)}
    tensors |= {_stream_of(rank): state for rank, state in enumerate(streams)}
    for name, network in networks.items():
        tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in optimizers.items():
        for i, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{name}.{i}.{key}": value for key, value in moments.items()}
    return packed(tensors)


def _stream_of(rank: int) -> str:
    return f"rng.{rank}" if rank else "rng"


def keep(
    step: int,
    loss: Tensor,
    networks: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Adam],
    rng: torch.Generator,
    checkpoint: str | Path | None,
    callback: Callable[[int, float], None] | None,
    name: str = "loss",
) -> None:
    """Write the checkpoint of a step and tell the caller of it, where they are wanted.

    Of several processes the first does both; the loss is the mean of theirs.

    Raises:
        FloatingPointError: the loss is not finite; nothing is written.
    """
    losses = processes.gathered([float(loss.detach())])
    value = sum(losses) / len(losses)
    if not math.isfinite(value):
        raise FloatingPointError(f"step {step}: the {name} is {value}. Try a smaller learning_rate")
    streams = processes.gathered([rng.get_state()])
    if not processes.is_first():
        return
    if checkpoint is not None:
        write_atomically(checkpoint, snapshot(step, networks, optimizers, streams))
    if callback is not None:
        with processes.alone():
            callback(step, value)


def restore(
    checkpoint: str | Path | None,
    networks: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Adam],
    rng: torch.Generator,
) -> int:
    """Put networks, optimisers and generator where `snapshot` found them, and return the step.

    Where there is no such file, the step is 0 and nothing is done, except that several processes begin with
    the first one's weights. A process beyond those that wrote the file begins its own stream.

    Raises:
        ValueError: the file is damaged, of other networks, or made on another kind of device.
    """
    weights = [t for network in networks.values() for t in network.state_dict().values()]
    if checkpoint is None or not Path(checkpoint).exists():
        processes.copy_first(weights)
        return 0
    path = Path(checkpoint)
    with restoring(path, others="other networks"):
        tensors = load(path.read_bytes())
        step, state = int(tensors["step"]), tensors["rng"]
        if state.shape != rng.get_state().shape:
            raise ValueError(
                f"{path} was made on another kind of device: go on there, or move it away"
            )
        rng.set_state(tensors.get(_stream_of(processes.rank()), rng.get_state()))
        for name, network in networks.items():
            network.load_state_dict(below(tensors, f"{name}."))
        for name, optimizer in optimizers.items():
            moments: dict[int, dict[str, Any]] = {}
            for key, value in below(tensors, f"adam.{name}.").items():
                index, field = key.split(".", 1)
                moments.setdefault(int(index), {})[field] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
            for parameter, kept in optimizer.state.items():
                for key in (
                    "exp_avg",
                    "exp_avg_sq",
                ):  # in the weights' memory layout, as Adam makes them
                    kept[key] = torch.empty_like(parameter).copy_(kept[key])
    return step


def restore_alone(
    checkpoint: str | Path | None,
    networks: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Adam],
    rng: torch.Generator,
) -> int:
    """`restore` for what one process does by itself, as a fit: where there is no file, it waits for nobody."""
    if checkpoint is None or not Path(checkpoint).exists():
        return 0
    return restore(checkpoint, networks, optimizers, rng)
