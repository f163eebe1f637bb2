"""DDLS: Langevin dynamics on the energy that a discriminator gives a generator's latents."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from logitflow.samplers.core import (
    Info,
    Sampler,
    check_positive,
    describe,
    finite,
    randn_like,
    reflect,
    select,
)
from logitflow.target import LatentTarget


class LangevinState(NamedTuple):
    """The points and what the next step needs of them."""

    z: Tensor  # (N, *latent_shape)
    log_prob: Tensor  # (N,)
    grad: Tensor  # ∇ log_prob = −∇E, (N, *latent_shape)


def langevin(target: LatentTarget, *, step_size: float = 1e-2, adjust: bool = False) -> Sampler:
    r"""Langevin dynamics on a latent energy (DDLS; Che et al. 2020, eq. 8).

    One step: z' = z − (ε/2) ∇E(z) + √ε n, with n ~ N(0, I) and E(z) = −log p0(z) − d(G(z)).
    Unadjusted (ULA), the stationary law is off by O(ε); `adjust=True` adds the Metropolis test (MALA;
    Roberts & Tweedie 1996), which removes that.

    On a bounded prior the chain lives in the mirror images that tile the space: the target is reflected
    there, the proposal is made and tested among the images, and the point is folded back. Every image
    moves alike, so the fold keeps MALA exact.

    Args:
        target: density over latents of shape (N, *latent_shape), differentiable in z.
        step_size: ε > 0, in squared units of z.
        adjust: accept or reject each proposal.

    Returns:
        A sampler whose state holds z, its log density and its gradient: one gradient evaluation a step, and
        one to begin.

    Raises:
        ValueError: step_size is not positive and finite.
    """
    check_positive("step_size", step_size)
    noise_scale = math.sqrt(step_size)

    def init(z: Tensor) -> LangevinState:
        return LangevinState(z, *target.log_prob_and_grad(z))

    def step(state: LangevinState, generator: torch.Generator) -> tuple[LangevinState, Info]:
        noise = randn_like(state.z, generator)
        image = state.z + step_size / 2 * state.grad + noise_scale * noise
        z, sign = reflect(image, target.bounds)
        new = LangevinState(z, *target.log_prob_and_grad(z))
        ok = finite(*new)
        acceptance = ok.to(z.dtype)
        accepted = ok
        if adjust:
            # log q(z|z') − log q(z'|z), both Gaussians of variance ε around a drifted mean
            backward = (state.z - image - step_size / 2 * sign * new.grad) / noise_scale
            log_q = (noise.square() - backward.square()).flatten(1).sum(1) / 2
            log_alpha = new.log_prob - state.log_prob + log_q
            # A chain that starts where the density is zero or unknown takes the first finite proposal.
            log_alpha = torch.where(torch.isfinite(state.log_prob), log_alpha, 0.0)
            acceptance = torch.where(ok, log_alpha.clamp(max=0).exp(), 0.0)
            share = torch.rand(z.shape[:1], generator=generator, device=z.device, dtype=z.dtype)
            accepted = ok & (share < acceptance)
        after = select(accepted, new, state)
        return after, describe(state.z, after.z, ok, acceptance)

    return Sampler(init, step, f"langevin(step_size={step_size}, adjust={adjust})")
