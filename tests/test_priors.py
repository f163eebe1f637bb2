"""Priors: densities, draws from a given generator, boxes, and the mirrors and walls of a box."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import assert_law, assert_moments, seeded
from scipy import stats
from torch.distributions import (
    Bernoulli,
    Beta,
    Exponential,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
)

from logitflow import priors
from logitflow.priors import Box
from logitflow.samplers.core import project, reflect

D = torch.float64
ZEROS, ONES = torch.zeros(2, dtype=D), torch.ones(2, dtype=D)


# --- the box ----------------------------------------------------------------------------------------


def test_boxes():
    assert priors.box(Normal(ZEROS, ONES)) is None
    assert priors.box(Independent(Normal(ZEROS, ONES), 1)) is None
    assert priors.box(MultivariateNormal(ZEROS, torch.eye(2, dtype=D))) is None
    for prior in (Uniform(-ONES, 2 * ONES), Independent(Uniform(-ONES, 2 * ONES), 1)):
        low, high = priors.box(prior)
        assert torch.equal(low, -ONES)
        assert torch.equal(high, 2 * ONES)
    low, high = priors.box(Beta(ONES, ONES))
    assert (low, high) == (0, 1)


@pytest.mark.parametrize("prior", [Exponential(ONES), Bernoulli(ONES / 2)])
def test_a_support_that_is_no_box_is_refused_with_a_way_out(prior):
    with pytest.raises(ValueError, match=r"whole space or a box. Reparametrise"):
        priors.box(prior)


finite = st.floats(-1e3, 1e3)


@st.composite
def boxes(draw):
    low, width = draw(finite), draw(st.floats(1e-2, 1e3))
    low = torch.tensor([low], dtype=D)
    return Box(low, low + width)


@given(box=boxes(), z=finite)
def test_reflection_is_a_fold(box, z):
    z = torch.tensor([z], dtype=D)
    folded, sign = reflect(z, box)
    assert (box.low <= folded).all()
    assert (folded <= box.high).all()
    assert sign.abs() == 1
    again, sign_inside = reflect(folded, box)
    torch.testing.assert_close(again, folded, rtol=0, atol=1e-9)  # what is inside stays
    inside = (folded > box.low + 1e-9) & (folded < box.high - 1e-9)
    assert not inside or sign_inside == 1
    period = 2 * (box.high - box.low)
    torch.testing.assert_close(reflect(z + 3 * period, box)[0], folded, rtol=0, atol=1e-8)
    for wall in box:  # a point and its mirror image fold to the same place
        torch.testing.assert_close(reflect(2 * wall - z, box)[0], folded, rtol=0, atol=1e-8)


@given(box=boxes(), z=finite)
def test_the_sign_of_an_image_is_the_slope_of_the_fold(box, z):
    z, h = torch.tensor([z], dtype=D), 1e-5
    place = torch.remainder(z - box.low, box.high - box.low)
    assume(h < place.item() < (box.high - box.low).item() - h)  # no wall in between
    slope = (reflect(z + h, box)[0] - reflect(z - h, box)[0]) / (2 * h)
    torch.testing.assert_close(slope, reflect(z, box)[1], rtol=1e-3, atol=1e-3)


@given(box=boxes(), z=finite)
def test_projection_is_the_nearest_point(box, z):
    z = torch.tensor([z], dtype=D)
    near = project(z, box)
    assert (box.low <= near).all()
    assert (near <= box.high).all()
    inside = ((box.low <= z) & (z <= box.high)).item()
    wall = torch.minimum((z - box.low).abs(), (z - box.high).abs())
    assert (z - near).abs() == (0 if inside else wall)
    assert torch.equal(project(near, box), near)


def test_without_a_box_nothing_is_folded_or_projected():
    z = torch.tensor([[-5.0, 1e9]])
    assert project(z, None) is z
    folded, sign = reflect(z, None)
    assert folded is z
    assert torch.equal(sign, torch.ones_like(z))


def test_each_coordinate_has_its_own_walls():
    box = Box(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 3.0]))
    z = torch.tensor([[1.25, 3.5], [-0.25, -2.0], [2.25, 11.5]])
    folded, sign = reflect(z, box)
    torch.testing.assert_close(folded, torch.tensor([[0.75, 2.5], [0.25, 0.0], [0.25, 2.5]]))
    assert sign.tolist() == [[-1, -1], [-1, -1], [1, -1]]
    torch.testing.assert_close(project(z, box), torch.tensor([[1, 3], [0, -1], [1.0, 3]]))


# --- densities --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (Normal(ZEROS + 1, 2 * ONES), lambda z: stats.norm(1, 2).logpdf(z).sum(1)),
        (Independent(Normal(ZEROS, ONES), 1), lambda z: stats.norm.logpdf(z).sum(1)),
        (Laplace(ZEROS, ONES), lambda z: stats.laplace.logpdf(z).sum(1)),
        (Normal(torch.tensor(0.0, dtype=D), 1.0), lambda z: stats.norm.logpdf(z).sum(1)),
        (
            MultivariateNormal(ZEROS, torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=D)),
            lambda z: stats.multivariate_normal([0, 0], [[2, 0.5], [0.5, 1]]).logpdf(z),
        ),
        (Uniform(-5 * ONES, 5 * ONES), lambda z: stats.uniform(-5, 10).logpdf(z).sum(1)),
    ],
)
def test_log_densities_are_summed_over_the_latent(prior, expected):
    z = torch.randn(20, 2, generator=seeded(), dtype=D)
    value = priors.log_prob(prior, z)
    torch.testing.assert_close(value, torch.as_tensor(expected(z.numpy()), dtype=D))


def test_image_shaped_latents_are_summed_whole():
    z = torch.randn(3, 4, 2, 2, generator=seeded(), dtype=D)
    prior = Normal(torch.zeros(4, 2, 2, dtype=D), 1.0)
    expected = -z.square().flatten(1).sum(1) / 2 - 16 / 2 * math.log(2 * math.pi)
    torch.testing.assert_close(priors.log_prob(prior, z), expected)


def test_outside_the_box_the_log_density_is_minus_infinity_and_on_its_walls_finite():
    prior = Uniform(ZEROS, 2 * ONES)
    z = torch.tensor([[1.0, 1.0], [0.0, 2.0], [2.0001, 1.0], [-0.0001, 1.0], [torch.inf, 1]])
    inside = -2 * math.log(2)
    value = priors.log_prob(prior, z)
    torch.testing.assert_close(
        value[:4].float(), torch.tensor([inside, inside, -torch.inf, -torch.inf])
    )
    assert torch.isnan(value[4])  # an infinite latent is no point at all


def test_latents_that_are_not_finite_have_no_density_and_leave_the_others_alone():
    z = torch.tensor([[0.0, 0.0], [torch.nan, 0.0], [0.0, -torch.inf]], dtype=D)
    value = priors.log_prob(Normal(ZEROS, ONES), z)
    torch.testing.assert_close(value[0], torch.tensor(-math.log(2 * math.pi), dtype=D))
    assert torch.isnan(value[1:]).all()


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), (4, 5)])
def test_a_prior_that_does_not_fit_is_refused(shape):
    prior = Normal(torch.zeros(shape), 1.0)
    with pytest.raises(ValueError, match=r"does not fit latents of shape.*shape of one latent"):
        priors.log_prob(prior, torch.zeros(4, 2))
    with pytest.raises(ValueError, match="does not fit latents of shape"):
        priors.sample_like(prior, torch.zeros(4, 2), seeded())


# --- draws ------------------------------------------------------------------------------------------

DRAWN = {
    "normal": (Normal(ZEROS + 1, 2 * ONES), stats.norm(1, 2).cdf),
    "independent": (Independent(Normal(ZEROS, ONES), 1), stats.norm.cdf),
    "uniform": (Uniform(-ONES, 3 * ONES), stats.uniform(-1, 4).cdf),
    "laplace": (Laplace(ZEROS, ONES), stats.laplace.cdf),
    "student": (StudentT(5 * ONES), stats.t(5).cdf),
    "beta": (Beta(2 * ONES, 5 * ONES), stats.beta(2, 5).cdf),
}


@pytest.mark.parametrize("name", DRAWN)
def test_draws_follow_the_prior_and_its_generator_alone(name):
    prior, cdf = DRAWN[name]
    state = torch.get_rng_state()
    z = priors.sample(prior, 20_000, seeded(1))
    for i in range(2):
        assert_law(z[:, i], cdf)
    assert abs(stats.spearmanr(z[:, 0], z[:, 1]).statistic) < 5 / math.sqrt(20_000)
    assert torch.equal(z, priors.sample(prior, 20_000, seeded(1)))
    assert not torch.equal(z, priors.sample(prior, 20_000, seeded(2)))
    rng = seeded(1)
    first, second = priors.sample(prior, 50, rng), priors.sample(prior, 50, rng)
    assert not torch.equal(first, second)  # the generator moves on
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_of_a_correlated_prior():
    covariance = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=D)
    z = priors.sample(MultivariateNormal(ZEROS, covariance), 20_000, seeded())
    assert_moments(z @ torch.linalg.inv(torch.linalg.cholesky(covariance)).T, 0.0, 1.0)


def test_draws_like_a_batch_take_its_shape_and_type():
    z = torch.zeros(7, 4, 2, 2, dtype=torch.float32)
    for prior in (Normal(torch.zeros(4, 2, 2, dtype=D), 1.0), Normal(0.0, 1.0)):
        draws = priors.sample_like(prior, z, seeded())
        assert (draws.shape, draws.dtype) == (z.shape, z.dtype)
        assert len(draws.unique()) == z.numel()


def test_a_prior_without_a_shape_cannot_be_drawn_from():
    with pytest.raises(ValueError, match="give it the shape of one latent"):
        priors.sample(Normal(0.0, 1.0), 5, seeded())
