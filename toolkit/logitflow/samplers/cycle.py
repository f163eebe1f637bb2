"""One sampler after another, as one sampler."""

from typing import NamedTuple

import torch
from torch import Tensor

from logitflow.samplers.core import Info, Sampler


class CycleState(NamedTuple):
    """The points alone: each sampler begins afresh."""

    z: Tensor  # (N, *latent_shape)


def cycle(*samplers: Sampler) -> Sampler:
    """Take one step of each sampler in turn, as one step (Tierney 1994: a cycle of kernels).

    Kernels that leave the same law unchanged do so together, so `cycle(metropolis_hastings(t),
    langevin(t, adjust=True))` is exact: the first jumps between modes, the second moves within them. Each
    sampler begins afresh from where the last one left the points, which suits kernels without
    memory; DOT, which remembers its starting points, is better run alone.

    Args:
        samplers: one or more.

    Returns:
        A sampler whose info has the samplers' mean acceptance rate, the sum of their step norms and the
        most points that any of them left unmoved for being non-finite.

    Raises:
        ValueError: no sampler is given.
    """
    if not samplers:
        raise ValueError("cycle needs at least one sampler")

    def step(state: CycleState, generator: torch.Generator) -> tuple[CycleState, Info]:
        z, infos = state.z, []
        for sampler in samplers:
            inner, info = sampler.step(sampler.init(z), generator)
            z = inner.z
            infos.append(info)
        rates, norms, nonfinite = map(torch.stack, zip(*infos, strict=True))
        return CycleState(z), Info(rates.mean(), norms.sum(), nonfinite.max())

    return Sampler(CycleState, step, f"cycle({', '.join(s.description for s in samplers)})")
