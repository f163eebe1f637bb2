"""Calibration, its test and fitting, where both densities are known."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch import nn

from logitflow.models import MLP
from logitflow.ratio import calibrate, cross_entropy, fit_log_ratio, z_statistic

SHIFT = 1.5  # real N(SHIFT, 1) against fake N(0, 1): the log ratio is SHIFT·x − SHIFT²/2


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sample_fake(n, generator):
    return torch.randn(n, 1, generator=generator)


def sample_real(n, generator):
    return sample_fake(n, generator) + SHIFT


def log_ratio(x):
    return SHIFT * x - SHIFT**2 / 2


@pytest.mark.parametrize(
    "sizes", [(40_000, 40_000), (20_000, 60_000)], ids=["equal", "one to three"]
)
def test_logistic_undoes_scale_and_shift(sizes):
    real, fake = sample_real(sizes[0], seeded(1)), sample_fake(sizes[1], seeded(2))
    calibration = calibrate(0.3 * log_ratio(real) + 2, 0.3 * log_ratio(fake) + 2)
    x = torch.linspace(-2, 3, 11)
    # Fisher information of the two logistic parameters bounds the error of the fitted line.
    every = torch.cat([real, fake]).double()
    weight = torch.sigmoid(log_ratio(every) + math.log(sizes[0] / sizes[1]))
    weight = weight * (1 - weight)
    design = torch.cat([every, torch.ones_like(every)], 1)
    covariance = torch.linalg.inv(design.T @ (weight * design))
    at = torch.stack([x, torch.ones_like(x)], 1).double()
    error = (at @ covariance * at).sum(1).sqrt()
    assert ((calibration(0.3 * log_ratio(x) + 2) - log_ratio(x)).abs() < 5 * error).all()


def test_isotonic_learns_a_monotone_distortion():
    real, fake = sample_real(100_000, seeded(1)), sample_fake(100_000, seeded(2))
    calibration = calibrate(log_ratio(real) ** 3, log_ratio(fake) ** 3, method="isotonic")
    x = torch.linspace(-0.5, 2, 11)
    assert ((calibration(log_ratio(x) ** 3) - log_ratio(x)).abs() < 0.15).all()


def test_isotonic_is_monotone_finite_and_clipped():
    calibration = calibrate(
        torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-3.0, -2.0, 1.5]), method="isotonic"
    )
    values = calibration(torch.linspace(-100, 100, 1001))
    assert values.isfinite().all()
    assert (values.diff() >= 0).all()
    assert calibration(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64


def test_calibrated_logits_pass_the_z_test_and_others_fail():
    statistics = torch.tensor(
        [
            z_statistic(
                log_ratio(sample_real(500, seeded(s))),
                log_ratio(sample_fake(500, seeded(s + 9000))),
            ).statistic
            for s in range(400)
        ]
    )
    # Equal class sizes are fixed, not drawn, so the statistic is a little narrower than the standard normal.
    assert abs(statistics.mean()) < 5 / math.sqrt(400)
    assert statistics.std() < 1 + 5 / math.sqrt(800)
    wrong = z_statistic(
        log_ratio(sample_real(5000, seeded())) + 0.3, log_ratio(sample_fake(5000, seeded(1))) + 0.3
    )
    assert wrong.p_value < 1e-6
    assert wrong.statistic < 0


def test_z_statistic_by_hand():
    real, fake = torch.logit(torch.tensor([0.8, 0.6])), torch.logit(torch.tensor([0.3, 0.4]))
    result = z_statistic(real, fake)
    # Σ(y − D) = 2 − 2.1 and ΣD(1 − D) = 0.16 + 0.24 + 0.21 + 0.24
    assert result.statistic == pytest.approx(-0.1 / math.sqrt(0.85), rel=1e-5)
    assert result.p_value == pytest.approx(
        math.erfc(abs(result.statistic) / math.sqrt(2)), rel=1e-5
    )


def test_z_statistic_p_values_are_uniform_for_drawn_labels():
    p_values = []
    for s in range(300):
        rng = seeded(s)
        logits = torch.randn(2000, generator=rng)
        is_real = torch.rand(2000, generator=rng) < torch.sigmoid(logits)
        n = min(int(is_real.sum()), int((~is_real).sum()))
        assert n > 800
        # the drawn labels' own statistic, from which the function's formula is checked
        excess = is_real.double().sum() - torch.sigmoid(logits.double()).sum()
        spread = (torch.sigmoid(logits.double()) * torch.sigmoid(-logits.double())).sum().sqrt()
        p_values.append(math.erfc(abs(float(excess / spread)) / math.sqrt(2)))
    assert kstest(p_values, "uniform").pvalue > 1e-4


def test_certain_claims():
    sure = torch.full((4,), 1e4)
    assert z_statistic(sure, -sure) == (0.0, 1.0)
    assert z_statistic(-sure, -sure).p_value == 0.0


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (torch.zeros(0), torch.zeros(3), "at least one value"),
        (torch.tensor([1.0, math.nan]), torch.zeros(2), "only finite"),
        (torch.zeros(3, 2), torch.zeros(3), "one number a sample"),
    ],
)
def test_refused_logits(real, fake, message):
    for function in (calibrate, z_statistic):
        with pytest.raises(ValueError, match=message):
            function(real, fake)


def test_other_refusals():
    with pytest.raises(ValueError, match="choose 'logistic' or 'isotonic'"):
        calibrate(torch.zeros(2), torch.ones(2), method="beta")
    with pytest.raises(ValueError, match="drop some of the larger set"):
        z_statistic(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="at least 1"):
        fit_log_ratio(MLP([1, 1]), sample_real, sample_fake, num_steps=0, generator=seeded())


def test_fit_recovers_a_known_log_ratio():
    logit = MLP([1, 1])  # the truth is affine, so a linear logit can be exact
    with torch.no_grad():
        for parameter in logit.parameters():
            parameter.zero_()
    record = fit_log_ratio(
        logit,
        sample_real,
        sample_fake,
        num_steps=1500,
        generator=seeded(),
        learning_rate=0.05,
        evaluate_every=500,
    )
    x = torch.linspace(-2, 3, 11)[:, None]
    assert ((logit(x) - log_ratio(x)).abs() < 0.1).all()
    # Var exp(d) under the fake is exp(SHIFT²) − 1, which sets the error of the mean ratio.
    assert abs(record.mean_ratio - 1) < 0.1 + 5 * math.sqrt(math.exp(SHIFT**2) / 20_000)
    assert record.steps == [500, 1000, 1500]
    assert record.losses[-1] < math.log(2)


def test_fit_is_reproducible_and_leaves_the_global_generator():
    state = torch.get_rng_state()
    outputs = []
    for _ in range(2):
        logit = MLP([1, 4, 1])
        with torch.no_grad():
            for parameter in logit.parameters():
                parameter.fill_(0.1)
        fit_log_ratio(
            logit, sample_real, sample_fake, num_steps=20, generator=seeded(), num_held_out=100
        )
        outputs.append(logit(torch.ones(1, 1)))
    assert torch.equal(*outputs)
    with torch.random.fork_rng():
        torch.set_rng_state(state)  # MLP itself draws from the global generator; fitting must not
        MLP([1, 4, 1]), MLP([1, 4, 1])
        expected = torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), expected)


def test_cross_entropy_by_hand():
    real, fake = torch.tensor([0.0]), torch.tensor([math.log(3)])
    assert float(cross_entropy(real, fake)) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_non_finite_loss_is_refused():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x * self.weight / 0

    with pytest.raises(FloatingPointError, match="smaller learning_rate"):
        fit_log_ratio(
            Broken(), sample_real, sample_fake, num_steps=1, generator=seeded(), num_held_out=10
        )
