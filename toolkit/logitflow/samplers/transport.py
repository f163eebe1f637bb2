"""DOT: discriminator optimal transport."""

from typing import NamedTuple

import torch
from torch import Tensor

from logitflow.samplers.core import (
    Info,
    Sampler,
    check_positive,
    describe,
    finite,
    project,
    select,
)
from logitflow.target import LatentTarget

_BETA = 0.9  # Adam's second-moment decay; the authors' first-moment decay is 0
_MOST_POINTS = 1024  # pairs for the slope come from the first so many points: half a million pairs


class TransportState(NamedTuple):
    """The points, where they began, and Adam's memory."""

    z: Tensor  # (N, *latent_shape)
    start: Tensor  # y, where the points came from, (N, *latent_shape)
    lipschitz: Tensor  # k, ()
    second_moment: Tensor  # (N, *latent_shape)
    num_steps: Tensor  # ()


def optimal_transport(
    target: LatentTarget, *, step_size: float = 0.01, lipschitz: float | None = None
) -> Sampler:
    r"""DOT: move each point y to argmin_z ‖z − y‖ − d(G(z))/k (Tanaka 2019, eq. 19 and Algorithm 2).

    The minimisation is Adam with β = (0, 0.9), the authors' choice, one update a step; they use 100 updates
    of step size 0.01 in two dimensions. On a bounded prior points are projected onto its box.
    No noise is drawn. In data space, where the generator is the identity, this is their eq. 16.

    Args:
        target: generator and logit; the prior only bounds the latents.
        step_size: Adam's learning rate > 0, in units of z.
        lipschitz: k > 0, the Lipschitz constant of d∘G; None estimates it from the starting points with
            `estimate_lipschitz`.

    Returns:
        A sampler whose state holds z, its starting point and Adam's moment: one gradient evaluation a step.

    Raises:
        ValueError: step_size or lipschitz is not positive and finite, or d is constant on the points.
    """
    check_positive("step_size", step_size)
    if lipschitz is not None:
        check_positive("lipschitz", lipschitz)

    def init(z: Tensor) -> TransportState:
        k = estimate_lipschitz(target, z) if lipschitz is None else z.new_tensor(lipschitz)
        return TransportState(z, z, k, torch.zeros_like(z), torch.zeros((), device=z.device))

    def step(state: TransportState, generator: torch.Generator) -> tuple[TransportState, Info]:
        away = state.z - state.start
        distance = away.flatten(1).norm(dim=1).view(-1, *[1] * (away.ndim - 1))
        pull = torch.where(
            distance > 0, away / distance, 0.0
        )  # ∇‖z − y‖, its least subgradient at y
        logits, slope = target.logits_and_grad(state.z)
        grad = pull - slope / state.lipschitz
        num_steps = state.num_steps + 1
        moment = _BETA * state.second_moment + (1 - _BETA) * grad.square()
        scale = (moment / (1 - _BETA**num_steps)).sqrt() + 1e-8
        z = project(state.z - step_size * grad / scale, target.bounds)
        ok = finite(z, moment, logits)
        new = TransportState(z, state.start, state.lipschitz, moment, num_steps)
        new = select(ok, new, state)
        return new, describe(state.z, new.z, ok)

    return Sampler(init, step, f"optimal_transport(step_size={step_size}, lipschitz={lipschitz})")


def estimate_lipschitz(target: LatentTarget, z: Tensor) -> Tensor:
    """The largest slope |d(G(a)) − d(G(b))| / ‖a − b‖ among pairs of the given latents, a scalar tensor.

    A lower bound on the Lipschitz constant (Tanaka 2019, section 4.2). The pairs are all those among the first
    1,024 points; a single point gives its gradient's norm, the slope to its nearest neighbours.

    Raises:
        ValueError: no slope is positive and finite.
    """
    some = z[:_MOST_POINTS]
    if len(some) == 1:
        slope = target.logits_and_grad(some).grad.norm()
    else:
        logits = target.logits(some).detach()
        # Without matrix products, which lose the distances of near pairs in single precision.
        distances = torch.cdist(
            some.flatten(1), some.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
        )
        slopes = (logits[:, None] - logits[None, :]).abs() / distances
        slope = torch.where((distances > 0) & slopes.isfinite(), slopes, 0.0).max()
    if not (slope > 0 and torch.isfinite(slope)):
        raise ValueError(
            "no pair of points gives a positive slope of the logit: pass lipschitz=, or check that "
            "the logit depends on its input and is finite"
        )
    return slope
