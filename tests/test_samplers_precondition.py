"""Preconditioning: the laws of a flow and of Langevin chains in other coordinates, and the root itself."""

import pytest
import torch
from laws import TILT, assert_moments, plant, seeded, standard_normal, tilted_normal
from torch import nn
from torch.distributions import Normal, Uniform

from logitflow import LatentTarget, run
from logitflow.samplers import gradient_flow, gradient_root, langevin, precondition

N = 60_000
ROOT = torch.tensor([[1.2, 0.3], [0.3, 0.6]], dtype=torch.float64)


def covariance_is(z, expected):
    """z, (N, D), has a normal law's covariance: five standard errors of each entry."""
    variances = expected.diagonal()
    error = ((variances[:, None] * variances + expected.square()) / len(z)).sqrt()
    assert ((z.T.cov() - expected).abs() < 5 * error).all(), (z.T.cov(), expected)


def ula_law(precondition=precondition, langevin=langevin, eps=0.4):
    """z' − m = (1 − εP/2)(z − m) + √ε R n: the stationary covariance is (1 − εP/4)⁻¹."""
    sampler = precondition(tilted_normal(), lambda t: langevin(t, step_size=eps), ROOT)
    z = run(sampler, standard_normal(N), num_steps=120, generator=seeded(2)).z
    covariance = torch.linalg.inv(torch.eye(2, dtype=torch.float64) - eps / 4 * ROOT @ ROOT.T)
    assert ((z.mean(0) - TILT).abs() < 5 * (covariance.diagonal() / N).sqrt()).all()
    covariance_is(z, covariance)


def test_a_preconditioned_ula_has_its_law():
    ula_law()


def test_a_preconditioned_mala_is_exact():
    sampler = precondition(tilted_normal(), lambda t: langevin(t, step_size=0.8, adjust=True), ROOT)
    z = run(sampler, standard_normal(N), num_steps=60, generator=seeded(2)).z
    assert_moments(z, TILT, 1.0)


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        (langevin, "noise_scale * noise\n", "0.95 * noise_scale * noise\n"),
        (langevin, "state.z + step_size / 2 *", "state.z + 0.9 * step_size / 2 *"),
        (precondition, "self.target.log_prob(z @ self.to_z)", "self.target.logits(z @ self.to_z)"),
        (precondition, "after.z @ to_z", "after.z @ to_u"),
    ],
)
def test_an_error_is_seen(function, old, new):
    with pytest.raises(AssertionError):
        ula_law(**{function.__name__: plant(function, old, new)})


def test_networks_in_training_stay_as_they_are():
    """A batch norm's moments do not move, although the sampler sees the generator in other coordinates."""
    generator = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double().train()
    before = generator[1].running_mean.clone()
    prior = Normal(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    target = LatentTarget(generator, lambda x: x.sum(1), prior)
    sampler = precondition(target, gradient_flow, ROOT)
    run(sampler, standard_normal(10), num_steps=2, generator=seeded())
    assert generator.training
    assert torch.equal(generator[1].running_mean, before)


def linear_target(a):
    prior = Normal(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    return LatentTarget(lambda z: z, lambda x: x @ a, prior)


def test_a_preconditioned_flow_has_its_law():
    """z' = z + ηPa + √(2ηγ)R n from N(0, I): mean TηPa, covariance I + 2ηγT P."""
    n, eta, gamma, steps = 40_000, 0.1, 0.5, 5
    a = torch.tensor([1.0, -0.5], dtype=torch.float64)
    p = ROOT @ ROOT.T
    sampler = precondition(
        linear_target(a), lambda t: gradient_flow(t, step_size=eta, gamma=gamma), ROOT
    )
    z = torch.randn(n, 2, generator=seeded(1), dtype=torch.float64)
    z = run(sampler, z, num_steps=steps, generator=seeded(2)).z
    covariance = torch.eye(2, dtype=torch.float64) + 2 * eta * gamma * steps * p
    error = (covariance.diagonal() / n).sqrt()
    assert ((z.mean(0) - steps * eta * p @ a).abs() < 5 * error).all()
    covariance_is(z, covariance)


def test_without_a_preconditioner_the_flow_is_the_flow():
    target = linear_target(torch.tensor([1.0, -0.5], dtype=torch.float64))
    z = torch.randn(5, 2, generator=seeded(1), dtype=torch.float64)
    flow = gradient_flow(target)
    plain = run(flow, z, num_steps=3, generator=seeded())
    same = run(
        precondition(target, gradient_flow, torch.eye(2, dtype=torch.float64)),
        z,
        num_steps=3,
        generator=seeded(),
    )
    torch.testing.assert_close(same.z, plain.z)


def test_the_root_whitens_the_slopes():
    """Slopes of covariance diag(4, 1)·c: at power 1 the slopes in u have equal squares."""
    scales = torch.tensor([2.0, 1.0], dtype=torch.float64)
    target = LatentTarget(lambda z: z, lambda x: (scales * x.sin()).sum(1), None)
    z = torch.randn(2000, 2, generator=seeded(), dtype=torch.float64)
    root = gradient_root(target, z, power=1.0)
    grad = target.logits_and_grad(z).grad @ root
    second = grad.T @ grad / len(z)
    torch.testing.assert_close(second, second[0, 0] * torch.eye(2, dtype=torch.float64))
    assert float((root @ root.T).trace()) == pytest.approx(2)


def test_a_box_cannot_be_preconditioned():
    box = LatentTarget(lambda z: z, lambda x: x.sum(1), Uniform(-torch.ones(2), torch.ones(2)))
    with pytest.raises(ValueError, match="cannot be preconditioned"):
        precondition(box, gradient_flow, torch.eye(2))
