"""Samplers in a box, where a uniform prior bounds the latents: laws in closed form, and planted errors."""

import math

import pytest
import torch
from laws import assert_law, identity, plant, seeded
from torch.distributions import Uniform

from logitflow import LatentTarget, run
from logitflow.samplers import gradient_flow, langevin, optimal_transport

N = 40_000


def moved(sampler, num_steps, z):
    return run(sampler, z, num_steps=num_steps, generator=seeded()).z


NOISE = ("noise_scale * noise", "0.95 * noise_scale * noise")
DRIFT = ("image = state.z + step_size / 2", "image = state.z + 0.9 * step_size / 2")

# A box, and a logit that is linear in it: every coordinate is a truncated exponential.
LOW = torch.tensor([0.0, -1.0], dtype=torch.float64)
HIGH = torch.tensor([1.0, 1.0], dtype=torch.float64)
SLOPE = torch.tensor([3.0, -1.5], dtype=torch.float64)


def in_the_box(n):
    prior = Uniform(LOW, HIGH)
    target = LatentTarget(identity, lambda x: x @ SLOPE, prior)
    share = torch.rand(n, 2, generator=seeded(1), dtype=torch.float64)
    return target, LOW + (HIGH - LOW) * share


def truncated_exponential(slope, low, high):
    """Distribution function, mean and variance of the density ∝ exp(slope·x) on [low, high]."""
    width = high - low
    mean = low + width / -math.expm1(-slope * width) - 1 / slope
    var = 1 / slope**2 - width**2 / (4 * math.sinh(slope * width / 2) ** 2)

    def cdf(x):
        x = torch.as_tensor(x).clamp(low, high)
        return torch.expm1(slope * (x - low)).div(math.expm1(slope * width)).numpy()

    return cdf, mean, var


def box_law(langevin=langevin, eps=0.5, n=N):
    """MALA, steps as wide as the box: proposals reflect several times, and the law is still exact."""
    target, start = in_the_box(n)
    z = moved(langevin(target, step_size=eps, adjust=True), int(8 / eps), z=start)
    assert ((z >= LOW) & (z <= HIGH)).all()
    for i in range(2):
        cdf, mean, var = truncated_exponential(float(SLOPE[i]), float(LOW[i]), float(HIGH[i]))
        assert_law(z[:, i], cdf)
        assert abs(z[:, i].mean() - mean) < 5 * math.sqrt(var / n)
        kurtosis = ((z[:, i] - mean) ** 4).mean() / var**2
        assert abs(z[:, i].var() / var - 1) < 5 * math.sqrt((kurtosis - 1) / n)


def test_mala_in_a_box():
    box_law()
    box_law(eps=0.05)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        NOISE,
        ("step_size / 2 * sign * new.grad", "step_size / 2 * new.grad"),
        ("reflect(image, target.bounds)", "(image.clamp(*target.bounds), 1.0)"),
    ],
)
def test_a_planted_error_in_the_box_is_caught(old, new):
    wrong = plant(langevin, old, new)
    with pytest.raises(AssertionError):
        box_law(wrong, eps=0.2)


def ula_box_law(langevin=langevin, eps=0.02, cells=500):
    """ULA's own stationary law in [0, 1]: the leading eigenvector of its kernel, summed over the images."""
    slope = 3.0
    target = LatentTarget(
        identity,
        lambda x: slope * x[:, 0],
        Uniform(torch.zeros(1).double(), torch.ones(1).double()),
    )
    grid = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    ahead = grid[:, None] + eps / 2 * slope
    images = [2 * k + s * grid[None, :] for k in (-1, 0, 1) for s in (1, -1)]
    kernel = sum(torch.exp(-((image - ahead) ** 2) / (2 * eps)) for image in images)
    kernel /= kernel.sum(1, keepdim=True)
    law = torch.full((cells,), 1 / cells, dtype=torch.float64)
    for _ in range(500):
        law = law @ kernel
    edges = torch.cat([law.new_zeros(1), law.cumsum(0)])

    def cdf(x):
        place = torch.as_tensor(x).clamp(0, 1) * cells
        k = place.floor().clamp(max=cells - 1)
        return torch.lerp(edges[k.long()], edges[k.long() + 1], place - k).numpy()

    start = torch.rand(N, 1, generator=seeded(1), dtype=torch.float64)
    z = moved(langevin(target, step_size=eps), 150, z=start)
    assert_law(z[:, 0], cdf)


def test_ula_in_a_box():
    ula_box_law()


@pytest.mark.parametrize(("old", "new"), [NOISE, DRIFT])
def test_a_planted_error_of_ula_in_the_box_is_caught(old, new):
    wrong = plant(langevin, old, new)
    with pytest.raises(AssertionError):
        ula_box_law(wrong)


def test_flow_and_transport_project_onto_the_box():
    """Pushed up the first axis and down the second, points end on those faces and stay there."""
    target, start = in_the_box(200)
    corner = torch.stack([HIGH[0], LOW[1]])
    flow = gradient_flow(target, step_size=0.5, gamma=0.0)
    assert (moved(flow, 20, z=start) == corner).all()
    transport = optimal_transport(target, step_size=0.05, lipschitz=0.1)
    assert (moved(transport, 100, z=start) == corner).all()
    noisy = moved(gradient_flow(target, step_size=0.1, gamma=0.1), 20, z=start)
    assert ((noisy >= LOW) & (noisy <= HIGH)).all()
