"""LatentTarget: values, gradients, the shapes it takes and refuses, and the caller's modules."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import A, B, identity, normal_prior, standard_normal, tilted_normal
from torch import nn
from torch.distributions import Normal, Uniform

from logitflow import LatentTarget
from logitflow.target import one_number_a_sample, unchanged


def test_values_are_those_of_the_formula():
    z, target = standard_normal(50), tilted_normal()
    logits = z @ A.T @ B
    log_prior = normal_prior().log_prob(z).sum(1)
    torch.testing.assert_close(target.generate(z), z @ A.T)
    torch.testing.assert_close(target.logits(z), logits)
    torch.testing.assert_close(target.log_prob(z), log_prior + logits)
    torch.testing.assert_close(target.energy(z), -log_prior - logits)
    torch.testing.assert_close(tilted_normal(prior=False).log_prob(z), logits)


def test_gradients_are_those_of_the_formula():
    z, target = standard_normal(50), tilted_normal()
    value, grad = target.logits_and_grad(z)
    torch.testing.assert_close(value, target.logits(z))
    torch.testing.assert_close(grad, (A.T @ B).expand(50, 2))
    value, grad = target.log_prob_and_grad(z)
    torch.testing.assert_close(value, target.log_prob(z))
    torch.testing.assert_close(grad, A.T @ B - z)
    assert not value.requires_grad
    assert not grad.requires_grad


def test_gradients_of_a_curved_pair_pass_gradcheck():
    target = LatentTarget(
        lambda z: torch.tanh(z @ A.T), lambda x: torch.sin(3 * x).sum(1, True), normal_prior()
    )
    z = standard_normal(5).requires_grad_()
    assert torch.autograd.gradcheck(target.log_prob, z)
    (grad,) = torch.autograd.grad(target.log_prob(z).sum(), z)
    torch.testing.assert_close(target.log_prob_and_grad(z).grad, grad)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_taken_whatever_the_callers_mode(mode):
    z, target = standard_normal(5), tilted_normal()
    expected = target.log_prob_and_grad(z)
    with mode():
        torch.testing.assert_close(target.log_prob_and_grad(z), expected)
        torch.testing.assert_close(target.log_prob_and_grad(z.clone()), expected)


def test_samples_come_without_a_gradient():
    layer = nn.Linear(2, 3).double()
    target = LatentTarget(layer, lambda x: x.sum(1), None)
    assert not target.generate(standard_normal(4).requires_grad_()).requires_grad


def test_outside_a_bounded_prior_the_density_is_zero():
    prior = Uniform(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    target = LatentTarget(identity, lambda x: x.sum(1), prior)
    z = torch.tensor([[0.5, 0.5], [1.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(target.log_prob(z), torch.tensor([1.0, -torch.inf]).double())
    assert torch.equal(target.bounds.low, torch.zeros(2).double())
    assert tilted_normal().bounds is None


# --- the logit's shape ------------------------------------------------------------------------------


@given(n=st.integers(1, 5), shape=st.lists(st.integers(1, 3), max_size=4))
def test_one_number_a_sample_or_a_refusal(n, shape):
    """Exactly (N,), (N, 1) and (N, 1, 1, 1) pass, and all three mean the same."""
    z, output = (
        torch.zeros(n, 2),
        torch.arange(float(n)).view(n, *[1] * len(shape)).expand(n, *shape),
    )
    if tuple(shape) in {(), (1,), (1, 1, 1)}:
        assert torch.equal(one_number_a_sample(output, z), torch.arange(float(n)))
    else:
        with pytest.raises(
            ValueError, match=r"one number a sample is needed.*logitflow\.ratio\.corrected"
        ):
            one_number_a_sample(output, z)


@pytest.mark.parametrize(
    "output", [torch.zeros(()), torch.zeros(1, 4), torch.zeros(3), torch.zeros(5)]
)
def test_an_output_of_another_batch_size_is_refused(output):
    target = LatentTarget(identity, lambda x: output, None)
    with pytest.raises(ValueError, match=r"the logit returned shape .* for 4 samples"):
        target.logits(torch.zeros(4, 2))


def test_a_logit_cut_off_from_the_latents_is_refused():
    target = LatentTarget(identity, lambda x: x.detach().sum(1), None)
    with pytest.raises(ValueError, match="remove no_grad, detach or NumPy"):
        target.logits_and_grad(torch.zeros(4, 2))


# --- what it is made of -----------------------------------------------------------------------------


def test_arguments_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="generator must be callable, not NoneType"):
        LatentTarget(None, identity, None)
    with pytest.raises(TypeError, match="logit must be callable, not Tensor"):
        LatentTarget(identity, torch.zeros(2), None)
    with pytest.raises(
        TypeError, match=r"prior must be a torch.distributions.Distribution or None"
    ):
        LatentTarget(identity, identity, torch.randn)


def test_latents_that_are_no_batch_are_refused_by_every_method():
    target = tilted_normal()
    methods = [target.generate, target.logits, target.log_prob, target.energy]
    for method in [*methods, target.logits_and_grad, target.log_prob_and_grad]:
        with pytest.raises(TypeError, match=r"call z.float\(\) first"):
            method(torch.zeros(3, 2, dtype=torch.int32))
        with pytest.raises(ValueError, match="pass at least one"):
            method(torch.zeros(0, 2))


class Counting(nn.Module):
    """A logit that says in which mode it was called."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2).double()
        self.seen = []

    def forward(self, x):
        flags = [p.requires_grad for p in self.parameters()]
        self.seen.append((self.training, self.norm.training, any(flags)))
        return self.norm(x).sum(1)


def test_modules_are_evaluated_in_eval_mode_without_parameter_gradients():
    logit = Counting()
    target = LatentTarget(identity, logit, None)
    target.logits_and_grad(standard_normal(3))
    target.logits(standard_normal(1))  # batch norm in training mode refuses a batch of one
    assert logit.seen == [(False, False, False)] * 2
    assert logit.training
    assert logit.norm.training
    assert all(p.requires_grad for p in logit.parameters())
    assert logit.norm.num_batches_tracked == 0


def test_flags_come_back_one_by_one_even_after_an_error():
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2))
    network[1].eval()
    network[2].weight.requires_grad_(False)
    modes = [child.training for child in network.modules()]
    flags = [p.requires_grad for p in network.parameters()]

    def use():
        with unchanged(network, network.forward, identity):
            assert not any(child.training for child in network.modules())
            assert not any(p.requires_grad for p in network.parameters())
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert [child.training for child in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == flags


def test_the_prior_and_the_latents_may_differ_in_precision():
    z = torch.randn(3, 2)
    for prior in (Normal(torch.zeros(2), 1.0), Normal(torch.zeros(2).double(), 1.0)):
        target = LatentTarget(identity, lambda x: x.sum(1), prior)
        value, grad = target.log_prob_and_grad(z)
        assert (value.dtype, grad.dtype) == (torch.float32, torch.float32)
