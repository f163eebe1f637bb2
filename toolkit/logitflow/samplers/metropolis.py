"""MH-GAN: Metropolis–Hastings with the generator as an independent proposal."""

from typing import NamedTuple

import torch
from torch import Tensor

from logitflow import priors
from logitflow.samplers.core import Info, Sampler, describe, finite, select
from logitflow.target import LatentTarget


class MetropolisState(NamedTuple):
    """The points and their logits."""

    z: Tensor  # (N, *latent_shape)
    logits: Tensor  # d(G(z)), (N,)


def metropolis_hastings(target: LatentTarget) -> Sampler:
    r"""MH-GAN: propose a fresh latent, accept it by the logits' difference (Turner et al. 2019, eq. 2).

    One step: z' ~ p0, accepted with probability min(1, exp(d(G(z')) − d(G(z)))). The chain's law tends to
    p0(z)·exp(d(G(z)))/Z, so d must be a log density ratio: calibrate it first
    (`logitflow.ratio.calibrate`). The authors run 640 proposals from a real sample; latents know no real
    sample, so chains here begin wherever z is, usually at a draw from the prior.

    Args:
        target: generator, logit and a prior to propose from.

    Returns:
        A sampler whose state holds z and its logit: one forward evaluation a step and no gradient.

    Raises:
        ValueError: the target's prior is None, so there is nothing to propose from.
    """
    prior = target.prior
    if prior is None:
        raise ValueError(
            "MH-GAN proposes from the prior, and this target's is None: give LatentTarget the generator's "
            "prior (in data space there is none to propose from)"
        )

    @torch.no_grad()
    def init(z: Tensor) -> MetropolisState:
        return MetropolisState(z, target.logits(z))

    @torch.no_grad()
    def step(state: MetropolisState, generator: torch.Generator) -> tuple[MetropolisState, Info]:
        z = priors.sample_like(prior, state.z, generator)
        new = MetropolisState(z, target.logits(z))
        ok = finite(*new)
        gain = torch.where(torch.isfinite(state.logits), new.logits - state.logits, 0.0)
        acceptance = torch.where(ok, gain.clamp(max=0).exp(), 0.0)
        share = torch.rand(
            z.shape[:1], generator=generator, device=z.device, dtype=acceptance.dtype
        )
        after = select(ok & (share < acceptance), new, state)
        return after, describe(state.z, after.z, ok, acceptance)

    return Sampler(init, step, "metropolis_hastings()")
