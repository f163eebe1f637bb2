"""Every sampler against a law known exactly, and the same checks against samplers with planted errors."""

import math

import pytest
import torch
from laws import (
    TILT,
    A,
    B,
    assert_moments,
    identity,
    plant,
    seeded,
    standard_normal,
    tilted_normal,
)

from logitflow import LatentTarget, run
from logitflow.divergences import DIVERGENCES
from logitflow.samplers import (
    cycle,
    gradient_flow,
    langevin,
    metropolis_hastings,
    optimal_transport,
    rejection_sample,
)

N = 40_000


def moved(sampler, num_steps, n=N, z=None):
    start = standard_normal(n) if z is None else z
    return run(sampler, start, num_steps=num_steps, generator=seeded()).z


# --- laws on the tilted normal, N(Aᵀb, I) -----------------------------------------------------------


def ula_law(langevin=langevin, eps=0.5):
    """Stationary variance 1/(1 − ε/4): z' − m = (1 − ε/2)(z − m) + √ε n, so v = (1 − ε/2)² v + ε."""
    z = moved(langevin(tilted_normal(), step_size=eps), 30)
    assert_moments(z, TILT, 1 / (1 - eps / 4))


def mala_law(langevin=langevin, eps=1.0):
    # The Metropolis test mends a part of an error in the proposal, so this takes more points.
    z = moved(langevin(tilted_normal(), step_size=eps, adjust=True), 16, n=120_000)
    assert_moments(z, TILT, 1.0)


def flow_kl_law(gradient_flow=gradient_flow, eta=0.1, gamma=1.0, num_steps=20):
    """From N(0, I), with a constant drift: mean Tη·∇d, variance 1 + 2ηγT."""
    sampler = gradient_flow(tilted_normal(), divergence="kl", step_size=eta, gamma=gamma)
    z = moved(sampler, num_steps)
    assert_moments(z, num_steps * eta * TILT, 1 + 2 * eta * gamma * num_steps)


def metropolis_law(metropolis_hastings=metropolis_hastings):
    """With d = a·z − |a|²/2, a log density ratio of N(a, I) to N(0, I)."""
    z = moved(metropolis_hastings(tilted_normal(shift=TILT.square().sum() / 2)), 60)
    assert_moments(z, TILT, 1.0)


def rejection_law(rejection_sample=rejection_sample, num_pilot=20_000, n=10_000):
    target = tilted_normal(shift=TILT.square().sum() / 2)
    samples = rejection_sample(
        target, num_samples=n, generator=seeded(), batch_size=20_000, num_pilot=num_pilot
    )
    assert_moments(samples.z, TILT, 1.0)
    torch.testing.assert_close(samples.x, samples.z @ A.T)


def cycle_law(cycle=cycle):
    target = tilted_normal()
    z = moved(cycle(metropolis_hastings(target), langevin(target, step_size=0.5, adjust=True)), 20)
    assert_moments(z, TILT, 1.0)


# --- laws elsewhere ---------------------------------------------------------------------------------

# H with H(d_T) − H(d_0) = |∇d|² T along the flow dd/dt = w_f(d)|∇d|² of a logit with a constant gradient:
# H is an antiderivative of 1/w_f.
FIRST_INTEGRALS = {
    "kl": lambda d: d,
    "js": lambda d: d - torch.exp(-d),  # w = σ(d)
    "logd": lambda d: d + torch.exp(d),  # w = σ(−d)
    "reverse_kl": lambda d: -torch.exp(-d),  # w = exp(d)
    "pearson_chi2": lambda d: torch.exp(d) / 2,  # w = 2 exp(−d)
    "squared_hellinger": lambda d: -4 * torch.exp(-d / 2),  # w = ½ exp(d/2)
}


def flow_path_law(divergence, gradient_flow=gradient_flow, time=0.1, num_steps=100):
    """Without noise each point follows the flow's own curve, to the O(η) of Euler's method."""
    target = tilted_normal()
    z = 0.3 * standard_normal(200)
    sampler = gradient_flow(target, divergence=divergence, step_size=time / num_steps, gamma=0.0)
    end = moved(sampler, num_steps, z=z)
    integral = FIRST_INTEGRALS[divergence]
    gained = integral(target.logits(end)) - integral(target.logits(z))
    torch.testing.assert_close(
        gained, (TILT.square().sum() * time).expand(200), rtol=0.01, atol=0.0
    )


def flow_step_law(divergence, gradient_flow=gradient_flow, eta=0.1, gamma=0.01):
    """One step from one point z is N(z + η w_f(d)∇d, 2ηγI)."""
    z = torch.tensor([[0.5, -0.2]], dtype=torch.float64)
    d = (z @ A.T @ B).requires_grad_()
    (slope,) = torch.autograd.grad(FIRST_INTEGRALS[divergence](d).sum(), d)  # 1/w_f
    sampler = gradient_flow(tilted_normal(), divergence=divergence, step_size=eta, gamma=gamma)
    end = moved(sampler, 1, z=z.expand(N, 2))
    assert_moments(end, z[0] + eta / slope * TILT, 2 * eta * gamma)


CENTER = torch.tensor([2.0, 1.0], dtype=torch.float64)


def transport_law(optimal_transport=optimal_transport, sharpness=2.0, lipschitz=3.0):
    """d = −s|x − m|²/2: points beyond radius k/s of m move straight to that sphere, those inside stay.

    Minimise |z − y| − d(z)/k: outside, the pull's unit length meets the slope s|z − m|/k at |z − m| = k/s, on
    the segment from y to m; inside, the slope is less than 1 at y already. Adam keeps the points trembling: by
    less than two of its longest updates, which are 1/√(1 − β₂) = 1/√0.1 step sizes in each coordinate.
    """
    step_size, num_steps = 0.01, 600
    target = LatentTarget(identity, lambda x: -sharpness * (x - CENTER).square().sum(1) / 2, None)
    y = CENTER + 1.5 * standard_normal(500)
    sampler = optimal_transport(target, step_size=step_size, lipschitz=lipschitz)
    end = moved(sampler, num_steps, z=y)
    radius = lipschitz / sharpness
    distance = (y - CENTER).norm(dim=1, keepdim=True)
    expected = CENTER + (y - CENTER) * (radius / distance).clamp(max=1)
    assert 0.1 < (distance < radius).double().mean() < 0.9  # both kinds are there
    assert ((end - expected).norm(dim=1) < 2 * step_size * math.sqrt(2 / 0.1)).all()


def test_transport_is_adam_on_its_objective():
    """The authors' optimiser, Adam with β = (0, 0.9), on |z − y| − d(z)/k, where points move away at once."""
    num_steps = 30
    target = LatentTarget(identity, lambda x: torch.sin(2 * x).sum(1) + 3 * x[:, 0], None)
    y = standard_normal(20)
    z = y.clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=0.02, betas=(0.0, 0.9))
    for _ in range(num_steps):
        adam.zero_grad()
        ((z - y).norm(dim=1) - target.logits(z) / 2.0).sum().backward()
        adam.step()
    end = moved(optimal_transport(target, step_size=0.02, lipschitz=2.0), num_steps, z=y)
    torch.testing.assert_close(end, z.detach(), rtol=1e-5, atol=1e-5)


def test_drs_raises_its_maximum_as_it_goes():
    """From a pilot of a single draw, whose logit most others exceed, the law is still right."""
    rejection_law(num_pilot=1)


LAWS = {
    "ula": ula_law,
    "mala": mala_law,
    "flow, kl": flow_kl_law,
    "mh-gan": metropolis_law,
    "drs": rejection_law,
    "cycle": cycle_law,
    "dot": transport_law,
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_law(law):
    law()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_flow_of_each_divergence(divergence):
    flow_path_law(divergence)
    flow_step_law(divergence)


# --- planted errors: each check above must refuse them ----------------------------------------------

NOISE = ("noise_scale * noise", "0.95 * noise_scale * noise")
DRIFT = ("image = state.z + step_size / 2", "image = state.z + 0.9 * step_size / 2")
FLOW_NOISE = ("noise_scale * randn_like", "0.95 * noise_scale * randn_like")
FLOW_DRIFT = ("step_size * w * grad", "0.9 * step_size * w * grad")
PLANTED = [
    (ula_law, langevin, *NOISE),
    (ula_law, langevin, *DRIFT),
    (mala_law, langevin, *NOISE),
    (mala_law, langevin, *DRIFT),
    (mala_law, langevin, "backward.square()", "0.9 * backward.square()"),
    (mala_law, langevin, "new.log_prob - state.log_prob", "0.9 * (new.log_prob - state.log_prob)"),
    (flow_kl_law, gradient_flow, *FLOW_NOISE),
    (flow_kl_law, gradient_flow, *FLOW_DRIFT),
    (metropolis_law, metropolis_hastings, "gain.clamp", "(0.9 * gain).clamp"),
    (metropolis_law, metropolis_hastings, "share < acceptance", "share < 0.9 + 0.1 * acceptance"),
    (rejection_law, rejection_sample, "gap = logits", "gap = 0.9 * logits"),
    (transport_law, optimal_transport, "/ state.lipschitz", "/ state.lipschitz * 0.9"),
    (transport_law, optimal_transport, "grad = pull", "grad = 0.9 * pull"),
]


def named(case):
    law, _, _, new = case
    return f"{law.__name__}: {new}"


@pytest.mark.parametrize(("law", "sampler", "old", "new"), PLANTED, ids=map(named, PLANTED))
def test_a_planted_error_is_caught(law, sampler, old, new):
    wrong = plant(sampler, old, new)
    with pytest.raises(AssertionError):
        law(wrong)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_planted_error_in_the_flow_is_caught(divergence):
    weak = plant(gradient_flow, *FLOW_DRIFT)
    for law in (flow_path_law, flow_step_law):
        with pytest.raises(AssertionError):
            law(divergence, weak)
    with pytest.raises(AssertionError):
        flow_step_law(divergence, plant(gradient_flow, *FLOW_NOISE))
