"""What the tests of samplers share: seeds, laws known in closed form, and errors planted on purpose.

A tolerance is five standard errors of the estimate: a right sampler fails once in two million, and seeds are
fixed. Sizes are such that 5% less noise or 10% less drift moves the law by more than twice that.
"""

import inspect
import math
import sys
from functools import partial

import torch
from scipy import stats
from torch.distributions import Normal

from logitflow import LatentTarget
from logitflow.samplers import (
    cycle,
    gradient_flow,
    langevin,
    metropolis_hastings,
    optimal_transport,
)

FIVE_SIGMA = 2 * stats.norm.sf(5)  # the p-value below which a law is refused


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def standard_normal(n, d=2, seed=1):
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


def normal_prior(d=2, dtype=torch.float64):
    return Normal(torch.zeros(d, dtype=dtype), torch.ones((), dtype=dtype))


def identity(x):
    return x


def assert_moments(z, mean, var):
    """z, (N, D), has a normal law's mean and variance, coordinate by coordinate."""
    n = len(z)
    mean, var = (torch.as_tensor(value, dtype=z.dtype) for value in (mean, var))
    assert ((z.mean(0) - mean).abs() < 5 * (var / n).sqrt()).all(), (z.mean(0), mean)
    assert ((z.var(0) / var - 1).abs() < 5 * math.sqrt(2 / n)).all(), (z.var(0), var)
    correlation = torch.corrcoef(z.T)[0, 1:]
    assert (correlation.abs() < 5 / math.sqrt(n)).all(), correlation


def assert_law(x, cdf):
    """x, (N,), follows a cumulative distribution function (Kolmogorov–Smirnov)."""
    assert stats.kstest(x.numpy(), cdf).pvalue > FIVE_SIGMA


def grid_cdf(density, low, high, points=20_001):
    """The cumulative distribution function of an unnormalised density on an interval, by trapezia."""
    grid = torch.linspace(low, high, points, dtype=torch.float64)
    mass = torch.cumulative_trapezoid(density(grid), grid)
    mass = torch.cat([mass.new_zeros(1), mass]) / mass[-1]

    def cdf(x):
        x = torch.as_tensor(x, dtype=torch.float64).clamp(low, high)
        k = torch.searchsorted(grid, x).clamp(1, points - 1)
        share = (x - grid[k - 1]) / (grid[k] - grid[k - 1])
        return torch.lerp(mass[k - 1], mass[k], share).numpy()

    return cdf


def plant(sampler, old, new):
    """The sampler from a copy of its module in which the source `old` reads `new`: an error on purpose."""
    source = inspect.getsource(sys.modules[sampler.__module__])
    assert source.count(old) == 1, (
        f"{sampler.__module__} no longer holds {old!r} once: plant it anew"
    )
    module = {"__name__": sampler.__module__}
    exec(compile(source.replace(old, new), f"<{sampler.__name__} with {new}>", "exec"), module)
    return module[sampler.__name__]


# The tilted normal: with x = G(z) = Az and d(x) = b·x, the latents' law is N(Aᵀb, I).
A = torch.tensor([[1.0, 0.5], [-0.3, 0.8]], dtype=torch.float64)
B = torch.tensor([0.9, -0.7], dtype=torch.float64)
TILT = A.T @ B  # (1.11, −0.11)


def tilted_normal(shift=0.0, prior=True):
    """N(Aᵀb, I) as a target, its logit lowered by `shift`."""
    return LatentTarget(
        lambda z: z @ A.T, lambda x: x @ B - shift, normal_prior() if prior else None
    )


# Every chain of the package, from its target; the contract holds for each of them.
CHAINS = {
    "ula": partial(langevin, step_size=0.1),
    "mala": partial(langevin, step_size=0.1, adjust=True),
    "flow-js": partial(gradient_flow, divergence="js", gamma=0.1),
    "flow-callable": partial(gradient_flow, divergence=lambda r: r * torch.log(r), gamma=0.1),
    "dot": partial(optimal_transport, step_size=0.1, lipschitz=1.0),
    "dot-estimated": partial(optimal_transport, step_size=0.1),
    "mh-gan": metropolis_hastings,
    "cycle": lambda target: cycle(
        metropolis_hastings(target), langevin(target, step_size=0.1, adjust=True)
    ),
}
