"""What the samplers need of a prior that torch.distributions does not give as it is.

Three things: a log density summed over the latent axes, samples that come from a given generator, and the
box that a bounded prior lives on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, Uniform, constraints


class Box(NamedTuple):
    """The support of a bounded prior, broadcastable to the latents."""

    low: Tensor
    high: Tensor


def box(prior: Distribution) -> Box | None:
    """The box that bounds a prior's support, or None where it is unbounded.

    Raises:
        ValueError: the support is neither the whole space nor a box.
    """
    base = prior
    while isinstance(base, Independent):
        base = base.base_dist
    support = base.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, constraints.MixtureSameFamilyConstraint):
        mixed = support.base_constraint
        support = mixed.base_constraint if isinstance(mixed, constraints.independent) else mixed
        if isinstance(support, constraints.interval):
            support = constraints.dependent  # boxes that differ by component: refused below
    if support in (constraints.real, constraints.real_vector):
        return None
    if isinstance(support, constraints.interval | constraints.half_open_interval):
        low, high = torch.as_tensor(support.lower_bound), torch.as_tensor(support.upper_bound)
        return Box(low, high)
    raise ValueError(
        f"a prior supported on {support} is not handled: latents must fill the whole space or a box. "
        "Reparametrise (for a half-line, let the generator take exp of a normal latent)"
    )


def log_prob(prior: Distribution, z: Tensor) -> Tensor:
    """Log density of latents under a prior, summed over the latent axes: (N, *latent_shape) → (N,).

    −∞ outside a bounded prior's support and NaN where z is not finite, where torch itself would raise; the
    box is closed, so that a point projected onto its upper edge keeps a finite density.

    Raises:
        ValueError: the prior's shape does not fit the latents'.
    """
    valid = torch.isfinite(z)
    outside = torch.zeros_like(z, dtype=torch.bool)
    z = torch.where(valid, z, 0.0)
    bounds = box(prior)
    if bounds is not None:
        low, high = bounds.low.to(z), bounds.high.to(z)
        outside = (z < low) | (z > high)
        z = torch.minimum(torch.maximum(z, low), torch.nextafter(high, low))
    try:
        terms = prior.log_prob(z)
    except (ValueError, RuntimeError) as error:
        raise ValueError(_shape_message(prior, z)) from error
    if terms.shape[:1] != z.shape[:1] or terms.ndim > z.ndim:
        raise ValueError(_shape_message(prior, z))
    total = terms.reshape(len(z), -1).sum(1)
    total = torch.where(outside.flatten(1).any(1), -torch.inf, total)
    return torch.where(valid.flatten(1).all(1), total, torch.nan)


def _shape_message(prior: Distribution, z: Tensor) -> str:
    shape = tuple(prior.batch_shape + prior.event_shape)
    return (
        f"the prior (shape {shape}) does not fit latents of shape {tuple(z.shape)} on {z.device}: give it "
        "the shape of one latent and the same device, for example "
        "Normal(torch.zeros(128), 1.0)"
    )


def sample(prior: Distribution, n: int, generator: torch.Generator) -> Tensor:
    """n draws from the prior, (n, *latent_shape), with all randomness from `generator`.

    Raises:
        ValueError: the prior is a single scalar, so the latents' shape is unknown.
    """
    shape = tuple(prior.batch_shape + prior.event_shape)
    if not shape:
        raise ValueError(
            "the prior has no shape of its own, so the latents' shape is unknown: give it the shape of one "
            "latent, for example Normal(torch.zeros(128), 1.0)"
        )
    return _sample(prior, (n,), generator)


def sample_like(prior: Distribution, z: Tensor, generator: torch.Generator) -> Tensor:
    """Draws from the prior of z's shape, device and dtype, with all randomness from `generator`."""
    own = len(prior.batch_shape + prior.event_shape)
    draws = _sample(prior, tuple(z.shape[: z.ndim - own]), generator)
    if draws.shape != z.shape:
        raise ValueError(_shape_message(prior, z))
    return draws.to(z)


def _sample(prior: Distribution, size: Sequence[int], generator: torch.Generator) -> Tensor:
    if isinstance(prior, Independent):
        return _sample(prior.base_dist, size, generator)
    shape = prior._extended_shape(torch.Size(size))
    if isinstance(prior, Normal):
        noise = torch.randn(
            shape, generator=generator, device=generator.device, dtype=prior.loc.dtype
        )
        return prior.loc + prior.scale * noise
    if isinstance(prior, Uniform):
        share = torch.rand(
            shape, generator=generator, device=generator.device, dtype=prior.low.dtype
        )
        return prior.low + (prior.high - prior.low) * share
    # Other distributions draw from the global generator only: lend it a seed, then put its state back.
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    devices = [generator.device] if generator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(int(seed))
        for device in devices:
            torch.cuda.default_generators[device.index or 0].manual_seed(int(seed))
        return prior.sample(torch.Size(size))
