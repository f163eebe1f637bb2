"""The two-dimensional toys against what their definitions say."""

import math

import numpy as np
import pytest
import torch
from laws import seeded
from scipy import stats

from logitflow.data import Mixture, swiss_roll, twenty_five_gaussians

N = 50_000


def test_the_25_gaussians_of_the_papers():
    mixture = twenty_five_gaussians()
    expected = {(2 * i / 2.828, 2 * j / 2.828) for i in range(-2, 3) for j in range(-2, 3)}
    assert {tuple(round(c, 5) for c in center) for center in mixture.centers.tolist()} == {
        tuple(round(c, 5) for c in center) for center in expected
    }
    assert mixture.std == 0.05 / 2.828


def test_samples_of_the_mixture_have_its_law():
    mixture = twenty_five_gaussians()
    x = mixture.sample(N, seeded())
    assert x.shape == (N, 2)
    which = torch.cdist(x, mixture.centers).argmin(1)  # modes are 40 standard deviations apart
    counts = torch.bincount(which, minlength=25)
    assert stats.chisquare(counts.numpy()).pvalue > 2 * stats.norm.sf(5)
    noise = (x - mixture.centers[which]) / mixture.std
    assert (noise.mean(0).abs() < 5 / math.sqrt(N)).all()
    assert ((noise.var(0) - 1).abs() < 5 * math.sqrt(2 / N)).all()
    for scale, refused in ((1.0, False), (0.95, True)):  # 5% less noise would be seen
        radii = (scale * noise.square().sum(1).sqrt()).numpy()
        assert (stats.kstest(radii, stats.rayleigh.cdf).pvalue < 1e-6) == refused


def test_the_mixtures_log_density_is_scipys():
    mixture = Mixture(torch.tensor([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]]), 0.7)
    x = torch.randn(40, 2, generator=seeded(), dtype=torch.float64)
    density = np.mean(
        [
            stats.multivariate_normal(center, 0.49).pdf(x.numpy())
            for center in mixture.centers.tolist()
        ],
        axis=0,
    )
    torch.testing.assert_close(mixture.log_prob(x), torch.as_tensor(density).log())


def test_the_log_density_is_finite_far_away_and_integrates_to_one():
    mixture = twenty_five_gaussians()
    far = mixture.log_prob(torch.tensor([[1e3, -1e3]]))
    assert torch.isfinite(far)
    grid = torch.linspace(-0.2, 0.2, 401, dtype=torch.float64)  # around the middle mode
    density = mixture.log_prob(torch.cartesian_prod(grid, grid)).exp().reshape(401, 401)
    mass = torch.trapezoid(torch.trapezoid(density, grid), grid)
    assert float(mass) == pytest.approx(1 / 25, rel=1e-6)


@pytest.mark.parametrize("sample", [twenty_five_gaussians().sample, swiss_roll])
def test_samples_come_from_the_given_generator_alone(sample):
    states = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    rng = seeded(1)
    first, second = sample(100, rng), sample(100, rng)
    assert first.dtype == torch.float32
    assert torch.equal(first, sample(100, seeded(1)))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(map(np.array_equal, np.random.get_state(), states[1]))  # noqa: NPY002


def test_the_swiss_roll_is_a_spiral_with_the_papers_noise():
    """Points t(cos t, sin t)/7.5 with t uniform on [3π/2, 9π/2] and noise 0.25/7.5 in each axis."""
    x = 7.5 * swiss_roll(N, seeded()).double()
    assert x.shape == (N, 2)
    t = 1.5 * math.pi * (1 + 2 * torch.linspace(0, 1, 4001, dtype=torch.float64))
    spiral = torch.stack([t * t.cos(), t * t.sin()], 1)
    nearest = torch.cat([torch.cdist(part, spiral).min(1)[0] for part in x[:20_000].split(500)])
    # the distance to a smooth curve is one normal coordinate of the noise, but for the spiral's ends
    rms = nearest.square().mean().sqrt()
    assert abs(rms / 0.25 - 1) < 5 / math.sqrt(2 * 20_000)  # 5% less noise would be seen
    radius = x.square().sum(1).sqrt()
    assert 4.7 - 5 * 0.25 < radius.min() < 4.8
    assert 14.1 < radius.max() < 14.14 + 6 * 0.25
    # |x|² is t² plus the noise's 2·0.25²; t is uniform
    mean, var = radius.square().mean(), radius.square().var()
    low, high = 1.5 * math.pi, 4.5 * math.pi
    second = (high**3 - low**3) / 3 / (high - low)
    assert abs(mean - second - 2 * 0.25**2) < 5 * math.sqrt(var / N)
