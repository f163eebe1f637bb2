"""What chains, weights and logits are worth, against closed forms."""

import math
import warnings

import pytest
import torch
from scipy.signal import lfilter
from torch.distributions import Normal

from logitflow import LatentTarget, run
from logitflow.diagnostics import (
    effective_sample_size,
    inspect_logits,
    r_hat,
    weight_sample_size,
)
from logitflow.samplers import langevin


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def autoregression(rho, steps, chains, seed=0):
    """Stationary chains of variance 1 with autocorrelations ρᵏ, (steps, chains)."""
    noise = torch.randn(steps, chains, generator=seeded(seed), dtype=torch.float64)
    noise[1:] *= math.sqrt(1 - rho**2)
    return torch.from_numpy(lfilter([1.0], [1.0, -rho], noise.numpy(), axis=0))


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.8])
def test_autoregression_is_worth_what_the_closed_form_says(rho):
    steps, chains = 250_000, 4
    share = effective_sample_size(autoregression(rho, steps, chains)) / (steps * chains)
    tau = (1 + rho) / (1 - rho)
    # a sum of W autocorrelations has a relative variance of 2(2W + 1)/(NT); Geyer's rule takes a few τ of them
    tolerance = 5 * math.sqrt(2 * (2 * 5 * max(tau, 1) + 1) / (steps * chains))
    assert abs(share * tau - 1) < tolerance < 0.08


def test_langevin_chains_are_autoregressions():
    eps, steps, chains = 1.0, 400, 400
    target = LatentTarget(lambda z: z, lambda x: 0 * x[:, 0], Normal(torch.zeros(1), 1.0))
    trace = []
    run(
        langevin(target, step_size=eps),
        torch.randn(chains, 1, generator=seeded(1)) / math.sqrt(1 - eps / 4),
        num_steps=steps,
        generator=seeded(2),
        callback=lambda k, state, info: trace.append(state.z[:, 0]),
    )
    tau = (4 - eps) / eps
    share = effective_sample_size(torch.stack(trace)) / (steps * chains)
    assert abs(share * tau - 1) < 5 * math.sqrt(2 * (10 * tau + 1) / (steps * chains))


def test_chains_that_agree_and_chains_that_do_not():
    trace = autoregression(0.5, 2000, 4)
    assert abs(r_hat(trace) - 1) < 0.01
    apart = trace + 4 * torch.arange(4)
    assert r_hat(apart) > 2
    assert effective_sample_size(apart) < 10 < effective_sample_size(trace)
    drifting = trace + torch.linspace(-3, 3, 2000)[:, None]  # alike, but not at rest
    assert r_hat(drifting) > 1.1


def test_r_hat_does_not_see_units():
    trace = autoregression(0.8, 300, 3, seed=3)
    torch.testing.assert_close(r_hat(trace), r_hat(7 - 3 * trace))
    torch.testing.assert_close(r_hat(trace), r_hat(trace.exp()), rtol=0.05, atol=0.0)


def test_frozen_chains_earn_nothing():
    assert math.isnan(effective_sample_size(torch.full((100, 4), 2.0)))
    assert math.isnan(r_hat(torch.full((100, 4), 2.0)))
    assert r_hat(torch.arange(4.0).expand(100, 4)) > 1e6


@pytest.mark.parametrize("function", [effective_sample_size, r_hat])
def test_refuses_what_is_no_trace(function):
    with pytest.raises(ValueError, match="at least 4 steps"):
        function(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="shape"):
        function(torch.zeros(10, 2, 2))
    with pytest.raises(ValueError, match="NaN or infinity"):
        function(torch.full((10, 2), math.nan))
    with pytest.raises(ValueError, match="two"):
        r_hat(torch.randn(100, generator=seeded()))


def test_weights_from_one_to_all():
    assert weight_sample_size(torch.full((7,), 900.0)) == pytest.approx(7)
    assert weight_sample_size(torch.tensor([0.0, 500.0, -math.inf])) == pytest.approx(1)
    assert weight_sample_size(torch.tensor([[0.0], [math.log(3)]])) == pytest.approx(16 / 10)
    for bad in ([], [math.nan], [math.inf], [-math.inf]):
        with pytest.raises(ValueError, match="logits"):
            weight_sample_size(torch.tensor(bad))


M, S = 0.8, 0.6  # data N(M, S²), generator N(0, 1)


def gaussian_logits(n):
    """The optimal logit of n data and n generated samples."""
    real = M + S * torch.randn(n, generator=seeded(4), dtype=torch.float64)
    fake = torch.randn(n, generator=seeded(5), dtype=torch.float64)
    return [Normal(M, S).log_prob(x) - Normal(0.0, 1.0).log_prob(x) for x in (real, fake)]


def test_an_optimal_logit_passes():
    n = 200_000
    report = inspect_logits(*gaussian_logits(n))
    kl = -math.log(S) + (S**2 + M**2 - 1) / 2
    chi = math.exp(M**2 / (2 - S**2)) / (S * math.sqrt(2 - S**2))  # E[exp(2d)] = 1 + χ²
    error = math.sqrt((chi - 1) / n)
    assert abs(report.mean_ratio - 1) < 5 * error
    assert abs(report.gain - kl) < 5 * (
        error + 1 / math.sqrt(n)
    )  # d's spread under the data is below 1
    assert abs(report.slope - 1) < 0.02
    assert abs(report.effective_share * chi - 1) < 0.03
    assert abs(report.z) < 5 * report.z_spread < 5
    assert report.gap > report.gain > 0
    assert report.lowest < 0 < report.highest


def test_a_logit_too_loud_is_told_by_its_slope():
    n = 200_000
    real, fake = gaussian_logits(n)
    report = inspect_logits(2 * real + 3, (2 * fake + 3)[:, None])
    honest = inspect_logits(real, fake)
    chi = math.exp(M**2 / (2 - S**2)) / (S * math.sqrt(2 - S**2))
    torch.testing.assert_close(report.slope, honest.slope / 2, rtol=1e-2, atol=0.0)
    torch.testing.assert_close(report.gap, 2 * honest.gap)
    torch.testing.assert_close(report.mean_ratio, math.exp(3) * chi, rtol=0.03, atol=0.0)
    torch.testing.assert_close(
        report.gain, 2 * float(real.mean()) - math.log(chi), rtol=0, atol=0.03
    )
    assert abs(report.z) > 100 * report.z_spread


def test_probabilities_and_wrong_signs_show():
    real, fake = gaussian_logits(2000)
    report = inspect_logits(torch.sigmoid(real), torch.sigmoid(fake))
    assert 0 <= report.lowest <= report.highest <= 1
    assert report.slope > 3
    assert inspect_logits(-real, -fake).gap < 0
    assert inspect_logits(-real, -fake).slope < 0


def test_enormous_logits_do_not_overflow():
    real, fake = gaussian_logits(200)
    report = inspect_logits(real + 1700, fake + 1700)
    assert math.isfinite(report.mean_ratio)
    torch.testing.assert_close(report.gain, inspect_logits(real, fake).gain)
    with pytest.raises(ValueError, match="as many"):
        inspect_logits(real, fake[:100])


def test_arviz_greets_nobody(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r_hat(torch.randn(10, 2, generator=seeded()))


def test_without_arviz_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "arviz", None)
    with pytest.raises(ImportError, match=r"logitflow\[book\]"):
        effective_sample_size(torch.randn(10, 2, generator=seeded()))
