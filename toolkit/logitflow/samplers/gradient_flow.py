"""DGflow: the gradient flow of an entropy-regularised f-divergence, followed by particles."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from logitflow.divergences import velocity_weight
from logitflow.samplers.core import (
    Info,
    Sampler,
    check_positive,
    describe,
    finite,
    project,
    randn_like,
    select,
)
from logitflow.target import LatentTarget


class FlowState(NamedTuple):
    """The points alone: each step evaluates where it stands."""

    z: Tensor  # (N, *latent_shape)


def gradient_flow(
    target: LatentTarget,
    *,
    divergence: str | Callable[[Tensor], Tensor] = "kl",
    step_size: float = 0.1,
    gamma: float = 0.01,
) -> Sampler:
    r"""DGflow: discriminator gradient flow (Ansari et al. 2021, Algorithm 1).

    One step: z' = z + η w_f(d) ∇d + √(2ηγ) n, with n ~ N(0, I), d = d(G(z)), and w_f the divergence's
    velocity weight; the defaults are the authors'. The prior has no part in the drift; where it
    is bounded, the new point is projected onto its box.

    Args:
        target: generator and logit; data space is `LatentTarget(lambda x: x, logit, None)`.
        divergence: a name from `logitflow.divergences.DIVERGENCES` or a convex f(r) of the ratio r = exp(−d).
        step_size: η > 0, the time step of the flow.
        gamma: γ ≥ 0, the weight of the entropy; the noise has standard deviation √(2ηγ).

    Returns:
        A sampler whose state holds z: one gradient evaluation a step.

    Raises:
        ValueError: the divergence is unknown, or a number is negative, zero (step_size) or not finite.
    """
    check_positive("step_size", step_size)
    check_positive("gamma", gamma, zero_allowed=True)
    weight = velocity_weight(divergence)
    noise_scale = math.sqrt(2 * step_size * gamma)

    def step(state: FlowState, generator: torch.Generator) -> tuple[FlowState, Info]:
        logits, grad = target.logits_and_grad(state.z)
        w = weight(logits).view(-1, *[1] * (grad.ndim - 1))
        z = state.z + step_size * w * grad + noise_scale * randn_like(state.z, generator)
        ok = finite(z, logits)
        new = select(ok, FlowState(project(z, target.bounds)), state)
        return new, describe(state.z, new.z, ok)

    name = divergence
    if not isinstance(
        divergence, str
    ):  # functions may share a name, so their weights tell them apart
        name = "f with weights {:.6g}, {:.6g}, {:.6g}".format(
            *weight(torch.tensor([-1.0, 0.0, 1.0]))
        )
    description = f"gradient_flow(divergence={name}, step_size={step_size}, gamma={gamma})"
    return Sampler(FlowState, step, description)
