"""Samplers against densities without a closed form, detailed balance, and DRS with its percentile."""

import math
from itertools import combinations

import pytest
import torch
from laws import (
    TILT,
    A,
    B,
    assert_law,
    assert_moments,
    grid_cdf,
    identity,
    normal_prior,
    plant,
    seeded,
    standard_normal,
    tilted_normal,
)
from torch.distributions import Uniform

from logitflow import LatentTarget, refine, run
from logitflow.samplers import (
    cycle,
    estimate_lipschitz,
    langevin,
    metropolis_hastings,
    rejection_sample,
)

N = 40_000


def moved(sampler, num_steps, z):
    return run(sampler, z, num_steps=num_steps, generator=seeded()).z


def waves(x):
    return 2 * torch.sin(2 * x[:, 0])


def test_waves_by_every_exact_sampler():
    """On p(x) ∝ exp(−x²/2 + 2 sin 2x), three unequal modes, against its distribution function on a grid."""
    cdf = grid_cdf(lambda x: torch.exp(-x.square() / 2 + 2 * torch.sin(2 * x)), -9, 9)
    target = LatentTarget(identity, waves, normal_prior(1))
    start = standard_normal(N // 2, d=1)
    mala = langevin(target, step_size=0.5, adjust=True)
    for sampler, num_steps in (
        (mala, 200),
        (metropolis_hastings(target), 100),
        (cycle(metropolis_hastings(target), mala), 40),
    ):
        assert_law(moved(sampler, num_steps, z=start)[:, 0], cdf)
    samples = rejection_sample(target, num_samples=N // 2, generator=seeded())
    assert_law(samples.z[:, 0], cdf)
    with pytest.raises(AssertionError):  # ULA at this step size is visibly off
        assert_law(moved(langevin(target, step_size=0.5), 200, z=start)[:, 0], cdf)


def test_rejection_with_a_percentile_has_the_law_its_paper_gives():
    """The draws follow p0(x)·σ(F(x) − γ), with γ a percentile of F under p0 (Azadi et al. 2019, eq. 8)."""
    target = LatentTarget(identity, waves, normal_prior(1))

    def score(x):
        gap = 2 * torch.sin(2 * x) - 2  # the logit's maximum is 2
        return gap - torch.log1p(-torch.exp(gap - 1e-6))

    gamma = torch.quantile(score(standard_normal(1_000_000, d=1, seed=7)[:, 0]), 0.2)
    cdf = grid_cdf(lambda x: torch.exp(-x.square() / 2) * torch.sigmoid(score(x) - gamma), -9, 9)
    exact = grid_cdf(lambda x: torch.exp(-x.square() / 2 + 2 * torch.sin(2 * x)), -9, 9)
    samples = rejection_sample(
        target, num_samples=N // 2, generator=seeded(), percentile=20, num_pilot=200_000
    )
    assert_law(samples.z[:, 0], cdf)
    with pytest.raises(AssertionError):  # it is not the exact law: that is the price of the rate
        assert_law(samples.z[:, 0], exact)
    plain = rejection_sample(target, num_samples=1000, generator=seeded())
    assert samples.info.acceptance_rate > plain.info.acceptance_rate


def test_rejection_accepts_as_often_as_the_normaliser_says():
    """γ = 0 accepts exp(d − d_M): on average E[exp(2 sin 2x − 2)] under the prior."""
    target = LatentTarget(identity, waves, normal_prior(1))
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    weight = torch.exp(-grid.square() / 2 + 2 * torch.sin(2 * grid) - 2) / math.sqrt(2 * math.pi)
    rate = float(torch.trapezoid(weight, grid))
    samples = rejection_sample(target, num_samples=N, generator=seeded())
    error = 5 * math.sqrt(rate * (1 - rate) * rate / N)  # of N/rate draws
    assert abs(samples.info.acceptance_rate - rate) < error


# --- detailed balance -------------------------------------------------------------------------------


def assert_balance(sampler, start, cuts):
    """From a stationary start as many points move from A to B as from B to A, for all pairs of cells.

    With four cells this says more than that the law stands still: circular flows would show.
    """
    end = moved(sampler, 1, z=start)
    before, after = (torch.bucketize(z[:, 0].contiguous(), cuts) for z in (start, end))
    cells = len(cuts) + 1
    flux = torch.bincount(before * cells + after, minlength=cells**2).reshape(cells, cells).double()
    assert (flux > 0).all()
    for i, j in combinations(range(cells), 2):
        assert (flux[i, j] - flux[j, i]).abs() < 5 * (flux[i, j] + flux[j, i]).sqrt(), flux


def balance_cases():
    """(name, samplers' target, exact draws from it, cell borders, MALA's step size)"""
    n = 400_000
    normal = LatentTarget(identity, lambda x: x[:, 0] - 0.5, normal_prior(1))
    yield "normal", normal, standard_normal(n, d=1) + 1, torch.tensor([0.3, 1.0, 1.7]), 1.5
    box = LatentTarget(
        identity, lambda x: 3 * x[:, 0], Uniform(torch.zeros(1).double(), torch.ones(1).double())
    )
    share = torch.rand(n, 1, generator=seeded(2), dtype=torch.float64)
    draws = torch.log1p(share * math.expm1(3.0)) / 3  # the inverse distribution function
    yield "box", box, draws, torch.tensor([0.4, 0.7, 0.9]), 0.3


BALANCE = {name: case for name, *case in balance_cases()}


@pytest.mark.parametrize("name", BALANCE)
def test_detailed_balance(name):
    target, start, cuts, eps = BALANCE[name]
    cuts = cuts.double()
    assert_balance(langevin(target, step_size=eps, adjust=True), start, cuts)
    assert_balance(metropolis_hastings(target), start, cuts)
    with pytest.raises(AssertionError):  # ULA is in balance with another law
        assert_balance(langevin(target, step_size=eps), start, cuts)
    careless = plant(metropolis_hastings, "share < acceptance", "share < acceptance.sqrt()")
    with pytest.raises(AssertionError):
        assert_balance(careless(target), start, cuts)


# --- what the laws above do not see -----------------------------------------------------------------


def test_the_lipschitz_estimate_of_a_linear_logit_is_its_slope():
    target = LatentTarget(identity, lambda x: x @ B, None)
    slope = B.norm()
    estimate = estimate_lipschitz(target, standard_normal(1024))
    assert 0.999 * slope < estimate < slope * (1 + 1e-9)
    assert estimate_lipschitz(target, standard_normal(1)) == pytest.approx(slope)


def test_refine_reaches_the_law_in_batches():
    """`refine` in batches of unequal size follows the same law as one run."""
    sampler = langevin(tilted_normal(), step_size=1.0, adjust=True)
    result = refine(
        tilted_normal(), sampler, num_samples=N, num_steps=16, batch_size=15_000, seed=3
    )
    assert_moments(result.z, TILT, 1.0)
    torch.testing.assert_close(result.x, result.z @ A.T)
