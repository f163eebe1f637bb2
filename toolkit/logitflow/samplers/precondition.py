"""Steps in coordinates in which a logit's slopes are even, so that fewer of them reach as far."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from logitflow.samplers.core import Info, Sampler
from logitflow.target import LatentTarget


class PreconditionedState(NamedTuple):
    """The points, and the inner sampler's state, whose own points are u."""

    z: Tensor  # R u, (N, latent)
    inner: Any


def precondition(
    target: LatentTarget, make: Callable[[LatentTarget], Sampler], root: Tensor
) -> Sampler:
    r"""Run a sampler in the coordinates u = R⁻¹ z.

    For a gradient flow the step becomes z' = z + η w P∇d + √(2ηγ) R n with the preconditioner P = R Rᵀ:
    directions in which P is large are taken in longer strides. The continuous flow tends to the same law.
    For Langevin dynamics likewise, z' = z − (ε/2) P∇E + √ε R n, which leaves the same law unchanged for any P
    (Girolami & Calderhead 2011, section 5, with a constant metric): unadjusted up to O(ε), with the Metropolis
    test exactly.

    Args:
        target: generator and logit on latents (N, latent).
        make: gives a sampler of a target; one that follows its gradients, such as `gradient_flow` or
            `langevin`. It is given a target over u, whose `prior` is None; its density has the prior in it.
        root: R, invertible, (latent, latent); `gradient_root` gives one.

    Raises:
        ValueError: the prior lives on a box, whose walls would be slanted in u.
    """
    if target.bounds is not None:
        raise ValueError(
            "a prior on a box cannot be preconditioned: use a prior on the whole space"
        )
    to_z, to_u = root.T, torch.linalg.inv(root).T  # rows are points
    inner = make(_InCoordinates(target, to_z))

    def init(z: Tensor) -> PreconditionedState:
        return PreconditionedState(z, inner.init(z @ to_u))

    def step(
        state: PreconditionedState, generator: torch.Generator
    ) -> tuple[PreconditionedState, Info]:
        after, info = inner.step(state.inner, generator)
        return PreconditionedState(after.z @ to_z, after), info

    return Sampler(init, step, f"precondition({inner.description})")


class _InCoordinates(LatentTarget):
    """The same density as one over u, z = R u, unnormalised: |det R| is a constant.

    Its prior is None to a sampler, since there is no drawing from it; the density has the prior's part.
    """

    def __init__(self, target: LatentTarget, to_z: Tensor) -> None:
        super().__init__(lambda u: target.generator(u @ to_z), target.logit, None)
        self.target, self.to_z = target, to_z

    def generate(self, z: Tensor) -> Tensor:
        return self.target.generate(z @ self.to_z)

    def logits(self, z: Tensor) -> Tensor:
        return self.target.logits(z @ self.to_z)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.target.log_prob(z @ self.to_z)


def gradient_root(target: LatentTarget, z: Tensor, *, power: float = 0.5) -> Tensor:
    r"""R = P^½ for P = C^{−power}, scaled to a mean eigenvalue of 1, C = E[∇d ∇dᵀ] over latents z (N, latent).

    Power ½ is full-matrix AdaGrad's (Duchi et al. 2011): steps P∇d are alike in all directions.
    Power 1 makes the slopes in u alike.
    """
    grad = target.logits_and_grad(z).grad.double()
    values, vectors = torch.linalg.eigh(grad.T @ grad / len(grad))
    eigenvalues = (values / values.mean()).clamp_min(1e-3) ** -power
    eigenvalues = eigenvalues / eigenvalues.mean()
    return (vectors * eigenvalues.sqrt() @ vectors.T).to(z)
