"""Metrics against closed forms, with tolerances from the sample size."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KernelDensity

from logitflow.data import twenty_five_gaussians
from logitflow.metrics import (
    energy_distance,
    energy_floor,
    expected_energy_distance,
    floor,
    high_quality_fraction,
    kde_score,
    log_likelihood,
    mmd,
    mode_weights,
    recovered_modes,
    sliced_wasserstein,
    spread_within_modes,
)

torch.set_num_threads(1)

STD = 0.05 / 2.828
CENTERS = torch.cartesian_prod(torch.arange(-2.0, 3), torch.arange(-2.0, 3)) * 2 / 2.828
N = 20_000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def real(n=N, generator=None, scale=1.0):
    """Samples of the 25 Gaussians, each mode `scale` times as wide as it should be."""
    generator = generator or seeded()
    mode = torch.randint(len(CENTERS), (n,), generator=generator)
    return CENTERS[mode] + scale * STD * torch.randn(n, 2, generator=generator)


def normal(n, generator, *, shift=0.0, d=1):
    return torch.randn(n, d, generator=generator, dtype=torch.float64) + shift


# One set of samples and a known mixture


def test_real_samples_are_high_quality_with_the_closed_form_probability():
    miss = math.exp(-8)  # the radius of a plane normal exceeds 4 with this probability
    error = abs(high_quality_fraction(real(), CENTERS, STD) - (1 - miss))
    assert error < 5 * math.sqrt(miss / N)
    miss = math.exp(-0.5)
    error = abs(high_quality_fraction(real(), CENTERS, STD, num_stds=1) - (1 - miss))
    assert error < 5 * math.sqrt(miss * (1 - miss) / N)


def test_high_quality_fraction_counts():
    x = CENTERS[:4] + torch.tensor([[0.0, 0], [3.9, 0], [0, 4.1], [-3, 3]]) * STD
    assert high_quality_fraction(x, CENTERS, STD) == 0.5


@pytest.mark.parametrize("kept", [1, 7, 25])
def test_recovered_modes_counts(kept):
    near_misses = CENTERS + 5 * STD
    assert recovered_modes(torch.cat([CENTERS[:kept], near_misses]), CENTERS, STD) == kept
    assert recovered_modes(near_misses, CENTERS, STD) == 0


def test_mode_weights_are_shares():
    weights = mode_weights(torch.cat([CENTERS, CENTERS[:5], CENTERS[:1]]), CENTERS)
    assert weights.shape == (25,)
    assert torch.equal(weights * 31, torch.tensor([3.0] + [2.0] * 4 + [1.0] * 20).double())
    error = (mode_weights(real(), CENTERS) - 1 / 25).abs().max()
    assert error < 5 * math.sqrt(1 / 25 * 24 / 25 / N)


# The relative error of a root mean square of N plane normals is 1/(2√N): 5σ is 1.8% here. A width
# wrong by 5% is 14σ away.
SPREAD_ERROR = 5 / (2 * math.sqrt(N))


def test_spread_of_real_samples_is_one():
    assert abs(spread_within_modes(real(), CENTERS, STD) - 1) < SPREAD_ERROR


@pytest.mark.parametrize("scale", [0.95, 1.05])
def test_spread_catches_a_width_wrong_by_five_percent(scale):
    assert abs(spread_within_modes(real(scale=scale), CENTERS, STD) - scale) < SPREAD_ERROR
    assert SPREAD_ERROR < 0.05 / 2


@pytest.mark.parametrize("num_stds", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_spread_allows_for_the_truncation_in_any_dimension(d, num_stds):
    x = normal(10 * N, seeded(), d=d)
    spread = spread_within_modes(x, torch.zeros(1, d), 1.0, num_stds)
    inside = high_quality_fraction(x, torch.zeros(1, d), 1.0, num_stds) * len(x)
    # r² on [0, c²] has a standard deviation below c²/2 and, here, a mean above c²/4.
    assert abs(spread - 1) < 5 / math.sqrt(inside)


def test_spread_without_high_quality_samples_is_nan():
    assert math.isnan(spread_within_modes(CENTERS + 0.3, CENTERS, STD))


def test_log_likelihood_is_the_mixture_density():
    x = real(1000).double()
    parts = torch.distributions.Independent(torch.distributions.Normal(CENTERS.double(), STD), 1)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(25).double()), parts
    )
    expected = mixture.log_prob(x).mean().item()
    assert log_likelihood(x, CENTERS.double(), STD) == pytest.approx(expected, rel=1e-9)


def test_log_likelihood_of_real_samples_is_minus_the_entropy():
    # For separated modes: log 25 + 1 + log(2πσ²), and r²/2σ² is exponential, of variance 1.
    expected = -math.log(25) - 1 - math.log(2 * math.pi * STD**2)
    assert abs(log_likelihood(real(), CENTERS, STD) - expected) < 5 / math.sqrt(N)
    wider = log_likelihood(real(scale=1.05), CENTERS, STD)  # r² is 10% larger: 14σ
    assert abs(wider - expected + 1.05**2 - 1) < 5 * 1.05**2 / math.sqrt(N)


def test_kde_score_is_scikit_learns():
    x, y = real(700, seeded(1)), real(900, seeded(2))
    estimate = KernelDensity(bandwidth=0.1).fit(x.double().numpy())
    expected = estimate.score_samples(y.double().numpy()).mean()
    assert kde_score(x, y, 0.1) == pytest.approx(expected, rel=1e-9)


def test_kde_score_punishes_a_missing_mode():
    x, y = real(2000, seeded(1)), real(2000, seeded(2))
    missing = x[(x - CENTERS[0]).norm(dim=1) > 0.3]
    assert kde_score(missing, y, 0.05) < kde_score(x, y, 0.05) - 0.5


# Two sets of samples


def test_energy_distance_of_point_masses():
    x, y = torch.tensor([[0.0, 0]]), torch.tensor([[3.0, 4]])
    assert energy_distance(x, y) == pytest.approx(10)
    assert energy_distance(x.repeat(7, 1), y.repeat(3, 1)) == pytest.approx(10)


def agrees(values, expected):
    """Repeats agree with a closed form, and are sharp enough that 5% off would show."""
    values = torch.tensor(values)
    standard_error = values.std() / math.sqrt(len(values))
    return abs(values.mean() - expected) < 5 * standard_error < 0.1 * expected


@pytest.mark.parametrize("m", [1.0, 3.0])
def test_energy_distance_between_normals(m):
    """Closed form for N(0, 1) and N(m, 1): X − Y is N(−m, 2), its modulus a folded normal."""
    n = 500
    across = 2 / math.sqrt(math.pi) * math.exp(-m * m / 4) + m * math.erf(m / 2)
    within = 2 / math.sqrt(math.pi)
    expected = 2 * across - 2 * within + 2 * within / n  # pairs of a point with itself
    values = [energy_distance(normal(n, g), normal(n, g, shift=m)) for g in map(seeded, range(120))]
    assert agrees(values, expected)


def test_energy_distance_floor_is_two_mean_distances_over_n():
    n = 500
    got = floor(energy_distance, partial(normal, d=1), n, repeats=40, generator=seeded())
    assert abs(got.mean - 2 / n * 2 / math.sqrt(math.pi)) < 5 * got.standard_error
    assert got.standard_error < 0.25 * got.mean


def test_energy_distance_chunks_agree_with_all_pairs():
    x, y = normal(1501, seeded(), d=3), normal(2003, seeded(1), d=3)
    pairs = torch.cdist
    expected = 2 * pairs(x, y).mean() - pairs(x, x).mean() - pairs(y, y).mean()
    assert energy_distance(x, y) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("d", [1, 2, 10])
def test_sliced_wasserstein_of_a_shift(d):
    num_projections = 4000
    x, shift = normal(50, seeded(), d=d), torch.ones(d, dtype=torch.float64)
    got = sliced_wasserstein(x, x + shift, num_projections=num_projections, generator=seeded())
    # (v·θ)² has mean |v|²/d = 1 and, over the sphere, variance 2(d−1)/(d+2).
    assert abs(got**2 - 1) <= 5 * math.sqrt(2 * (d - 1) / (d + 2) / num_projections) + 1e-12


def test_sliced_wasserstein_of_unequal_sizes_is_exact():
    x = torch.tensor([[0.0], [1.0]])
    y = torch.tensor([[0.0], [1.0], [3.0]])  # thirds against halves: 0→0, 0→1 (1/6), 1→1, 1→3
    got = sliced_wasserstein(x, y, generator=seeded())
    assert got == pytest.approx(math.sqrt(1 / 6 + 4 / 3))
    assert sliced_wasserstein(x.repeat(3, 1), y.repeat(2, 1), generator=seeded()) == pytest.approx(
        got
    )


@pytest.mark.parametrize("m", [1.0, 2.0])
@pytest.mark.parametrize("d", [1, 3])
def test_mmd_between_normals(d, m):
    """Closed form for N(0, I) and N(m·1, I): a Gaussian kernel of a normal difference."""
    n, h = 500, 1.5
    shrink = (h**2 / (h**2 + 2)) ** (d / 2)
    expected = 2 * shrink * (1 - math.exp(-d * m * m / (2 * (h**2 + 2))))
    expected += 2 / n * (1 - shrink)  # pairs of a point with itself
    pairs = [(normal(n, g, d=d), normal(n, g, shift=m, d=d)) for g in map(seeded, range(120))]
    assert agrees([mmd(x, y, bandwidth=h) for x, y in pairs], expected)


def test_mmd_refuses_a_bandwidth_that_is_not_positive():
    for bandwidth in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="bandwidth must be positive"):
            mmd(CENTERS, CENTERS, bandwidth=bandwidth)


TWO_SAMPLE = {
    "energy": energy_distance,
    "sliced": lambda x, y: sliced_wasserstein(x, y, num_projections=20, generator=seeded()),
    "mmd": partial(mmd, bandwidth=0.7),
}
two_sample = pytest.mark.parametrize("metric", TWO_SAMPLE.values(), ids=TWO_SAMPLE)


@two_sample
def test_nothing_between_equal_samples_and_symmetry(metric):
    x, y = real(300, seeded(1)), real(200, seeded(2)) + 0.1
    assert metric(x, x) == pytest.approx(0, abs=1e-12)
    assert metric(x, y) == pytest.approx(metric(y, x), rel=1e-9)


@two_sample
def test_grows_with_the_distance(metric):
    x, y = normal(300, seeded(), d=2), normal(300, seeded(1), d=2)
    values = [metric(x, y + shift) for shift in (0.0, 0.3, 0.6, 1.2)]
    assert values == sorted(values)


@two_sample
def test_sees_a_lost_mode_above_the_floor(metric):
    n = 2000
    noise = floor(metric, real, n, generator=seeded())
    x, y = real(2 * n, seeded(3)), real(n, seeded(4))
    lost = x[(x - CENTERS[0]).norm(dim=1) > 0.3][:n]
    assert metric(lost, y) > noise.mean + 5 * noise.standard_error


@two_sample
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shift=st.floats(-1e3, 1e3),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)),
)
def test_moving_both_or_reordering_changes_nothing(metric, seed, shift, sizes):
    n, m, d = sizes
    g = seeded(seed)
    x, y = normal(n, g, d=d), normal(m, g, d=d)
    value = metric(x, y)
    assert value >= 0
    assert metric(x + shift, y + shift) == pytest.approx(value, rel=1e-6, abs=1e-6)
    shuffled = metric(x[torch.randperm(n, generator=g)], y[torch.randperm(m, generator=g)])
    assert shuffled == pytest.approx(value, rel=1e-6, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 10), shift=st.floats(-10, 10))
def test_mixture_measures_follow_units_and_order(seed, scale, shift):
    g = seeded(seed)
    x, centers = real(60, g, scale=2).double(), CENTERS.double()
    moved = scale * x[torch.randperm(60, generator=g)] + shift
    there = (moved, scale * centers + shift, scale * STD)
    assert high_quality_fraction(*there) == high_quality_fraction(x, centers, STD)
    assert recovered_modes(*there) == recovered_modes(x, centers, STD)
    assert spread_within_modes(*there) == pytest.approx(spread_within_modes(x, centers, STD))
    density = log_likelihood(x, centers, STD) - 2 * math.log(scale)
    assert log_likelihood(*there) == pytest.approx(density, rel=1e-6)


# Floor, randomness, input


def test_floor_serves_a_metric_of_one_sample():
    n, repeats = 5000, 30
    got = floor(
        lambda x, _: high_quality_fraction(x, CENTERS, STD, 1.0),
        real,
        n,
        repeats=repeats,
        generator=seeded(),
    )
    miss = math.exp(-0.5)
    exact_error = math.sqrt(miss * (1 - miss) / n / repeats)
    assert abs(got.mean - 1 + miss) < 5 * exact_error
    # A standard error from r repeats is itself off by about 1/√(2(r−1)).
    assert abs(got.standard_error / exact_error - 1) < 5 / math.sqrt(2 * (repeats - 1))


def test_floor_asks_for_enough():
    with pytest.raises(ValueError, match="repeats ≥ 2"):
        floor(energy_distance, real, 10, repeats=1, generator=seeded())
    with pytest.raises(ValueError, match="n ≥ 1"):
        floor(energy_distance, real, 0, generator=seeded())


def test_randomness_comes_from_the_generator_alone():
    x, y = real(50, seeded(1)), real(50, seeded(2))
    before = torch.get_rng_state()
    first, again, other = (
        sliced_wasserstein(x, y, num_projections=5, generator=seeded(s)) for s in (0, 0, 1)
    )
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


ALL = {
    **TWO_SAMPLE,
    "kde": partial(kde_score, bandwidth=0.1),
    "high_quality": partial(high_quality_fraction, std=STD),
    "modes": partial(recovered_modes, std=STD),
    "weights": mode_weights,
    "spread": partial(spread_within_modes, std=STD),
    "log_likelihood": partial(log_likelihood, std=STD),
}
every_metric = pytest.mark.parametrize("metric", ALL.values(), ids=ALL)


@every_metric
def test_float32_and_samples_with_gradients_are_measured_alike(metric):
    x = real(100).requires_grad_()
    single, double = metric(x, CENTERS), metric(x.detach().double(), CENTERS.double())
    assert torch.equal(torch.as_tensor(single), torch.as_tensor(double))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_metric
def test_gpu_agrees(metric):
    expected = torch.as_tensor(metric(real(1000), CENTERS)).double()
    got = torch.as_tensor(metric(real(1000).cuda(), CENTERS)).double().cpu()
    torch.testing.assert_close(got, expected)


@every_metric
@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (torch.zeros(0, 2), ValueError, "empty"),
        (torch.zeros(5), ValueError, r"shape \(N, d\)"),
        (torch.zeros(5, 3, 8, 8), ValueError, r"flatten\(1\)"),
        (torch.zeros(5, 3), ValueError, "columns"),
        (torch.zeros(5, 2, dtype=torch.long), TypeError, "float"),
        ([[0.0, 0.0]], TypeError, "torch.as_tensor"),
        (torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), ValueError, "1 of 2 rows"),
        (torch.tensor([[0.0, math.inf]]), ValueError, "1 of 1 rows"),
    ],
    ids=["empty", "vector", "images", "columns", "integers", "list", "nan", "inf"],
)
def test_bad_input_is_refused_on_either_side(metric, bad, error, says):
    with pytest.raises(error, match=says):
        metric(bad, CENTERS)
    with pytest.raises(error, match=says):
        metric(CENTERS, bad)


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan, math.inf])
def test_a_width_that_is_not_positive_is_refused(std):
    for metric in (
        high_quality_fraction,
        recovered_modes,
        spread_within_modes,
        log_likelihood,
    ):
        with pytest.raises(ValueError, match="std must be positive"):
            metric(CENTERS, CENTERS, std)
    with pytest.raises(ValueError, match="num_stds must be positive"):
        high_quality_fraction(CENTERS, CENTERS, STD, std)
    with pytest.raises(ValueError, match="bandwidth must be positive"):
        kde_score(CENTERS, CENTERS, std)


def test_sliced_wasserstein_needs_a_projection():
    with pytest.raises(ValueError, match="at least 1"):
        sliced_wasserstein(CENTERS, CENTERS, num_projections=0, generator=seeded())


def test_expected_energy_distance_is_the_mean_over_real_samples():
    """Against 200 draws of real samples, within five standard errors; exactly the floor's law for real ones."""
    mixture, rng, n = twenty_five_gaussians(), torch.Generator().manual_seed(3), 300
    x = 1.05 * mixture.sample(n, rng)
    draws = torch.tensor([energy_distance(x, mixture.sample(n, rng)) for _ in range(200)])
    error = float(draws.std()) / math.sqrt(200)
    assert abs(expected_energy_distance(x, *mixture) - float(draws.mean())) < 5 * error
    floors = torch.tensor(
        [expected_energy_distance(mixture.sample(n, rng), *mixture) for _ in range(200)]
    )
    error = float(floors.std()) / math.sqrt(200)
    assert abs(energy_floor(n, *mixture) - float(floors.mean())) < 5 * error


def test_energy_floor_of_one_gaussian_by_hand():
    """E|Y−Y'| of two standard normals in the plane is √π."""
    center = torch.zeros(1, 2)
    assert energy_floor(10, center, 1.0) == pytest.approx(2 / 10 * math.sqrt(math.pi))
    assert energy_floor(10, center, 2.0) == pytest.approx(2 / 10 * 2 * math.sqrt(math.pi))


def test_expected_energy_distance_refusals():
    with pytest.raises(ValueError, match="use energy_distance"):
        expected_energy_distance(torch.zeros(3, 1), torch.zeros(2, 1), 1.0)
    with pytest.raises(ValueError, match="at least 1"):
        energy_floor(0, torch.zeros(2, 2), 1.0)
