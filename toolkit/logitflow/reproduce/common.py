"""What every table is made of: its rows, the counting of their cost, and the summary over seeds."""

import math
import os
import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from logitflow.processes import world_size
from logitflow.samplers import Sampler
from logitflow.target import LatentTarget, Network

MakeSampler = Callable[[LatentTarget], Sampler]


class Row(NamedTuple):
    """One line of the table: a method, its logit, the space it moves points in, and its settings."""

    method: str
    logit: str  # the network's own ("critic", "discriminator"), "calibrated" or "fitted"
    space: str  # "latent" or "data"
    # samplers and their steps, in turn; none: DRS, no chain
    stages: tuple[tuple[MakeSampler, int], ...]
    most_seeds: int | None = None  # of a row that costs much: no more seeds than so many
    # after a latent row's stages: more of them, which move its samples in data space
    data_stages: tuple[tuple[MakeSampler, int], ...] = ()


class Counted:
    """A logit that counts the samples it scores, with and without a gradient."""

    def __init__(self, logit: Network) -> None:
        self.logit, self.forwards, self.gradients = logit, 0, 0

    def __call__(self, x: Tensor) -> Tensor:
        """(N, …) → the logit's output, counted."""
        self.forwards += len(x)
        self.gradients += len(x) * x.requires_grad
        return self.logit(x)


def summarise(runs: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean and standard error over runs, metric by metric; one run alone has no error."""
    summary = {}
    for name in runs[0]:
        values = torch.tensor([run[name] for run in runs], dtype=torch.float64)
        error = float(values.std() / math.sqrt(len(runs))) if len(runs) > 1 else None
        summary[name] = {"mean": float(values.mean()), "standard_error": error}
    return summary


def heading(row: Row | None) -> dict[str, Any]:
    """What a row is, in words for JSON; None is the base, which moves nothing."""
    if row is None:
        return {"method": "base", "logit": "", "space": "", "settings": []}
    anything = LatentTarget(
        lambda z: z, lambda x: x.sum(1), torch.distributions.Normal(torch.zeros(2), 1.0)
    )
    settings = [
        f"{steps} × {make(anything).description}{where}"
        for stages, where in ((row.stages, ""), (row.data_stages, " in data space"))
        for make, steps in stages
    ]
    return {"method": row.method, "logit": row.logit, "space": row.space, "settings": settings}


def hardware(device: torch.device | None = None) -> str:
    """This machine in a few words; where the work was done on a GPU, that first."""
    several = f"{world_size()} processes on " if world_size() > 1 else ""
    gpu = f"{torch.cuda.get_device_name(device)}, " if device and device.type == "cuda" else ""
    model = platform.processor() or platform.machine()
    return (
        f"{several}{gpu}{os.cpu_count()} CPU cores ({model}), {torch.get_num_threads()} threads, "
        f"PyTorch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"
    )
