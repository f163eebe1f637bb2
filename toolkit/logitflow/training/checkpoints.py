"""What the loops of training share: a file to go on from, and sentences for one that does not fit."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from logitflow.files import write_atomically


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


def descend(
    optimizer: torch.optim.Optimizer, loss: Tensor, longest_gradient: float = math.inf
) -> None:
    """One step of an optimiser down the gradient of a loss, shortened to a norm where it is longer."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if longest_gradient < math.inf:
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], longest_gradient)
    optimizer.step()


def snapshot(
    step: int,
    networks: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Adam],
    rng: torch.Generator,
) -> bytes:
    """All that training goes on from: step, weights, Adam's moments and the generator's state."""
    tensors = {"step": torch.tensor(step), "rng": rng.get_state()}
    for name, network in networks.items():
        tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in optimizers.items():
        for i, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{name}.{i}.{key}": value for key, value in moments.items()}
    return packed(tensors)


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

    Raises:
        FloatingPointError: the loss is not finite; nothing is written.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(f"step {step}: the {name} is {value}. Try a smaller learning_rate")
    if checkpoint is not None:
        write_atomically(checkpoint, snapshot(step, networks, optimizers, rng))
    if callback is not None:
        callback(step, value)


def restore(
    checkpoint: str | Path | None,
    networks: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Adam],
    rng: torch.Generator,
) -> int:
    """Put networks, optimisers and generator where `snapshot` found them, and return the step.

    Where there is no such file, nothing is done, and the step is 0.

    Raises:
        ValueError: the file is damaged, of other networks, or made on another kind of device.
    """
    if checkpoint is None or not Path(checkpoint).exists():
        return 0
    path = Path(checkpoint)
    with restoring(path, others="other networks"):
        tensors = load(path.read_bytes())
        step, state = int(tensors["step"]), tensors["rng"]
        if state.shape != rng.get_state().shape:
            raise ValueError(
                f"{path} was made on another kind of device: go on there, or move it away"
            )
        rng.set_state(state)
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
