"""A logit fitted along the flow, where data and model are normal and the stale logit is known to run away."""

import pytest
import torch
from torch import nn
from torch.distributions import Uniform

from logitflow import LatentTarget, run
from logitflow.ratio import fit_along_flow
from logitflow.samplers import gradient_flow

MEAN, SPREAD = -1.5, 0.5  # of the model; the data are N(0, 1)
FLOW_STEPS = 100


class Quadratic(nn.Module):
    """A logit a + bx + cx², of which the log ratio of two normal laws is one."""

    def __init__(self, a=0.0, b=0.0, c=0.0):
        super().__init__()
        self.coefficients = nn.Parameter(torch.tensor([a, b, c]))

    def forward(self, x):
        return torch.cat([torch.ones_like(x), x, x * x], 1) @ self.coefficients


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def data(n, generator):
    return torch.randn(n, 1, generator=generator)


def model(n, generator):
    return MEAN + SPREAD * data(n, generator)


def flow(target):
    return gradient_flow(target, step_size=0.05, gamma=0.01)


def fit(logit, **settings):
    settings = {
        "num_steps": 2000,
        "mean_age": FLOW_STEPS,
        "num_walkers": 4096,
        "batch_size": 512,
        "learning_rate": 0.01,
        "generator": seeded(1),
    } | settings
    return fit_along_flow(logit, data, model, flow, **settings)


def moved(logit, num_steps=FLOW_STEPS, count=20_000):
    target = LatentTarget(lambda x: x, logit, None)
    start = model(count, seeded(2))
    return run(flow(target), start, num_steps=num_steps, generator=seeded(3)).z


def test_the_flow_ends_at_the_data_where_a_stale_logit_runs_away():
    """The model is narrower than the data, so log p/q₀ is a valley: its slope throws points out for ever."""
    stale = Quadratic(0.0, -MEAN / SPREAD**2, 0.5 / SPREAD**2 - 0.5)
    assert float(moved(stale, 40).std()) > 50
    logit = Quadratic()
    assert 0.6 < fit(logit) < 0.72  # near log 2: walkers are hard to tell from data
    x = moved(logit)
    assert abs(float(x.mean())) < -0.1 * MEAN
    assert 0.3 < float(x.std()) < 1.2  # what is fitted to all ages says little of the spread
    assert abs(float(moved(logit, FLOW_STEPS // 2).mean()) - MEAN / 2) < -0.2 * MEAN  # half-way


def test_a_logit_of_young_walkers_is_the_log_ratio():
    """Walkers of one step are the model's samples, hardly moved: log p/q₀ in closed form."""
    logit = Quadratic()
    fit_along_flow(
        logit,
        data,
        model,
        lambda target: gradient_flow(target, step_size=1e-4, gamma=0.01),
        num_steps=4000,
        mean_age=1,
        num_walkers=2048,
        batch_size=2048,
        learning_rate=0.02,
        generator=seeded(1),
    )
    x = torch.linspace(MEAN - 2 * SPREAD, MEAN + 2 * SPREAD, 9)[:, None]
    exact = torch.log(torch.tensor(SPREAD)) - x**2 / 2 + ((x - MEAN) / SPREAD) ** 2 / 2
    assert (logit(x) - exact[:, 0]).abs().max() < 0.15


def test_same_seed_same_logit_and_the_global_generator_stays():
    before, results = torch.get_rng_state(), []
    for seed in (4, 4, 5):
        results.append(Quadratic())
        fit(results[-1], num_steps=30, generator=seeded(seed))
    first, second, other = (net.coefficients for net in results)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_killed_fit_goes_on_bit_for_bit(tmp_path):
    """Logit, walkers, Adam's moments and the stream are all in the file."""
    whole, killed = Quadratic(), Quadratic()
    loss = fit(whole, num_steps=40)
    calls = 0

    def tripping(n, generator):
        nonlocal calls
        calls += 1
        if calls > 25:
            raise KeyboardInterrupt
        return data(n, generator)

    settings = {"num_steps": 40, "checkpoint": tmp_path / "fit", "checkpoint_every": 10}
    shape = {"mean_age": FLOW_STEPS, "num_walkers": 4096, "batch_size": 512, "learning_rate": 0.01}
    with pytest.raises(KeyboardInterrupt):
        fit_along_flow(killed, tripping, model, flow, generator=seeded(1), **settings, **shape)
    again = Quadratic()
    assert fit(again, **settings) == loss
    assert torch.equal(again.coefficients, whole.coefficients)


def test_walkers_keep_to_their_space():
    seen = []

    class Watch(Quadratic):
        def forward(self, x):
            seen.append(float(x.detach().abs().max()))
            return super().forward(x)

    def inside(n, generator):
        return data(n, generator).clamp(-1, 1)

    space = Uniform(-torch.ones(1), torch.ones(1))
    fit_along_flow(
        Watch(0.0, 5.0, 5.0),
        inside,
        inside,
        flow,
        num_steps=20,
        mean_age=10,
        num_walkers=64,
        batch_size=32,
        space=space,
        generator=seeded(),
    )
    assert max(seen) == 1  # some are at the wall, none beyond


def test_bad_input_is_refused():
    for few in ({"num_steps": 0}, {"mean_age": 0}, {"num_walkers": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            fit(Quadratic(), **few)
    with pytest.raises(ValueError, match="take more of them"):
        fit(Quadratic(), num_walkers=10)
    with pytest.raises(FloatingPointError, match="smaller learning_rate"):
        fit_along_flow(
            Quadratic(b=1.0),
            lambda n, generator: torch.full((n, 1), float("nan")),
            model,
            flow,
            num_steps=1,
            mean_age=1,
            generator=seeded(),
        )
