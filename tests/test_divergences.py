"""The divergences' closed-form weights against their definitions, by automatic differentiation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logitflow.divergences import DIVERGENCES, velocity_weight

# f as DESIGN.md and the paper's Table 4 write it; each is zero at r = 1 up to a linear term.
DEFINITIONS = {
    "kl": lambda r: r * torch.log(r),
    "js": lambda r: r * torch.log(r) - (r + 1) * torch.log((r + 1) / 2),
    "logd": lambda r: (r + 1) * torch.log(r + 1) - 2 * math.log(2),
    "reverse_kl": lambda r: -torch.log(r),
    "pearson_chi2": lambda r: (r - 1) ** 2,
    "squared_hellinger": lambda r: (torch.sqrt(r) - 1) ** 2,
}
logits = st.lists(st.floats(-15, 15), min_size=1, max_size=20).map(
    lambda d: torch.tensor(d, dtype=torch.float64)
)
every_divergence = pytest.mark.parametrize("name", DIVERGENCES)


def test_the_names_are_those_of_the_table():
    assert set(DIVERGENCES) == set(DEFINITIONS)


@every_divergence
@given(d=logits)
def test_closed_forms_equal_automatic_differentiation(name, d):
    closed, automatic = velocity_weight(name)(d), velocity_weight(DEFINITIONS[name])(d)
    # JS's f″ = 1/(r(r+1)) is a difference of 1/r and 1/(r+1): the smaller it is beside them, the less is left
    torch.testing.assert_close(automatic, closed, rtol=1e-6, atol=1e-9)
    assert (closed > 0).all()
    assert closed.shape == d.shape


@every_divergence
@given(d=st.floats(-10, 10))
def test_the_weight_is_the_slope_of_the_velocity(name, d):
    """−∇f′(r) with r = exp(−d): the weight is −d/dd f′(exp(−d)), here by finite differences."""

    def velocity(logit):
        r = torch.tensor(math.exp(-logit), dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(DEFINITIONS[name](r), r)
        return -slope.item()

    h = 1e-4
    difference = (velocity(d + h) - velocity(d - h)) / (2 * h)
    weight = velocity_weight(name)(torch.tensor([d], dtype=torch.float64)).item()
    assert difference == pytest.approx(weight, rel=1e-5, abs=1e-7)


@given(scale=st.floats(0.1, 10), slope=st.floats(-5, 5), d=logits)
def test_a_linear_term_moves_nothing_and_a_factor_scales(scale, slope, d):
    weight = velocity_weight(lambda r: scale * r * torch.log(r) + slope * (r - 1))(d)
    torch.testing.assert_close(weight, torch.full_like(d, scale))


@every_divergence
def test_weights_keep_the_type_and_work_without_grad(name):
    d = torch.linspace(-3, 3, 7)
    for divergence in (name, DEFINITIONS[name]):
        with torch.no_grad():
            weight = velocity_weight(divergence)(d)
        assert weight.dtype == torch.float32
        assert not weight.requires_grad
        torch.testing.assert_close(weight, velocity_weight(name)(d))


def test_jensen_shannon_and_logd_share_the_whole_weight():
    d = torch.linspace(-30, 30, 61)
    total = velocity_weight("js")(d) + velocity_weight("logd")(d)
    torch.testing.assert_close(total, torch.ones_like(d))


@pytest.mark.parametrize("name", ["KL", "", "kullback", "js "])
def test_an_unknown_name_is_refused_with_the_names_there_are(name):
    with pytest.raises(
        ValueError, match=f"unknown divergence {name!r}: choose one of kl, js, logd"
    ):
        velocity_weight(name)


@pytest.mark.parametrize("wrong", [None, 1.0, ["kl"]])
def test_what_is_neither_name_nor_callable_is_refused(wrong):
    with pytest.raises(TypeError, match="must be a name or a callable"):
        velocity_weight(wrong)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda r: 2 * r, "twice differentiable"),
        (lambda r: torch.zeros_like(r), "twice differentiable"),
        (lambda r: r.detach() ** 2, "twice differentiable"),
        (lambda r: (r**2).sum(), "tensor of the same shape"),
        (lambda r: 1.0, "tensor of the same shape"),
    ],
)
def test_a_callable_without_a_second_derivative_is_refused(f, message):
    with pytest.raises(ValueError, match=message):
        velocity_weight(f)(torch.zeros(3))
