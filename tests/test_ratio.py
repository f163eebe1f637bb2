"""Calibration, its test, fitting and correction, where all densities are known."""

import math

import pytest
import torch
from laws import A, assert_law, assert_moments, identity, normal_prior, standard_normal
from scipy.stats import kstest, norm
from torch import nn
from torch.distributions import Normal
from torch.nn import functional as F

from logitflow import LatentTarget, run
from logitflow.models import MLP
from logitflow.ratio import calibrate, corrected, cross_entropy, fit_log_ratio, z_statistic
from logitflow.samplers import langevin
from logitflow.training import score_real

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


@pytest.mark.parametrize("evaluate_every", [1, 10, 500])
def test_a_callers_autocast_does_not_hold_the_weights_still(evaluate_every):
    """Autocast keeps copies of weights while it is open, however often the fit is judged in between."""
    logit = MLP([1, 1])
    with torch.no_grad():
        for parameter in logit.parameters():
            parameter.zero_()
    settings = {"num_steps": 500, "learning_rate": 0.05, "evaluate_every": evaluate_every}
    with torch.autocast("cpu", torch.bfloat16):
        fit_log_ratio(
            logit, sample_real, sample_fake, generator=seeded(), num_held_out=500, **settings
        )
    x = torch.linspace(-2, 3, 11)[:, None]
    assert ((logit(x) - log_ratio(x)).abs() < 0.2).all()


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


# --- correction: a GAN's logit for another model ------------------------------------------------------

DATA, GAN, MODEL = Normal(1.0, 0.5), Normal(0.3, 0.8), Normal(0.0, 1.0)


def between(p, q):
    """The exact log ratio of two laws on the line, for points (N, 1)."""
    return lambda x: p.log_prob(x) - q.log_prob(x)


def test_exact_logits_add_up_to_the_exact_log_ratio():
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)[:, None]
    logit = corrected(between(DATA, GAN), between(GAN, MODEL))
    torch.testing.assert_close(logit(x), between(DATA, MODEL)(x)[:, 0])


def test_a_corrected_target_has_the_law_of_the_data():
    """MALA in the model's latents, with x = 2z − 1 for a generator: x follows the data, and not without."""
    model = Normal(-1.0, 2.0)
    logit, corrector = between(DATA, GAN), between(GAN, model)
    z = standard_normal(20_000, 1)

    def refined(d):
        target = LatentTarget(lambda z: 2 * z - 1, d, normal_prior(1))
        state = run(
            langevin(target, step_size=0.05, adjust=True), z, num_steps=100, generator=seeded()
        )
        return target.generate(state.z)[:, 0]

    assert_law(refined(corrected(logit, corrector)), norm(1.0, 0.5).cdf)
    # forgotten, the corrector leaves p_model·p_data/p_gan: precisions 1/4 + 4 − 1/0.64
    precision = 1 / 4 + 4 - 1 / 0.64
    mean = (-1 / 4 + 4 - 0.3 / 0.64) / precision
    assert_law(refined(logit), norm(mean, precision**-0.5).cdf)


def test_a_corrected_target_in_the_plane():
    """Gaussians of one covariance, whose log ratios are linear: latents follow N(Aᵀ(b + c), I)."""
    b, c = torch.tensor([[0.9, -0.7], [-0.4, 0.8]], dtype=torch.float64)
    logit = corrected(lambda x: x @ b - 3, lambda x: (x @ c)[:, None] + 5)
    target = LatentTarget(lambda z: z @ A.T, logit, normal_prior())
    sampler = langevin(target, step_size=0.5, adjust=True)
    z = run(sampler, standard_normal(20_000), num_steps=50, generator=seeded()).z
    assert_moments(z, A.T @ (b + c), 1.0)


@pytest.fixture(scope="module")
def fits():
    """The log ratios along a chain of normals, means 1.5, 0.6 and 0, each fitted by a line: it can be exact."""
    means = {"data": 1.5, "gan": 0.6, "model": 0.0}

    def sampler(law):
        return lambda n, rng: torch.randn(n, 1, generator=rng) + means[law]

    lines = []
    for seed, (over, under) in enumerate((("data", "gan"), ("gan", "model"), ("data", "model"))):
        line = MLP([1, 1])
        for parameter in line.parameters():
            parameter.data.zero_()
        fit_log_ratio(
            line,
            sampler(over),
            sampler(under),
            num_steps=1000,
            generator=seeded(seed),
            learning_rate=0.05,
        )
        lines.append(line)
    return *lines, sampler


def line_error(over, under, x, n):
    """The standard error at x of a logistic fit to n samples of each of N(over, 1) and N(under, 1)."""
    t = torch.linspace(-8, 10, 4001, dtype=torch.float64)
    density = Normal(over, 1.0).log_prob(t).exp() + Normal(under, 1.0).log_prob(t).exp()
    d = (over - under) * t - (over**2 - under**2) / 2
    weight = n * density * torch.sigmoid(d) * torch.sigmoid(-d)
    design = torch.stack([t, torch.ones_like(t)], 1)
    products = weight[:, None, None] * design[:, :, None] * design[:, None]
    information = products.sum(0) * (t[1] - t[0])
    at = torch.stack([x, torch.ones_like(x)], 1).double()
    return (at @ torch.linalg.inv(information) * at).sum(1).sqrt()


def test_fitted_logits_add_up_to_the_log_ratio(fits):
    """The two fits err independently, so their variances add; their weights average 500 steps of 512."""
    logit, corrector, direct, _ = fits
    x = torch.linspace(-1.5, 3, 10)
    truth = 1.5 * x - 1.5**2 / 2
    # twice the error of the best estimate from the averaged steps' samples: Adam is not the best estimate
    error = [2 * line_error(*means, x, 500 * 512) for means in ((1.5, 0.6), (0.6, 0.0), (1.5, 0.0))]
    with torch.no_grad():
        of_sum = corrected(logit, corrector)(x[:, None]) - truth
        of_direct = direct(x[:, None])[:, 0] - truth
    assert (of_sum.abs() < 5 * (error[0].square() + error[1].square()).sqrt()).all()
    assert (of_direct.abs() < 5 * error[2]).all()
    assert (
        error[0].max() ** 2 + error[1].max() ** 2
    ) ** 0.5 < 0.05  # the tolerance means something


def test_a_corrected_logit_is_calibrated_and_one_without_its_corrector_is_not(fits):
    logit, corrector, direct, sampler = fits
    rng = seeded(7)
    real, fake = sampler("data")(5000, rng), sampler("model")(5000, rng)
    with torch.no_grad():
        for d in (corrected(logit, corrector), direct):
            assert abs(z_statistic(d(real), d(fake)).statistic) < 5
        assert abs(z_statistic(logit(real), logit(fake)).statistic) > 10


def test_a_target_leaves_both_parts_as_they_are():
    """Found in the sum: modules, and the module of a method; batch norm would betray a mode that was missed."""

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def score(self, x):
            return self.norm(x).sum(1, keepdim=True)

    logit, corrector = Critic(), nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    corrector[0].eval()
    total = corrected(logit.score, corrector)
    before = {name: t.clone() for name, t in total.state_dict().items()}
    target = LatentTarget(identity, total, None)
    z = torch.randn(8, 2, generator=seeded())
    assert torch.equal(target.logits(z), target.logits_and_grad(z).value)
    assert logit.training
    assert logit.norm.training
    assert not corrector[0].training
    assert corrector[1].training
    assert all(p.requires_grad for p in total.parameters())
    assert all(torch.equal(t, before[name]) for name, t in total.state_dict().items())
    expected = z.sum(1) / math.sqrt(1 + 1e-5)  # eval mode: running mean 0 and variance 1
    with torch.no_grad():
        torch.testing.assert_close(
            target.logits(z), expected + corrector[1](z / math.sqrt(1 + 1e-5))[:, 0]
        )


def test_what_cannot_be_corrected():
    with pytest.raises(TypeError, match="corrector must be callable, not float"):
        corrected(identity, 1.0)
    features = corrected(lambda x: x, lambda x: x[:, :1])
    with pytest.raises(ValueError, match=r"returned shape \(4, 2\).*logitflow\.ratio\.corrected"):
        features(torch.zeros(4, 2))


def test_a_vector_valued_critic_is_refused_by_a_sentence_that_names_the_way():
    target = LatentTarget(identity, MLP([2, 8, 16]), normal_prior(dtype=torch.float32))
    for score in (target.logits, target.log_prob, target.logits_and_grad):
        with pytest.raises(
            ValueError, match=r"vector-valued critic.*logitflow\.ratio\.corrected.*fit_log_ratio"
        ):
            score(torch.zeros(3, 2))


class Evidence(nn.Linear):
    """What speaks for each of two classes, linear in x."""

    def __init__(self):
        super().__init__(1, 2)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def evidence(self, x):
        return super().forward(x)

    def forward(self, x):
        return self.evidence(x).logsumexp(1)


def test_a_discriminator_of_classes_learns_each_classs_log_ratio():
    """Classes N(±SHIFT, 1) in equal parts against N(0, 1): l_k = ±SHIFT·x − SHIFT²/2 − log 2, within 5σ.

    The errors follow from the Fisher information of one choice among three, at the exact weights. Without the
    classes' cross-entropy nothing would tell the two apart, and both would stay alike.
    """
    batch, steps = 500, 2000

    def sample(n, generator):
        classes = torch.randint(2, (n,), generator=generator)
        return sample_fake(n, generator) + SHIFT * (1 - 2 * classes[:, None]), classes

    network = Evidence()
    record = fit_log_ratio(
        network,
        sample,
        sample_fake,
        num_steps=steps,
        batch_size=batch,
        learning_rate=0.02,
        num_held_out=20_000,
        generator=seeded(3),
    )
    slopes = torch.tensor([SHIFT, -SHIFT], dtype=torch.float64)
    shift = -(SHIFT**2) / 2 - math.log(2)
    # the information of a pair (a real sample, a fake one) about (slope, shift) of both classes
    rng = seeded(4)
    x = torch.cat([sample(100_000, rng)[0], sample_fake(100_000, rng)]).double()
    logits = torch.cat([torch.zeros(len(x), 1).double(), slopes * x + shift], 1)
    p = logits.softmax(1)[:, 1:]
    weight = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    design = torch.cat([x, torch.ones_like(x)], 1)
    information = 2 * torch.einsum("nab,ni,nj->aibj", weight, design, design) / len(x)
    covariance = torch.linalg.inv(information.reshape(4, 4)) / (batch * steps / 2)
    error = covariance.diag().sqrt().reshape(2, 2)
    found = torch.stack([network.weight[:, 0], network.bias], 1).detach().double()
    exact = torch.stack([slopes, torch.full((2,), shift, dtype=torch.float64)], 1)
    assert ((found - exact).abs() < 5 * error).all(), (found - exact) / error
    assert abs(record.mean_ratio - 1) < 0.1


def test_only_a_discriminator_of_classes_takes_samples_with_classes():
    """The loss of a real sample and of its class together is that of one choice among K + 1."""
    network = Evidence()
    nn.init.normal_(network.weight, generator=seeded(1))
    x, classes = sample_fake(6, seeded(2)), torch.tensor([0, 1, 1, 0, 1, 0])
    logits, class_loss = score_real(network, (x, classes))
    choices = torch.cat([torch.zeros(6, 1), network.evidence(x)], 1)
    one_choice = F.cross_entropy(choices, classes + 1)
    torch.testing.assert_close(F.softplus(-logits).mean() + class_loss, one_choice)
    assert score_real(network, x)[1] == 0
    with pytest.raises(AttributeError, match="evidence"):
        score_real(nn.Linear(1, 1), (x, classes))
